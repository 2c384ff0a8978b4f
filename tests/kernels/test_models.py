"""Whole models with the kernels in them, against the same models without."""

import copy
import logging

import pytest
import torch

pytest.importorskip("triton")

from transformers import GPT2Config
from transformers.models.auto import AutoModelForCausalLM

from malgil_kernels.models import PROFILES, causal_lm_loss, use_kernels
from malgil_kernels.models.modules import KernelModule
from malgil_kernels.testing import TOLERANCE, relative_error
from tests.kernels.tiny_models import CONFIGS, DEVICE, FAMILIES, VOCAB, assert_same, batch, learned, tiny


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_gives_the_logits_the_loss_and_every_gradient_of_the_plain_model(family):
    plain = tiny(family)
    ours = copy.deepcopy(plain)
    replaced = use_kernels(ours)
    prefix = PROFILES[family].prefix
    assert replaced.counts[f"{prefix}DecoderLayer"] == replaced.counts[f"{prefix}Attention"] == 2
    assert not replaced.left
    ids, mask, labels = batch()
    wanted = plain(ids, attention_mask=mask, labels=labels)
    found = ours(ids, attention_mask=mask)
    real = mask.bool()
    assert relative_error(found.logits[real], wanted.logits[real].double()) <= 5 * TOLERANCE[torch.float32]
    loss = causal_lm_loss(ours, ids, labels, attention_mask=mask)
    assert relative_error(loss, wanted.loss.double()) <= 5 * TOLERANCE[torch.float32]
    assert_same(learned(ours, loss), learned(plain, wanted.loss), 2e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_packed_examples_are_computed_as_if_alone(family):
    plain = tiny(family)
    ours = copy.deepcopy(plain)
    use_kernels(ours)
    ids = batch()[0][:1]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6]], device=DEVICE)
    alone = torch.cat([plain(ids[:, :4]).logits, plain(ids[:, 4:]).logits], dim=1)
    packed = ours(ids, position_ids=positions, use_cache=False).logits
    assert relative_error(packed, alone.double()) <= 5 * TOLERANCE[torch.float32]


def test_bfloat16_stays_within_its_tolerance():
    plain = tiny("llama", torch.bfloat16)
    wide = copy.deepcopy(plain).double()
    use_kernels(plain)
    ids, _, _ = batch()
    # two layers of some eight rounded operations each
    assert relative_error(plain(ids).logits, wide(ids).logits) <= 2 * TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "mistral"])
def test_generation_with_a_cache_says_the_same(family):
    plain = tiny(family)
    ours = copy.deepcopy(plain)
    use_kernels(ours)
    ids = batch()[0][:, :6]
    options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(ours.generate(ids, **options), plain.generate(ids, **options))


@pytest.mark.parametrize("first", ["kernels", "lora"])
def test_lora_learns_the_same_whether_it_comes_before_or_after(first):
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    torch.manual_seed(3)
    plain = get_peft_model(tiny("llama"), config)
    ours = tiny("llama")
    if first == "kernels":
        use_kernels(ours)
    ours = get_peft_model(ours, config)
    if first == "lora":
        use_kernels(ours)
    ours.load_state_dict(plain.state_dict())
    ids, mask, labels = batch()
    wanted = learned(plain, plain(input_ids=ids, attention_mask=mask, labels=labels).loss)
    found = learned(ours, causal_lm_loss(ours, ids, labels, attention_mask=mask))
    assert len(wanted) == 2 * 7 * 2
    assert_same(found, wanted, 2e-5)


def test_names_classes_and_weights_stay_and_undo_restores():
    model = tiny("llama")
    names, kinds = list(model.state_dict()), [type(m) for m in model.modules()]
    attention = type(model.model.layers[0].self_attn)
    ids, _, _ = batch()
    before = model(ids).logits
    replaced = use_kernels(model)
    assert list(model.state_dict()) == names
    assert isinstance(model.model.layers[0].self_attn, attention)
    assert len(model(ids, output_hidden_states=True).hidden_states) == 3
    replaced.undo()
    assert [type(m) for m in model.modules()] == kinds
    assert model.config._attn_implementation == "eager"
    assert torch.equal(model(ids).logits, before)


def test_gradient_checkpointing_goes_on():
    plain, ours = tiny("llama").train(), tiny("llama").train()
    ours.gradient_checkpointing_enable({"use_reentrant": False})
    use_kernels(ours)
    ids, mask, labels = batch()
    wanted = learned(plain, plain(ids, attention_mask=mask, labels=labels).loss)
    assert_same(learned(ours, causal_lm_loss(ours, ids, labels, attention_mask=mask)), wanted, 2e-5)


def test_what_has_no_kernel_is_refused_or_left_to_transformers(caplog):
    gpt = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=VOCAB))
    with pytest.raises(ValueError, match=r"model_type 'gpt2': must be one of .*llama"):
        use_kernels(gpt)
    model = tiny("llama")
    use_kernels(model)
    with pytest.raises(ValueError, match="already"):
        use_kernels(model)
    wide, plain = tiny("llama").double(), tiny("llama").double()
    use_kernels(wide)
    ids, _, _ = batch()
    with caplog.at_level(logging.INFO, "malgil.kernels"):
        found = wide(ids).logits
    assert relative_error(found, plain(ids).logits) <= TOLERANCE[torch.float64]
    assert "LlamaRMSNorm: transformers' own forward" in caplog.text


def test_another_activation_leaves_the_mlp_alone():
    config = copy.deepcopy(CONFIGS["llama"])
    config.hidden_act = "relu"
    model = AutoModelForCausalLM.from_config(config)
    replaced = use_kernels(model)
    assert "activation 'relu'" in replaced.left["LlamaMLP"]
    assert not isinstance(model.model.layers[0].mlp, KernelModule)


def test_an_output_layer_that_is_no_matrix_is_refused():
    model = tiny("llama")
    model.lm_head = torch.nn.Linear(32, VOCAB, bias=True).to(DEVICE)
    ids, _, labels = batch()
    with pytest.raises(ValueError, match="must be a Linear without bias"):
        causal_lm_loss(model, ids, labels)
