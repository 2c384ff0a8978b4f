"""The checkpoints of the recogniser before a run: the one fine-tuned, and the one that finds duplicates.

Their files, type, rate and vocabulary; weights that are here are loaded once as the stages load them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.artifacts import read_json
from tasks.errors import ModelError, SettingsError
from tasks.preflight.finding import Check, Finding, Subject, ok
from tasks.preflight.record import stamp
from tasks.preflight.weights import on_hub, whole_headers, with_weights
from tasks.weights.pickled import BIN, BIN_INDEX


def look(subject: Subject) -> Iterator[Finding]:
    """`train_asr.encoder`, with what else of train_asr must fit it."""
    from tasks.asr.checkpoints.layout import local_folder

    params = subject.params.train_asr
    folder = local_folder(params.encoder, weights=False)  # of a Hub id the small files alone
    here = True
    if not params.from_scratch:
        here, found = _weights("encoder", params.encoder, folder)
        yield found
    config = read_json(folder / "config.json")
    _require_layers(params, config)
    _require_vocabulary(params, folder, config)
    _require_stream(params, config)
    if here:
        with _quiet():
            _require_loads(params)
    layers = f"{config.get('num_hidden_layers', '?')} layers of {config.get('hidden_size', '?')}"
    yield ok("encoder", f"{params.encoder}: {config['model_type']}, {layers}")


def look_at_search(subject: Subject) -> Iterator[Finding]:
    """`embed_asr.model`, whose vectors find recordings that occur twice."""
    from tasks.asr.checkpoints.layout import local_folder
    from tasks.asr.embedding.encoder import load_encoder_layers

    params = subject.params.embed_asr
    folder = local_folder(Path(params.model), weights=False)
    yield _weights("embedding model", params.model, folder)[1]
    depth = int(read_json(folder / "config.json").get("num_hidden_layers", 0))
    if params.layer > depth:
        raise ModelError(
            f"embed_asr.layer = {params.layer}",
            f"this encoder has layers 0 (the features after their projection) to {depth}; -1 is the last",
            f"choose one from 0 to {depth}",
        )
    with _quiet():
        load_encoder_layers(folder, [params.layer])
    yield ok("embedding model", f"{params.model}, layer {params.layer}")


def _weights(check: str, name: str, folder: Path) -> tuple[bool, Finding]:
    """Whether the weights are here, and what is said of them."""
    place = with_weights(name, folder)
    if place is not None:
        tensors = whole_headers(place)
        parameters = sum(_size(shape) for _, shape in tensors.values())
        return True, ok(check, f"{parameters / 1e6:,.1f} M parameters in safetensors")
    found = on_hub(name, folder)
    if any(file.endswith(".safetensors") for file in found):
        return False, ok(check, f"{name} is on the Hub in safetensors; the run fetches it")
    if any(file in (BIN, BIN_INDEX) for file in found):
        return False, ok(
            check, f"{name} holds pytorch_model.bin alone: the run fetches it and converts it once"
        )
    raise ModelError(
        f"{name} has no weights",
        "a checkpoint holds model.safetensors (or pytorch_model.bin)",
        "correct the setting, or copy the whole checkpoint",
    )


def _require_loads(params: Any) -> None:
    """The encoder as the stage loads it: every weight that its config.json asks for, and no other."""
    import torch

    from tasks.asr.checkpoints.checkpoint import load_encoder, own_vocabulary
    from tasks.asr.checkpoints.vocabulary import Vocabulary

    vocabulary = own_vocabulary(params.encoder) or Vocabulary.of_jamo()
    if params.from_scratch:
        with torch.device("meta"):  # its shape alone
            load_encoder(params.encoder, vocabulary, params.seed, from_scratch=True)
    else:
        load_encoder(params.encoder, vocabulary, params.seed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the stages say of a checkpoint that they begin with."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


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
