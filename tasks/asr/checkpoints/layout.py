"""A checkpoint before its weights are read: where its files are, what type it is, and what it hears.

A folder, or a Hub id that is fetched into the Hub's own cache. No weights, no torch, no command.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tasks.artifacts import read_json
from tasks.asr.checkpoints.vocabulary import EXTRACTOR
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.data.hub import HubName, fetch, hub_name
from tasks.errors import ModelError
from tasks.weights.pickled import PICKLED, SAFETENSORS, has_safetensors, with_safetensors
from tasks.weights.stored import INDEX, WEIGHTS

__all__ = ["INDEX", "MODEL_TYPES", "WEIGHTS", "first_line", "local_folder", "normalises", "pinned"]
log = logging.getLogger("malgil.asr.layout")
# Encoders of raw 16 kHz audio that transformers gives a CTC head named `lm_head`. SEW has one too, but its
# pooling of frames in pairs cannot be traced for every length: it could be trained, but not exported.
MODEL_TYPES = (
    "data2vec-audio",
    "hubert",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-conformer",
    "wavlm",
)


def local_folder(checkpoint: str | Path, weights: bool = True) -> Path:
    """The folder of a checkpoint: itself, or the files of a Hub id, fetched once into the Hub's own cache.

    Where its weights are `pytorch_model.bin`, a folder with the same files and the weights converted to
    safetensors (`tasks.weights.pickled`). A Hub id may be pinned to a branch, a tag or a commit:
    `org/name@revision`. A `Path` is never one. The type is looked at first, and weights of another type are
    not fetched.

    Raises:
        ModelError: there is nothing, it is of another type, or its weights are neither safetensors nor
            tensors alone in `pytorch_model.bin`.
        CapacityError: there is no room to convert them.
    """
    folder, asked = Path(checkpoint), None
    if not folder.is_dir():
        asked = None if isinstance(checkpoint, Path) else hub_name(checkpoint)
        if asked is None:
            raise _no_checkpoint(checkpoint, "no such folder")
        folder = _fetch(asked, ["*.json"])
    if not (folder / "config.json").is_file():
        raise _no_checkpoint(checkpoint, f"{folder} has no config.json")
    _check_type(checkpoint, folder)
    _check_rate(checkpoint, folder)
    if weights and asked is not None:
        same = HubName(asked.repository, folder.name)  # a branch may have moved since
        folder = _fetch(same, ["*.json", *SAFETENSORS, "language_model.arpa.gz"])
        if not has_safetensors(folder):
            folder = _fetch(same, list(PICKLED))
    return with_safetensors(folder) if weights else folder


def normalises(encoder: str | Path) -> bool:
    """Whether the encoder expects inputs of zero mean and unit variance (its preprocessor_config.json;
    else yes, as transformers does).
    """
    said = _extractor(local_folder(encoder, weights=False)).get("do_normalize")
    if said is None:
        log.info("%s says nothing about its inputs: they are normalised", encoder)
    return said is not False


def pinned(checkpoint: str) -> str:
    """A Hub id with the commit that it stands for now, `org/name@commit`; a folder as it is.

    Raises `ModelError` when the Hub has no such repository or revision, or cannot be reached.
    """
    asked = None if Path(checkpoint).is_dir() else hub_name(checkpoint)
    return f"{asked.repository}@{_fetch(asked, ['*.json']).name}" if asked else checkpoint


def _fetch(name: HubName, patterns: list[str]) -> Path:
    try:
        return fetch(name, patterns=patterns)
    except Exception as error:
        pinned = f"@{name.revision}" if name.revision else ""
        raise _no_checkpoint(f"{name.repository}{pinned}", first_line(error)) from error


def _no_checkpoint(name: str | Path, why: str) -> ModelError:
    return ModelError(
        f"checkpoint {str(name)!r} cannot be loaded ({why})",
        "must be a folder or Hub id of a wav2vec2-style model with its weights",
        "correct the setting or --model; for a Hub id check the network, name, revision and HF_TOKEN",
    )


def _check_type(name: str | Path, folder: Path) -> None:
    config = read_json(folder / "config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in MODEL_TYPES:
        raise ModelError(
            f"{name} is a checkpoint of type {found!r}",
            f"must be a wav2vec2-style encoder of raw audio: {', '.join(MODEL_TYPES)}",
            "choose a checkpoint of one of these types, for example facebook/wav2vec2-xls-r-300m",
        )


def _check_rate(name: str | Path, folder: Path) -> None:
    rate = _extractor(folder).get("sampling_rate", SAMPLE_RATE_HZ)
    if rate != SAMPLE_RATE_HZ:
        raise ModelError(
            f"{name} was trained on audio of {rate} Hz ({EXTRACTOR}: sampling_rate)",
            f"the recogniser hears {SAMPLE_RATE_HZ} Hz",
            f"choose a checkpoint for {SAMPLE_RATE_HZ} Hz",
        )


def _extractor(folder: Path) -> dict[str, Any]:
    """What the checkpoint says about its inputs, in either of the two places it is written."""
    if (folder / EXTRACTOR).is_file():
        found = read_json(folder / EXTRACTOR)
    elif (folder / "processor_config.json").is_file():
        found = read_json(folder / "processor_config.json").get("feature_extractor")
    else:
        found = None
    return found if isinstance(found, dict) else {}


def first_line(error: Exception) -> str:
    """What a library's error says, for a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
