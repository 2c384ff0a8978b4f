"""The merged model as GGUF f16.

    python -m tasks.gguf.convert

Writes what llama.cpp's own script writes for the families in `tasks.llm.profiles` (a test compares them
tensor by tensor): names by gguf's tensor map, q and k rows permuted where the family needs it, matrices
in f16, vectors in f32, a tied output layer left out. The pre-tokenizer comes from an explicit table, and
`verify.py` proves it by comparing token ids. SentencePiece vocabularies are refused: their scores are
not carried here.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from tasks.artifacts import new_file
from tasks.errors import ModelError
from tasks.inference.loading import load_tokenizer, unreadable
from tasks.llm.profiles import Profile, profile_of
from tasks.settings import ConvertLlm
from tasks.stage import run_stage

FILE_NAME = "malgil-llm-f16.gguf"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
PRE_TOKENIZERS: tuple[tuple[Any, str], ...] = (
    # what tokenizer.json splits with → llama.cpp's name for it
    ({"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}, "smollm"),
    (BYTE_LEVEL, "gpt-2"),
)
log = logging.getLogger("malgil.convert")
logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells its own file names and byte order


def convert(params: ConvertLlm, *, merged: Path, gguf_f16: Path) -> Path:
    """Writes `gguf_f16`/malgil-llm-f16.gguf from the Hugging Face folder `merged`; returns its path.

    Raises:
        ModelError: unreadable weights, an unknown family, tensor or pre-tokenizer, a weight beyond f16.
        CapacityError: no space; an earlier file is as it was.
    """
    try:
        config = AutoConfig.from_pretrained(str(merged))
    except (OSError, ValueError) as error:
        raise unreadable(merged, error) from error
    profile = profile_of(config.model_type)
    tokenizer = load_tokenizer(merged)
    path = gguf_f16 / FILE_NAME
    with new_file(path) as temporary:
        writer = gguf.GGUFWriter(str(temporary), profile.gguf_arch)
        parameters = _write_tensors(writer, merged, config, profile)
        _write_metadata(writer, config, params.name, parameters)
        _write_vocabulary(writer, tokenizer, config.vocab_size)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return path


def _write_metadata(writer: gguf.GGUFWriter, config: Any, name: str, parameters: int) -> None:
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise ModelError(
            f"rope_type {rope['rope_type']!r}", "only the default rotary embedding is converted", "add it"
        )
    writer.add_type("model")
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _write_tensors(writer: gguf.GGUFWriter, folder: Path, config: Any, profile: Profile) -> int:
    """Adds every tensor; returns the number of parameters."""
    architecture = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == profile.gguf_arch)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    parameters = 0
    for name, tensor in _tensors(folder):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        new_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise ModelError(
                f"tensor {name!r}", f"unknown to the family {profile.model_type}", "convert another model"
            )
        parameters += tensor.numel()
        if profile.permutes_qk and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            tensor = permute(tensor, heads)
        writer.add_tensor(new_name, _stored(name, tensor))
    return parameters


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise unreadable(folder, FileNotFoundError("no *.safetensors"))
    for path in files:
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    yield name, weights.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise unreadable(path, error) from error


def permute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows from halves (x0..xn, y0..yn per head, Hugging Face) to pairs (x0, y0, x1, y1, ...; llama.cpp)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


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
    if about["model"]["type"] != "BPE" or about["model"].get("byte_fallback"):
        raise ModelError(
            f"a vocabulary of type {about['model']['type']}",
            "only byte-level BPE is converted",
            "choose a base model with a byte-level BPE tokenizer",
        )
    words = {index: word for word, index in tokenizer.get_vocab().items()}
    added = {token["id"]: token for token in about["added_tokens"]}
    tokens, types = [], []
    for index in range(size):
        tokens.append(words.get(index, f"[PAD{index}]"))
        types.append(_token_type(index in words, added.get(index)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(about))
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
    writer.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(tokenizer.chat_template)


def _token_type(used: bool, added: dict[str, Any] | None) -> gguf.TokenType:
    if not used:
        return gguf.TokenType.UNUSED
    if added is None:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED


def pre_tokenizer_name(about: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer of a tokenizer.json.

    Raises:
        ModelError: it is not in the table; a guess would change token ids silently.
    """
    for description, name in PRE_TOKENIZERS:
        if about["pre_tokenizer"] == description:
            return name
    raise ModelError(
        f"pre-tokenizer {json.dumps(about['pre_tokenizer'])[:300]}",
        f"not in the table ({', '.join(name for _, name in PRE_TOKENIZERS)})",
        "add it with llama.cpp's name to PRE_TOKENIZERS in tasks/gguf/convert.py and run its test",
    )


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
