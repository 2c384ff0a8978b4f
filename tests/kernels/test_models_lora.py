"""LoRA adapters of PEFT in whole models: the kernels against PEFT's own layers, dense and quantised."""

import copy
import logging

import pytest
import torch

pytest.importorskip("triton")

from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear

from malgil_kernels.models import causal_lm_loss, projections, quantise_base, use_kernels
from malgil_kernels.testing import TOLERANCE, relative_error
from tests.kernels.tiny_models import CONFIGS, DEVICE, FAMILIES, assert_same, batch, learned, tiny

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EVEN = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 8}


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")
    projections._log_once.cache_clear()


@pytest.fixture
def ran(monkeypatch):
    """How many layers each LoRA kernel has computed."""
    counts = {"alone": 0, "grouped": 0}

    def counting(name, op):
        def call(x, weight, a, *rest):
            counts[name] += len(a) if name == "grouped" else 1
            return op(x, weight, a, *rest)

        return call

    monkeypatch.setattr(projections, "lora_linear", counting("alone", projections.lora_linear))
    monkeypatch.setattr(
        projections, "lora_linear_grouped", counting("grouped", projections.lora_linear_grouped)
    )
    return counts


def with_lora(model, **changes):
    options = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "init_lora_weights": False}
    torch.manual_seed(3)
    return get_peft_model(model, LoraConfig(**{**options, **changes})).eval()


def pair(family="llama", **changes):
    plain = with_lora(tiny(family), **changes)
    return plain, copy.deepcopy(plain)


def even_llama():
    """Matrices of 128 × 128: NF4 keeps one statistic over each, so that they can follow one another."""
    config = copy.deepcopy(CONFIGS["llama"])
    for name, value in EVEN.items():
        setattr(config, name, value)
    torch.manual_seed(7)
    from transformers.models.auto import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(config).to(DEVICE).eval()


def assert_learns_the_same(ours, plain):
    ids, mask, labels = batch()
    wanted = plain(input_ids=ids, attention_mask=mask, labels=labels)
    found = ours(input_ids=ids, attention_mask=mask).logits
    real = mask.bool()
    assert relative_error(found[real], wanted.logits[real].double()) <= 5 * TOLERANCE[torch.float32]
    gradients = learned(plain, wanted.loss)
    assert len(gradients) == 2 * 7 * 2
    assert_same(
        learned(ours, causal_lm_loss(ours, ids, labels, attention_mask=mask)),
        gradients,
        10 * TOLERANCE[torch.float32],
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_as_peft_does(family, ran):
    plain, ours = pair(family)
    replaced = use_kernels(ours)
    assert replaced.grouped == 2 * 2
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert_learns_the_same(ours, plain)
    # two passes of two blocks: q, k, v and gate, up together, o and down alone
    assert ran == {"alone": 2 * 2 * 2, "grouped": 2 * 2 * 5}


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True, "lora_alpha": 4},  # 4 / √4, not 4 / 4
        {"rank_pattern": {"k_proj": 2, "up_proj": 3}},
        {"alpha_pattern": {"v_proj": 32, "gate_proj": 1}},
    ],
    ids=["rslora", "ranks", "alphas"],
)
def test_the_factor_and_the_rank_are_those_of_each_layer(changes, ran):
    plain, ours = pair(**changes)
    use_kernels(ours)
    assert_learns_the_same(ours, plain)
    assert ran["grouped"] == (20 if "use_rslora" in changes else 0)
    assert sum(ran.values()) == 2 * 2 * 7


def test_layers_without_an_adapter_beside_layers_with_one(ran):
    plain, ours = pair(target_modules=["q_proj", "v_proj"])
    use_kernels(ours)
    ids, _, _ = batch()
    assert relative_error(ours(ids).logits, plain(ids).logits.double()) <= 5 * TOLERANCE[torch.float32]
    assert ran == {"alone": 4, "grouped": 0}


