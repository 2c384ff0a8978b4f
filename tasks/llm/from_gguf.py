"""A quantised GGUF of the llama family back to a bf16 Hugging Face folder. No command: `tasks.llm.base`.

The file is opened once and every tensor dequantised once; transformers' own loader opens it four times and
builds the map of names for every module, in three times the CPU time. The weights are byte for byte those
of that loader, which a test compares. The tokenizer is transformers' own but for the digit splitter that the
file names and transformers does not know.
"""

from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.errors import ModelError
from tasks.inference.loading import unreadable
from tasks.weights.gguf_header import check_gguf
from tasks.weights.whole import listed

ARCHITECTURE = gguf.MODEL_ARCH.LLAMA
# keys of LlamaConfig → metadata of the file
_SIZES = {
    "vocab_size": "llama.vocab_size",
    "max_position_embeddings": "llama.context_length",
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.rope.dimension_count",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "unk_token_id": "tokenizer.ggml.unknown_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
    "_model_name_or_path": "general.name",
}


def convert_gguf(gguf_file: Path, folder: Path) -> None:
    """Writes config, weights (safetensors, bf16) and tokenizer of `gguf_file` to `folder`.

    Raises:
        ModelError: the file cannot be read, is of another family, has tensors that are missing, unexpected or
            of another shape, or names a pre-tokenizer that cannot be restored.
    """
    check_gguf(gguf_file)  # before a reader that trusts every count
    try:
        reader = gguf.GGUFReader(gguf_file)
        model = _model(reader)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    except Exception as error:
        raise unreadable(gguf_file, error) from error
    _restore_pre_tokenizer(tokenizer, reader, gguf_file)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _model(reader: gguf.GGUFReader) -> LlamaForCausalLM:
    architecture = _value(reader, "general.architecture")
    if architecture != gguf.MODEL_ARCH_NAMES[ARCHITECTURE]:
        raise ValueError(f"architecture {architecture!r}; only llama is read")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = LlamaConfig(
        **{key: _value(reader, name) for key, name in _SIZES.items()},
        rope_parameters={"rope_type": "default", "rope_theta": _value(reader, "llama.rope.freq_base")},
        tie_word_embeddings="output.weight" not in tensors,
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    names = gguf.get_tensor_name_map(ARCHITECTURE, config.num_hidden_layers)
    weights, unused = {}, set(tensors)
    for name in model.state_dict():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        place = names.get_name(name, try_suffixes=(".weight",)) or name
        stored = tensors[place]
        unused.discard(place)
        weight = torch.tensor(gguf.dequantize(stored.data, stored.tensor_type)).to(torch.bfloat16)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            weight = rows_in_halves(weight, heads or config.num_attention_heads)
        weights[name] = weight
    if unused:  # biases, factors of the rotary embedding: without them the model says something else
        raise ValueError(listed(unused, "tensor has no place", "tensors have no place"))
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    return model


def rows_in_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows from pairs (x0, y0, x1, y1, ...; llama.cpp) to halves (x0..xn, y0..yn per head, Hugging Face)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _value(reader: gguf.GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise KeyError(f"the file has no {name}")
    return field.contents()


def _restore_pre_tokenizer(tokenizer: Any, reader: gguf.GGUFReader, gguf_file: Path) -> None:
    field = reader.get_field("tokenizer.ggml.pre")
    pre = field.contents() if field else None
    if pre != "smollm":
        raise ModelError(
            f"{gguf_file} names the pre-tokenizer {pre!r}",
            "only 'smollm' can be restored",
            "use a Hugging Face folder",
        )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
