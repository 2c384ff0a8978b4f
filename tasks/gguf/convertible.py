"""What keeps a model from becoming a GGUF, told from its config, tokenizer and tensor names alone.

    refusals(config, tokenizer, tensors)        every reason at once; empty: it can be converted

No weights are read. The converter asks before it writes and the check before a run (`tasks.preflight`) asks
before anything is trained: both by these functions, so that neither refuses what the other lets pass. What
changes the mathematics of a model and has no place in llama.cpp's file is refused by name, never dropped.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gguf

from tasks.errors import ModelError
from tasks.llm.profiles import Profile, profile_of

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
PRE_TOKENIZERS: tuple[tuple[Any, str], ...] = (
    # what tokenizer.json splits with → llama.cpp's name for it
    ({"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}, "smollm"),
    (BYTE_LEVEL, "gpt-2"),
)
DTYPES = ("F16", "BF16", "F32")
# Settings of a config that change what a model computes, and the value with which they do not. transformers
# passes over those that its family does not know, and so would a file: the model would not be its author's.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attn_logit_softcapping": (None, 0, 0.0),
    "final_logit_softcapping": (None, 0, 0.0),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "embedding_multiplier": (None, 1, 1.0),
    "attention_multiplier": (None,),
    "residual_multiplier": (None, 1, 1.0),
    "query_pre_attn_scalar": (None,),
    "sliding_window": (None, 0),
    "use_sliding_window": (None, False),
    "use_qk_norm": (None, False),
    "qk_layernorm": (None, False),
    "partial_rotary_factor": (None, 1, 1.0),
    "num_local_experts": (None, 0, 1),
    "num_experts": (None, 0, 1),
    "parallel_attn": (None, False),
    "alibi": (None, False),
    "quantization_config": (None,),
    "no_rope_layers": (None,),
    "hidden_act": ("silu", "swish"),
}
# What a rotary embedding may say beside its type, by type. `factor` of yarn makes its attention factor.
ROPE_KEYS = {
    "default": set[str](),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor"},
}
_ROPE_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "truncate"}
_YARN = {"beta_fast": 32, "beta_slow": 1}
_ANOTHER = "choose another base model (base_llm.model)"
_SCORES = "choose a base model with a byte-level BPE tokenizer"


def refusals(config: Mapping[str, Any], tokenizer: Any, tensors: Mapping[str, "Stored"]) -> list[ModelError]:
    """Every reason for which a model cannot be converted.

    Args:
        config: its config, as `PreTrainedConfig.to_dict` has it (defaults filled in).
        tokenizer: its fast tokenizer.
        tensors: name to (dtype of safetensors, shape) of every weight.
    """
    try:
        profile = profile_of(str(config.get("model_type")))
    except ModelError as error:
        return [error]
    return [
        *config_refusals(config),
        *vocabulary_refusals(tokenizer, int(config["vocab_size"])),
        *tensor_refusals(config, profile, tensors),
    ]


Stored = tuple[str, Sequence[int]]
"""Of one weight in safetensors: its dtype and its shape."""


def require_convertible(config: Mapping[str, Any], tokenizer: Any, tensors: Mapping[str, Stored]) -> Profile:
    """The profile of a model that can be converted. Raises ModelError with every reason why it cannot be."""
    found = refusals(config, tokenizer, tensors)
    if len(found) > 1:
        said = "".join(f"\n  - {error.what}: {error.rule}. Next: {error.next_step}" for error in found)
        raise ModelError(
            f"the model cannot become a GGUF, for {len(found)} reasons:{said}\n", "none", _ANOTHER
        )
    if found:
        raise found[0]
    return profile_of(str(config["model_type"]))


def config_refusals(config: Mapping[str, Any]) -> list[ModelError]:
    """What the config says that llama.cpp's file cannot say."""
    found = [
        ModelError(
            f"{name} = {_short(config[name])} in config.json",
            "changes what the model computes, and is not carried into a GGUF",
            _ANOTHER,
        )
        for name, neutral in NEUTRAL.items()
        if name in config and config[name] not in neutral
    ]
    if {"full_attention"} < {"full_attention", *(config.get("layer_types") or ())}:
        found.append(ModelError("layer_types in config.json", "only full attention is converted", _ANOTHER))
    return [*found, *_number_refusals(config), *_rope_refusals(config)]


def _number_refusals(config: Mapping[str, Any]) -> Iterator[ModelError]:
    """Numbers that llama.cpp's file holds in 32 bits, or that no model computes with."""
    rope = config.get("rope_parameters") or {}
    asked = {
        "max_position_embeddings": (config.get("max_position_embeddings", 1), 1, 2**31 - 1),
        "rms_norm_eps": (config.get("rms_norm_eps", 1e-6), 1e-38, 1e11),
        "rope_parameters.rope_theta": (rope.get("rope_theta", 1e4), 1e-6, 1e11),
        "rope_parameters.factor": (rope.get("factor"), 1e-6, 1e9),
    }
    for name, (value, least, most) in asked.items():
        if isinstance(value, int | float) and (isinstance(value, bool) or not least <= value <= most):
            yield ModelError(
                f"{name} = {value!r} in config.json",
                f"must be a number from {least:g} to {most:g}",
                "correct config.json of the base model, from where it came",
            )


