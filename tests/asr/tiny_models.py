"""Untrained checkpoints of every type that a recogniser can start from, small enough for a test."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCTC

SYLLABLES = (
    "거",
    "꺼",
    "노",
    "닫",
    "래",
    "맞",
    "문",
    "불",
    "실",
    "악",
    "알",
    "어",
    "열",
    "음",
    "줘",
    "창",
    "춰",
)
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16, 32),
    "conv_kernel": (10, 8, 4, 4),
    "conv_stride": (10, 4, 4, 2),
    "num_feat_extract_layers": 4,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "apply_spec_augment": False,
    "do_stable_layer_norm": True,
    "conv_bias": True,
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout"), 0.0),
    **dict.fromkeys(("feat_proj_dropout", "final_dropout", "layerdrop"), 0.0),
}
OWN: dict[str, dict[str, Any]] = {
    "data2vec-audio": {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5},
}


def tiny_model(kind: str, norm: str = "layer", outputs: int = 12, blank_id: int = 0, **changes: Any) -> Any:
    """A model of a type, with weights large enough that what it sees makes a difference."""
    settings = SHAPE | OWN.get(kind, {}) | {"feat_extract_norm": norm} | changes
    config = AutoConfig.for_model(kind, vocab_size=outputs, pad_token_id=blank_id, **settings)
    torch.manual_seed(0)
    return AutoModelForCTC.from_config(config).eval()


def foreign_vocabulary(symbols: tuple[str, ...] = SYLLABLES) -> dict[str, int]:
    """A vocab.json as checkpoints of others have it: symbols first, the unknown and the blank last."""
    return {s: i for i, s in enumerate(("|", *symbols, "[UNK]", "[PAD]"))}


def foreign_checkpoint(folder: Path, kind: str = "wav2vec2", norm: str = "layer", **changes: Any) -> Path:
    """A fine-tuned checkpoint that Malgil did not write: the blank is the last label."""
    ids = foreign_vocabulary()
    tiny_model(kind, norm, len(ids), ids["[PAD]"], **changes).save_pretrained(folder)
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "word_delimiter_token": "|", "do_lower_case": False}
    inputs = {"do_normalize": True, "sampling_rate": 16_000, "return_attention_mask": norm == "layer"}
    for name, content in (("vocab", ids), ("tokenizer_config", tokens), ("preprocessor_config", inputs)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
