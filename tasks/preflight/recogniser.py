"""The checkpoints of the recogniser before a run: the one fine-tuned, and the one that finds duplicates.

Their files, type, rate, vocabulary and weights by the headers; weights are read only to be hashed where a
PROVENANCE.json names their hash. torch is not needed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.artifacts import read_json
from tasks.errors import ModelError, SettingsError
from tasks.preflight.finding import Check, Finding, Subject, ok
from tasks.preflight.record import stamp
from tasks.preflight.weights import PICKLED, are_here, on_hub, whole_headers


def look(subject: Subject) -> Iterator[Finding]:
    """`train_asr.encoder`, with what else of train_asr must fit it."""
    from tasks.asr.checkpoints.layout import local_folder

    params = subject.params.train_asr
    folder = local_folder(params.encoder, weights=False)  # of a Hub id the small files alone
    if not params.from_scratch:
        yield from _weights("encoder", params.encoder, folder)
    config = read_json(folder / "config.json")
    _require_layers(params, config)
    _require_vocabulary(params, folder, config)
    _require_stream(params, config)
    layers = f"{config.get('num_hidden_layers', '?')} layers of {config.get('hidden_size', '?')}"
    yield ok("encoder", f"{params.encoder}: {config['model_type']}, {layers}")


def look_at_search(subject: Subject) -> Iterator[Finding]:
    """`embed_asr.model`, whose vectors find recordings that occur twice."""
    from tasks.asr.checkpoints.layout import local_folder

    params = subject.params.embed_asr
    folder = local_folder(Path(params.model), weights=False)
    yield from _weights("embedding model", params.model, folder)
    depth = int(read_json(folder / "config.json").get("num_hidden_layers", 0))
    if params.layer > depth:
        raise ModelError(
            f"embed_asr.layer = {params.layer}",
            f"this encoder has layers 0 (the features after their projection) to {depth}; -1 is the last",
            f"choose one from 0 to {depth}",
        )
    yield ok("embedding model", f"{params.model}, layer {params.layer}")


def _weights(check: str, name: str, folder: Path) -> Iterator[Finding]:
    if next(folder.glob("*.safetensors"), None) is not None and are_here(name, folder):
        tensors = whole_headers(folder)
        _require_hash(folder)
        parameters = sum(_size(shape) for _, shape in tensors.values())
        yield ok(check, f"{parameters / 1e6:,.1f} M parameters in safetensors")
        return
    found = on_hub(name, folder) if not Path(name).is_dir() else [path.name for path in folder.iterdir()]
    if any(file.endswith(".safetensors") for file in found):
        yield ok(check, f"{name} is on the Hub in safetensors; the run fetches it")
    elif any(file in PICKLED for file in found):
        yield ok(check, f"{name} holds pytorch_model.bin alone: it is read apart and converted once")
    else:
        raise ModelError(
            f"{name} has no weights",
            "a checkpoint holds model.safetensors (or pytorch_model.bin)",
            "correct the setting, or copy the whole checkpoint",
        )


def _require_hash(folder: Path) -> None:
    provenance = folder / "PROVENANCE.json"
    if not provenance.is_file():
        return
    from tasks.artifacts import sha256_file
    from tasks.errors import ArtifactError

    expected, found = read_json(provenance).get("sha256"), sha256_file(folder / "model.safetensors")
    if expected != found:
        raise ArtifactError(
            f"{folder / 'model.safetensors'} has sha256 {found}",
            f"PROVENANCE.json names {expected}",
            f"restore it (`git checkout -- {folder}`) or make it again (`python -m tasks.asr.pretrain`)",
        )


def _require_layers(params: Any, config: dict[str, Any]) -> None:
    depth = int(config.get("num_hidden_layers", 12))
    if params.trainable == "top_layers" and params.top_layers > depth:
        raise SettingsError(
            "params.yaml",
            [f"train_asr.top_layers = {params.top_layers}: the encoder has {depth} layers"],
            "lower train_asr.top_layers, or set train_asr.trainable to encoder",
        )


def _require_vocabulary(params: Any, folder: Path, config: dict[str, Any]) -> None:
    from tasks.asr.checkpoints.vocabulary import VOCABULARY, read_vocabulary

    if (folder / VOCABULARY).is_file():
        blank = config.get("pad_token_id")
        read_vocabulary(folder, 0 if blank is None else int(blank), int(config.get("vocab_size", 32)))
    elif params.vocabulary == "checkpoint":
        raise ModelError(
            f"{params.encoder} has no vocab.json: it is pre-trained only, without a vocabulary of its own",
            "train_asr.vocabulary: checkpoint needs one",
            "set train_asr.vocabulary to jamo or syllable in params.yaml",
        )


def _require_stream(params: Any, config: dict[str, Any]) -> None:
    if "malgil_streaming" in config and not params.chunk_frames:
        raise ModelError(
            f"encoder {params.encoder!r} is a streaming one, and train_asr.chunk_frames is 0",
            "fine-tuned without chunks it would no longer stream as its config says",
            "set train_asr.chunk_frames, or start from the encoder that it was made from",
        )
    if params.chunk_frames and (
        config["model_type"] not in ("wav2vec2", "hubert")
        or config.get("feat_extract_norm", "group") != "layer"
        or config.get("add_adapter")
    ):
        raise ModelError(
            f"cached streaming of {params.encoder}",
            "needs wav2vec2 or HuBERT with layer norm in the feature encoder",
            "set train_asr.chunk_frames to 0, or fine-tune another encoder (XLSR, XLS-R, malgil-xlsr-mini)",
        )


def _size(shape: Any) -> int:
    size = 1
    for length in shape:
        size *= int(length)
    return size


CHECK = Check(
    "encoder",
    ("train_asr",),
    look,
    lines=("asr",),
    stamp=lambda subject: stamp(subject.params.train_asr.encoder),
)
SEARCH = Check(
    "embedding model",
    ("embed_asr",),
    look_at_search,
    stamp=lambda subject: stamp(subject.params.embed_asr.model),
)
