"""What a config, a tokenizer or tensors say that a GGUF cannot: carried with equal logits, or refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tasks.errors import ModelError
from tasks.gguf.convert import FILE_NAME, convert, headers, read_config
from tasks.gguf.convertible import refusals
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.inference.loading import load_tokenizer
from tasks.inference.transformers_engine import TransformersEngine
from tasks.settings import ConvertLlm
from tests import tiny_llm

TEXT = "<|im_start|>user\n거실 온도 24도로 맞춰 줘 그리고 내일 아침 7시에 깨워 줘<|im_end|>\n"
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


def write(folder: Path, **changes: Any) -> Path:
    """The tiny model of another config, every weight (biases too) drawn anew."""
    config = LlamaConfig.from_pretrained(tiny_llm.write_model(folder))
    (folder / "model.safetensors").unlink()
    config.initializer_range = 0.15  # rounding weighs less than with that of the tiny model
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    model = LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.5)
    model.to(torch.float16).save_pretrained(folder)
    return folder


def spread(folder: Path, out: Path) -> float:
    """Largest difference of the logits of torch and llama.cpp, over their spread."""
    path = convert(ConvertLlm(name="tiny"), merged=folder, gguf_f16=out)
    one, other = TransformersEngine(folder), LlamaCppEngine(path)
    ids = one.tokenise(TEXT)
    mine, theirs = one.logits(ids), other.logits(ids)
    return float(np.abs(mine - theirs).max() / mine.std())


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        {"head_dim": 32},
        *({"rope_parameters": rope, "attention_bias": True} for rope in ROPES.values()),
    ],
    ids=["attention bias", "mlp bias", "both, untied", "wide heads", *ROPES],
)
def test_what_a_llama_may_say_keeps_its_logits(changes: dict[str, Any], tmp_path: Path) -> None:
    assert spread(write(tmp_path / "merged", **changes), tmp_path / "out") <= 0.01


@pytest.mark.parametrize("rope", ["linear", "llama3", "yarn"])
def test_these_ropes_matter_in_the_test_above(rope: str, tmp_path: Path) -> None:
    """With the rotary embedding of another type the same weights give other logits."""
    folder = write(tmp_path / "merged", rope_parameters=ROPES[rope])
    plain = write(tmp_path / "plain", rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    one, other = TransformersEngine(folder), TransformersEngine(plain)
    ids = one.tokenise(TEXT)
    assert np.abs(one.logits(ids) - other.logits(ids)).max() / one.logits(ids).std() > 0.05


def edit(name: str, value: Any) -> Callable[[Path], None]:
    """Sets a key of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