def test_bfloat16_stays_within_its_tolerance(ran):
    plain = with_lora(tiny("llama", torch.bfloat16)).to(torch.bfloat16)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if "lora" in name:
                weight.mul_(0.5)  # adapters as large as the weights double what each layer rounds
    wide = copy.deepcopy(plain).double()
    use_kernels(plain)
    ids, _, _ = batch()
    assert relative_error(plain(ids).logits, wide(ids).logits) <= 2 * TOLERANCE[torch.bfloat16]
    assert ran == {"alone": 4, "grouped": 10}


def test_the_weights_of_a_group_lie_in_one_storage_and_are_not_held_twice(ran):
    plain, ours = pair()
    use_kernels(ours)
    attention = ours.base_model.model.model.layers[0].self_attn
    storages = {
        getattr(attention, name).base_layer.weight.untyped_storage()
        for name in ("q_proj", "k_proj", "v_proj")
    }
    held = sum(getattr(attention, name).base_layer.weight.nbytes for name in ("q_proj", "k_proj", "v_proj"))
    assert len({storage.data_ptr() for storage in storages}) == 1
    assert all(storage.nbytes() == held for storage in storages)
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    # merging changes the weights where they lie, and unmerging brings the kernels back
    for model in (ours, plain):
        model.merge_adapter()
    assert_same_logits(ours, plain)
    assert not any(ran.values())
    for model in (ours, plain):
        model.unmerge_adapter()
    assert_same_logits(ours, plain)
    assert ran == {"alone": 4, "grouped": 10}


def assert_same_logits(ours, plain):
    ids, _, _ = batch()
    assert relative_error(ours(ids).logits, plain(ids).logits.double()) <= 5 * TOLERANCE[torch.float32]


def test_a_model_that_was_copied_or_moved_goes_layer_by_layer(ran, caplog):
    plain, ours = pair()
    use_kernels(ours)
    copied = copy.deepcopy(ours)
    assert_same_logits(copied, plain)
    assert ran == {"alone": 14, "grouped": 0}
    for parameter in ours.parameters():
        parameter.data = parameter.data.clone()
    with caplog.at_level(logging.INFO, "malgil.kernels"):
        assert_same_logits(ours, plain)
    assert ran == {"alone": 28, "grouped": 0}
    assert "weights were moved or replaced after use_kernels" in caplog.text


def two_adapters(model):
    torch.manual_seed(4)
    model.add_adapter("second", LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False))
    model.base_model.set_adapter(["default", "second"])


def hooked(model):
    for module in model.modules():
        if isinstance(module, Linear):
            module.register_forward_hook(lambda _module, _inputs, output: 2 * output)


def trained_base(model):
    for module in model.modules():
        if isinstance(module, Linear):
            module.base_layer.weight.requires_grad_()


FALL_BACKS = {
    "two active adapters": ({}, two_adapters, "2 active adapters"),
    "no active adapter": ({}, lambda model: model.base_model.disable_adapter_layers(), "merged or disabled"),
    "merged": ({}, lambda model: model.merge_adapter(), "merged or disabled"),
    "DoRA": ({"use_dora": True}, None, "DoRA"),
    "a bias in B": ({"lora_bias": True}, None, "matrices with a bias"),
    "dropout": ({"lora_dropout": 0.5}, lambda model: model.train(), "dropout in training"),
    "hooks": ({}, hooked, "hooks on the layer"),
    "a base that learns": ({}, trained_base, "the base weight is trained too"),
}


