"""The merged model as GGUF f16.

    python -m tasks.gguf.convert

Writes what llama.cpp's own script writes for the families in `tasks.llm.profiles` (a test compares them
tensor by tensor): names by gguf's tensor map, rows of q and k (weights and biases) permuted where the family
needs it, matrices in f16, vectors in f32, a tied output layer left out. What cannot be carried is refused
before anything is written, by `convertible.py`; `verify.py` proves the file by its token ids and answers.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from tasks.artifacts import new_file
from tasks.errors import ModelError
from tasks.gguf import convertible
from tasks.inference.loading import load_tokenizer, unreadable
from tasks.llm.chat import chat_template
from tasks.llm.profiles import Profile
from tasks.settings import ConvertLlm
from tasks.stage import run_stage

FILE_NAME = "malgil-llm-f16.gguf"
log = logging.getLogger("malgil.convert")
logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells its own file names and byte order


def convert(params: ConvertLlm, *, merged: Path, gguf_f16: Path) -> Path:
    """Writes `gguf_f16`/malgil-llm-f16.gguf from the Hugging Face folder `merged`; returns its path.

    Raises:
        ModelError: unreadable weights, anything that `convertible.refusals` names, a weight beyond f16.
        CapacityError: no space; an earlier file is as it was.
    """
    config, tokenizer = read_config(merged), load_tokenizer(merged)
    profile = convertible.require_convertible(config, tokenizer, headers(merged))
    path = gguf_f16 / FILE_NAME
    with new_file(path) as temporary:
        writer = gguf.GGUFWriter(str(temporary), profile.gguf_arch)
        parameters = _write_tensors(writer, merged, config, profile)
        _write_metadata(writer, config, params.name, parameters)
        _write_vocabulary(writer, tokenizer, config["vocab_size"])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return path


def read_config(folder: Path | str) -> dict[str, Any]:
    """The config of a model folder, defaults filled in. Raises ModelError if it is missing or broken."""
    try:
        found: dict[str, Any] = AutoConfig.from_pretrained(str(folder), local_files_only=True).to_dict()
    except Exception as error:  # each family has checks of its own
        raise unreadable(folder, error) from error
    return found


def headers(folder: Path) -> dict[str, convertible.Stored]:
    """Name to dtype and shape of every weight of a folder; no weight is read.

    Raises:
        ModelError: there are no safetensors, or a file is cut off.
    """
    found: dict[str, convertible.Stored] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    part = weights.get_slice(name)
                    found[name] = (str(part.get_dtype()), tuple(part.get_shape()))
        except (OSError, SafetensorError) as error:
            raise unreadable(path, error) from error
    return found


def _write_metadata(writer: gguf.GGUFWriter, config: Mapping[str, Any], name: str, parameters: int) -> None:
    head_size = _head_size(config)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _write_rope(writer, config["rope_parameters"])


def _write_rope(writer: gguf.GGUFWriter, rope: Mapping[str, Any]) -> None:
    """What the rotary embedding's type needs; that of llama3 is a tensor (`rope_frequencies`)."""
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))


def rope_frequencies(config: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
    """(head size / 2,) what llama.cpp divides each frequency by, of rope_type llama3; None for other types.

    As llama.cpp's script and transformers' `_compute_llama3_parameters`: long waves by `factor`, short ones
    by 1, those between by a blend.
    """
    rope = config["rope_parameters"]
    if rope.get("rope_type") != "llama3":
        return None
    size, base, factor = _head_size(config), rope["rope_theta"], float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    context = rope["original_max_position_embeddings"]
    found = []
    for place in range(0, size, 2):
        wave = 2 * math.pi * base ** (place / size)
        if wave < context / high:
            found.append(1.0)
        elif wave > context / low:
            found.append(factor)
        else:
            smooth = (context / wave - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, dtype=np.float32)


def _head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _write_tensors(writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any], profile: Profile) -> int:
    """Adds every tensor; returns the number of parameters."""
    names = convertible.gguf_names(profile, config["num_hidden_layers"])
    parameters = 0
    frequencies = rope_frequencies(config)
    if frequencies is not None:
        writer.add_tensor("rope_freqs.weight", frequencies)
    for name, tensor in _tensors(folder):
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        new_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise ModelError(
                f"tensor {name!r}", f"unknown to the family {profile.model_type}", "convert another model"
            )
        parameters += tensor.numel()
        module, _, kind = name.rpartition(".")
        if profile.permutes_qk and kind in ("weight", "bias") and module.endswith(("q_proj", "k_proj")):
            of = "num_attention_heads" if module.endswith("q_proj") else "num_key_value_heads"
            tensor = permute(tensor, config[of])
        writer.add_tensor(new_name, _stored(name, tensor))
    return parameters


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise unreadable(folder, FileNotFoundError("no *.safetensors"))
    return files


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    yield name, weights.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise unreadable(path, error) from error


def permute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows from halves (x0..xn, y0..yn per head, Hugging Face) to pairs (x0, y0, x1, y1, ...; llama.cpp).

    Args:
        weight: (rows, columns) of q or k, or their bias (rows,).
    """
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _stored(name: str, tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    if tensor.ndim == 1:
        return tensor.float().numpy()
    half = tensor.to(torch.float16)
    if not torch.isfinite(half).all():
        raise ModelError(
            f"tensor {name!r}", "holds values that f16 cannot", "train with a lower learning rate"
        )
    return half.contiguous().numpy()


def _write_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, size: int) -> None:
    about = json.loads(tokenizer.backend_tokenizer.to_str())
    words = {index: word for word, index in tokenizer.get_vocab().items()}
    added = {token["id"]: token for token in about["added_tokens"]}
    tokens, types = [], []
    for index in range(size):
        tokens.append(words.get(index, f"[PAD{index}]"))
        types.append(_token_type(index in words, added.get(index)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(convertible.pre_tokenizer_name(about))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in about["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for token_id, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    # Prompts are the template's, word for word, in training as in serving: a start token that a server added
    # would stand twice where the template has one, and where it has none the model has never seen one.
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(chat_template(tokenizer))


def _token_type(used: bool, added: dict[str, Any] | None) -> gguf.TokenType:
    if not used:
        return gguf.TokenType.UNUSED
    if added is None:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.gguf.convert",
            "convert_llm",
            convert,
            inputs={"merged": Path("build/llm/merged")},
            outputs={"gguf_f16": Path("build/llm/gguf_f16")},
        )
    )