def retoken(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Changes tokenizer.json."""

    def apply(folder: Path) -> None:
        path = folder / "tokenizer.json"
        about = json.loads(path.read_text("utf-8"))
        change(about)
        path.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    return apply


def reweigh(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Changes the weights."""

    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return apply


def add_tokens(folder: Path) -> None:
    words = load_tokenizer(folder)
    words.add_tokens([AddedToken(f"<tool_{number}>") for number in range(9)])
    words.save_pretrained(folder)


ROPE = {"rope_type": "default", "rope_theta": 10000.0}
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "rope dynamic": (
        edit("rope_parameters", {**ROPE, "rope_type": "dynamic", "factor": 2.0}),
        "rope_type 'dynamic'",
    ),
    "a context beyond 32 bits": (edit("max_position_embeddings", 1 << 40), "max_position_embeddings = "),
    "no context": (edit("max_position_embeddings", 0), "max_position_embeddings = 0"),
    "a norm of NaN": (edit("rms_norm_eps", float("nan")), "rms_norm_eps = nan"),
    "a rope of no base": (edit("rope_parameters", {**ROPE, "rope_theta": 0}), "rope_theta = 0"),
    "a rope of factor 0": (
        edit("rope_parameters", {**ROPES["linear"], "factor": 0}),
        "rope_parameters.factor = 0",
    ),
    "partial rotary": (
        edit("rope_parameters", {**ROPE, "partial_rotary_factor": 0.5}),
        "partial_rotary_factor",
    ),
    "yarn of another ramp": (
        edit("rope_parameters", {**ROPES["yarn"], "beta_fast": 16}),
        "beta_fast = 16 with rope_type 'yarn'",
    ),
    "yarn of another attention": (
        edit("rope_parameters", {**ROPES["yarn"], "attention_factor": 2.0}),
        "attention_factor = 2.0",
    ),
    "another activation": (edit("hidden_act", "gelu"), "hidden_act = 'gelu'"),
    "sliding window": (edit("sliding_window", 512), "sliding_window = 512"),
    "logit scale": (edit("logit_scale", 0.0625), "logit_scale = 0.0625"),
    "residual multiplier": (edit("residual_multiplier", 0.22), "residual_multiplier"),
    "soft cap": (edit("final_logit_softcapping", 30.0), "final_logit_softcapping"),
    "experts": (edit("num_local_experts", 8), "num_local_experts = 8"),
    "another family": (edit("model_type", "gpt_neox"), "model_type 'gpt_neox'"),
    "tokens beyond": (add_tokens, "beyond the embedding"),
    "sentencepiece": (
        retoken(lambda about: about["model"].update(byte_fallback=True)),
        "only byte-level BPE is converted",
    ),
    "pre-tokenizer": (
        retoken(lambda about: about.update(pre_tokenizer={"type": "Whitespace"})),
        "not in the table",
    ),
    "missing weight": (
        reweigh(lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight")),
        "model.layers.1.mlp.up_proj.weight: they are missing",
    ),
    "unknown weight": (
        reweigh(lambda weights: weights.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(16)})),
        "q_norm.weight: they are unknown",
    ),
    "bias that the config does not name": (
        reweigh(lambda weights: weights.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(64)})),
        "q_proj.bias: they are unknown",
    ),
    "another shape": (
        reweigh(lambda weights: weights.update({"model.norm.weight": torch.ones(63)})),
        "model.norm.weight (63,), expected (64,)",
    ),
    "a type of 8 bits": (
        reweigh(
            lambda weights: weights.update({"model.norm.weight": torch.ones(64).to(torch.float8_e4m3fn)})
        ),
        "model.norm.weight (F8_E4M3)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_carried_is_refused_by_name_before_anything_is_written(
    fault: str, merged: Path, tmp_path: Path
) -> None:
    change, says = FAULTS[fault]
    change(folder := shutil.copytree(merged, tmp_path / "merged"))
    with pytest.raises(ModelError) as caught:
        convert(ConvertLlm(name="tiny"), merged=folder, gguf_f16=tmp_path / "out")
    assert says in str(caught.value) and "Next:" in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


def test_all_reasons_are_said_at_once(merged: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(merged, tmp_path / "merged")
    for fault in ("soft cap", "tokens beyond", "missing weight", "pre-tokenizer"):
        FAULTS[fault][0](folder)
    found = refusals(read_config(folder), load_tokenizer(folder), headers(folder))
    assert len(found) == 4
    with pytest.raises(ModelError) as caught:
        convert(ConvertLlm(name="tiny"), merged=folder, gguf_f16=tmp_path / "out")
    assert all(error.what in str(caught.value) for error in found)


def test_a_model_whose_tokenizer_was_added_to_converts_once_its_embedding_is_resized_and_the_advice_works(
    merged: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(merged, tmp_path / "merged")
    add_tokens(folder)
    with pytest.raises(ModelError, match="resize its embedding and save both"):
        convert(ConvertLlm(name="tiny"), merged=folder, gguf_f16=tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model.resize_token_embeddings(len(load_tokenizer(folder)))
    model.save_pretrained(folder)
    assert spread(folder, tmp_path / "out") <= 0.01


def test_of_several_named_templates_the_default_is_written(merged: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(merged, tmp_path / "merged")
    words = load_tokenizer(folder)
    words.chat_template = {"default": tiny_llm.TEMPLATE, "tool_use": "{{ tools }}"}
    words.save_pretrained(folder)
    assert isinstance(load_tokenizer(folder).chat_template, dict)
    convert(ConvertLlm(name="tiny"), merged=folder, gguf_f16=tmp_path)
    assert LlamaCppEngine(tmp_path / FILE_NAME).chat_template() == tiny_llm.TEMPLATE


def test_a_start_token_stands_once_in_what_a_server_reads(merged: Path, tmp_path: Path) -> None:
    """The template writes it, and the tokenizer would add it: llama.cpp must not."""
    folder = shutil.copytree(merged, tmp_path / "merged")

    def adds_start(about: dict[str, Any]) -> None:
        start = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
        about["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [start, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}
            },
        }

    retoken(adds_start)(folder)
    assert load_tokenizer(folder)(TEXT)["input_ids"][:2] == [1, 1]
    convert(ConvertLlm(name="tiny"), merged=folder, gguf_f16=tmp_path)
    engine = LlamaCppEngine(tmp_path / FILE_NAME)
    assert engine.tokenise_as_server(TEXT) == engine.tokenise(TEXT)