@pytest.mark.parametrize("name", FALL_BACKS)
def test_what_the_kernel_cannot_compute_is_left_to_peft(name, ran, caplog):
    changes, prepare, reason = FALL_BACKS[name]
    family = "qwen2" if changes.get("lora_bias") else "llama"
    targets = (
        ["q_proj", "k_proj", "v_proj"] if changes.get("lora_bias") else TARGETS
    )  # where the base has one
    plain, ours = pair(family, **changes, target_modules=targets)
    for model in (plain, ours):
        if prepare:
            prepare(model)
        if model is ours:
            use_kernels(ours)
    ids, _, _ = batch()
    torch.manual_seed(1)
    wanted = plain(ids).logits
    torch.manual_seed(1)
    with caplog.at_level(logging.INFO, "malgil.kernels"):
        found = ours(ids).logits
        ours(ids)
    assert relative_error(found, wanted.double()) <= 5 * TOLERANCE[torch.float32]
    assert not any(ran.values())
    said = [message for message in caplog.messages if "LoRA on q_proj" in message]
    assert len(said) == 1 and reason in said[0]


def test_dropout_counts_in_training_alone(ran):
    plain, ours = pair(lora_dropout=0.5)
    use_kernels(ours)
    assert_same_logits(ours, plain)
    assert sum(ran.values()) == 14


def test_an_adapter_of_another_dtype_is_left_to_peft(ran, caplog):
    plain, ours = pair()
    for model in (plain, ours):
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.data = weight.data.double()
    use_kernels(ours)
    with caplog.at_level(logging.INFO, "malgil.kernels"):
        assert_same_logits(ours, plain)
    assert not any(ran.values())
    assert "not of one dtype" in caplog.text


def test_undo_restores_peft_s_layers(ran):
    plain, ours = pair()
    kinds = [type(module) for module in ours.modules()]
    replaced = use_kernels(ours)
    replaced.undo()
    assert [type(module) for module in ours.modules()] == kinds
    ids, _, _ = batch()
    assert torch.equal(ours(ids).logits, plain(ids).logits)
    assert not any(ran.values())


def test_where_dispatch_says_reference_peft_runs_and_nothing_is_moved(ran, monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "reference")
    plain, ours = pair()
    places = [weight.data_ptr() for weight in ours.parameters()]
    assert use_kernels(ours).grouped == 0
    assert_same_logits(ours, plain)
    assert [weight.data_ptr() for weight in ours.parameters()] == places
    assert not any(ran.values())


def test_attention_can_be_left_as_it_is(ran):
    plain, ours = pair()
    for model in (plain, ours):
        model.set_attn_implementation("sdpa")
    replaced = use_kernels(ours, attention=False)
    assert ours.config._attn_implementation == "sdpa"
    assert_learns_the_same(ours, plain)
    assert ran["grouped"]
    replaced.undo()
    assert ours.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("form", ["nf4", "int4", "int8", "fp8"])
def test_a_quantised_base_computes_dequantise_and_gemm(form, ran):
    ours = with_lora(even_llama())
    plain = copy.deepcopy(ours)
    assert quantise_base(ours, form) == 2 * 7
    dequantised = {
        name: module.base_layer.quantised
        for name, module in ours.named_modules()
        if isinstance(module, Linear)
    }
    assert {weight.format for weight in dequantised.values()} == {form}
    for name, weight in dequantised.items():
        plain.get_submodule(name).base_layer.weight.data = weight.dequantise()
    assert use_kernels(ours).grouped == 2 * 2
    assert_learns_the_same(ours, plain)
    assert ran == {"alone": 2 * 2 * 2, "grouped": 2 * 2 * 5}
    held = sum(buffer.nbytes for buffer in ours.buffers())
    assert held < sum(w.numel() for w in plain.parameters() if not w.requires_grad) * 1.5


def test_nf4_whose_statistics_span_two_weights_goes_layer_by_layer(ran, caplog):
    ours = with_lora(tiny("llama"))
    plain = copy.deepcopy(ours)
    quantise_base(ours, "nf4")
    for name, module in ours.named_modules():
        if isinstance(module, Linear):
            plain.get_submodule(name).base_layer.weight.data = module.base_layer.quantised.dequantise()
    with caplog.at_level(logging.INFO, "malgil.kernels"):
        assert use_kernels(ours).grouped == 0
    assert "is not the last and holds 2048 units" in caplog.text
    assert_learns_the_same(ours, plain)
    assert ran == {"alone": 28, "grouped": 0}