def _rope_refusals(config: Mapping[str, Any]) -> Iterator[ModelError]:
    rope = config.get("rope_parameters") or {}
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_KEYS:
        yield ModelError(f"rope_type {kind!r}", f"converted are {', '.join(ROPE_KEYS)}", _ANOTHER)
        return
    wrong = {
        key: value
        for key, value in rope.items()
        if key not in _ROPE_COMMON | ROPE_KEYS[kind] and value is not None
    }
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        wrong["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if kind == "yarn":
        usual = {**_YARN, "truncate": True, "attention_factor": yarn_attention(rope)}
        wrong |= {key: rope[key] for key, value in usual.items() if rope.get(key) not in (None, value)}
    for key, value in wrong.items():
        yield ModelError(
            f"rope_parameters.{key} = {_short(value)} with rope_type {kind!r}",
            "changes the rotary embedding, and is not carried into a GGUF",
            _ANOTHER,
        )
    lacking = (
        {"factor"} | (ROPE_KEYS[kind] - _YARN.keys() - {"attention_factor"}) if kind != "default" else set()
    )
    for key in sorted(key for key in {"rope_theta"} | lacking if not isinstance(rope.get(key), int | float)):
        yield ModelError(
            f"rope_parameters.{key} = {rope.get(key)!r}",
            f"rope_type {kind!r} needs it",
            "correct config.json of the base model, from where it came",
        )


def yarn_attention(rope: Mapping[str, Any]) -> float | None:
    """The factor of attention that YaRN's scale gives, which llama.cpp computes itself; None without."""
    factor = rope.get("factor")
    return 0.1 * math.log(factor) + 1.0 if isinstance(factor, int | float) and factor > 1 else None


def vocabulary_refusals(tokenizer: Any, size: int) -> list[ModelError]:
    """What the tokenizer has that llama.cpp's file cannot hold, or that an embedding of `size` rows lacks."""
    about = json.loads(tokenizer.backend_tokenizer.to_str())
    found = []
    kind = about["model"]["type"]
    if kind != "BPE" or about["model"].get("byte_fallback"):
        said = f"{kind} with byte fallback (SentencePiece)" if kind == "BPE" else kind
        found.append(ModelError(f"a vocabulary of type {said}", "only byte-level BPE is converted", _SCORES))
    else:
        try:
            pre_tokenizer_name(about)
        except ModelError as error:
            found.append(error)
    words = tokenizer.get_vocab()
    beyond = sorted((index, word) for word, index in words.items() if index >= size)
    if beyond:
        named = ", ".join(f"{word!r} = {index}" for index, word in beyond[:5])
        found.append(
            ModelError(
                f"{len(beyond)} tokens lie beyond the embedding ({named})",
                f"config.json has vocab_size {size}: ids from 0 to {size - 1}",
                "choose a base model whose tokenizer belongs to it, or resize its embedding and save both",
            )
        )
    return found


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
        "add it with llama.cpp's name to PRE_TOKENIZERS in tasks/gguf/convertible.py and run its test",
    )


def tensor_refusals(
    config: Mapping[str, Any], profile: Profile, tensors: Mapping[str, Stored]
) -> list[ModelError]:
    """Weights that are missing, too many, of another shape than the config says, or of an odd type."""
    wanted = expected_tensors(config)
    tied = {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    groups = {
        f"unknown to the family {profile.model_type} with this config.json": [
            name for name in tensors if name not in wanted and name not in tied
        ],
        "missing": [name for name in wanted if name not in tensors],
        "of another shape than config.json says": [
            f"{name} {tuple(tensors[name][1])}, expected {shape}"
            for name, shape in wanted.items()
            if name in tensors and tuple(tensors[name][1]) != shape
        ],
        f"of another type than {', '.join(DTYPES)}": [
            f"{name} ({dtype})" for name, (dtype, _) in tensors.items() if dtype not in DTYPES
        ],
    }
    return [
        ModelError(
            f"{len(names)} weights: {', '.join(sorted(names)[:3])}{', …' if len(names) > 3 else ''}",
            f"they are {why}",
            "restore config.json and weights that belong together, or choose another base model",
        )
        for why, names in groups.items()
        if names
    ]


def expected_tensors(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a llama of this config; a tied output layer is none."""
    hidden, inner, size = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q = config["num_attention_heads"] * head
    kv = (config.get("num_key_value_heads") or config["num_attention_heads"]) * head
    linear = {
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings"):
        found["lm_head.weight"] = (size, hidden)
    for block in range(config["num_hidden_layers"]):
        at = f"model.layers.{block}"
        found[f"{at}.input_layernorm.weight"] = found[f"{at}.post_attention_layernorm.weight"] = (hidden,)
        for name, shape in linear.items():
            found[f"{at}.{name}.weight"] = shape
            if config.get("attention_bias" if name.startswith("self") else "mlp_bias"):
                found[f"{at}.{name}.bias"] = shape[:1]
    return found


def gguf_names(profile: Profile, blocks: int) -> gguf.TensorNameMap:
    """gguf's map from Hugging Face names to those of its files."""
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == profile.gguf_arch)
    return gguf.get_tensor_name_map(arch, blocks)


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:80]}…"