def test_a_quantised_base_learns_the_same_without_the_kernels(monkeypatch):
    ours = with_lora(even_llama())
    quantise_base(ours, "nf4")
    plain = copy.deepcopy(ours)
    use_kernels(ours)
    monkeypatch.setenv("MALGIL_KERNELS", "reference")
    ids, mask, labels = batch()
    wanted = learned(plain, plain(input_ids=ids, attention_mask=mask, labels=labels).loss)
    monkeypatch.setenv("MALGIL_KERNELS", "triton")
    assert_same(
        learned(ours, causal_lm_loss(ours, ids, labels, attention_mask=mask)),
        wanted,
        10 * TOLERANCE[torch.float32],
    )


def test_a_quantised_base_is_saved_loaded_and_keeps_its_bits_when_the_model_is_cast(tmp_path):
    ours = with_lora(even_llama())
    fresh = copy.deepcopy(ours)
    quantise_base(ours, "nf4")
    use_kernels(ours)
    torch.save(ours.state_dict(), tmp_path / "whole.pt")
    with torch.no_grad():
        for weight in fresh.parameters():
            weight.zero_()
        for module in fresh.modules():
            if isinstance(module, Linear):
                module.base_layer.weight.normal_()
    quantise_base(fresh, "nf4")
    fresh.load_state_dict(torch.load(tmp_path / "whole.pt", weights_only=True))
    assert_same_logits(ours, fresh)
    before = {name: buffer.clone() for name, buffer in fresh.named_buffers() if "base_layer" in name}
    fresh.to(torch.bfloat16)
    after = dict(fresh.named_buffers())
    assert before and all(torch.equal(after[name], value) for name, value in before.items())
    ours.save_pretrained(tmp_path / "adapter")
    again = with_lora(even_llama())
    again.load_adapter(str(tmp_path / "adapter"), "default")
    for name, value in again.state_dict().items():
        if "lora" in name:
            assert torch.equal(value, ours.state_dict()[name])


def test_what_cannot_be_quantised_or_merged_is_said():
    model = with_lora(tiny("llama"))
    with pytest.raises(ValueError, match=r"form is 'nf5': must be one of nf4, int4, int8, fp8"):
        quantise_base(model, "nf5")
    with pytest.raises(ValueError, match="get_peft_model first"):
        quantise_base(tiny("llama"), "nf4")
    quantise_base(model, "int8")
    with pytest.raises(AttributeError, match=r"held in int8 .* load the base model again"):
        model.merge_adapter()


def test_bitsandbytes_nf4_is_used_as_it_is_packed(ran):
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.nn import Linear4bit, Params4bit

    model = even_llama()
    for block in model.model.layers:
        for owner in (block.self_attn, block.mlp):
            for name, layer in list(owner.named_children()):
                if isinstance(layer, torch.nn.Linear):
                    four = Linear4bit(layer.in_features, layer.out_features, bias=False, quant_type="nf4")
                    four.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
                    setattr(owner, name, four.to(DEVICE))
    plain = with_lora(model).train()  # in eval, bitsandbytes may repack weights on a CPU
    ours = copy.deepcopy(plain)
    bases = [m.base_layer for m in ours.modules() if hasattr(m, "base_layer") and hasattr(m, "lora_A")]
    assert {type(base) for base in bases} == {Linear4bit}
    before = [base.weight.data.clone() for base in bases]
    assert use_kernels(ours).grouped == 2 * 2
    assert all(torch.equal(base.weight.data, codes) for base, codes in zip(bases, before, strict=True))
    assert_learns_the_same(ours, plain)
    assert ran == {"alone": 2 * 2 * 2, "grouped": 2 * 2 * 5}
    loss = ours(input_ids=batch()[0], labels=batch()[0]).loss
    assert all(base.weight.grad is None for base in bases) and torch.isfinite(loss)
