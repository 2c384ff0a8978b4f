"""A recogniser or an encoder by the name that a user gives: a folder here, or a Hub id. No command.

    find_model("build/asr/shipped")       that folder
    find_model("org/name@v1")             fetched into the Hub's own cache, at the commit that v1 stands for

A folder holds an ONNX file, a checkpoint, or both (a published version: the checkpoint lies in a folder below
the ONNX file). Of a Hub id only the files of the one that is asked for are fetched. No weights are read here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.asr.checkpoints.layout import first_line, local_folder
from tasks.asr.engines.onnx_model import ONNX_NAME
from tasks.data.hub import HubName, fetch, hub_name
from tasks.errors import MalgilError, ModelError, explain_os_error

Backend = Literal["onnx", "torch"]
log = logging.getLogger("malgil.asr.model")
_CONFIG, _BELOW = "config.json", "checkpoint"
_NEEDED = {"onnx": ONNX_NAME, "torch": _CONFIG}


class Found(NamedTuple):
    """A model in a folder.

    Attributes:
        folder: with the ONNX file, or with the checkpoint's config.json and weights.
        backend: which of the two.
        name: for readers: the folder as it was given, or "org/name@commit".
    """

    folder: Path
    backend: Backend
    name: str


def find_model(name: str | Path, backend: str | None = None) -> Found:
    """The model that is called `name`; without a `backend` the ONNX file where there is one.

    A folder of that name wins over the Hub. A `Path` is never a Hub id.

    Raises:
        ModelError: there is none, it is of another type, or the Hub does not give it.
        CapacityError: there is no room for it in the Hub's cache.
    """
    folder = Path(name)
    asked = None if isinstance(name, Path) or folder.exists() else hub_name(name)
    if asked is not None and asked.repository.count("/") == 1:
        return _on_the_hub(asked, backend)
    if isinstance(name, str) and folder.is_dir():
        _say_what_else_it_could_be(name)
    return _in_folder(folder, backend)


def _in_folder(folder: Path, backend: str | None) -> Found:
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is a file" if folder.exists() else f"{folder} does not exist",
            "a model is a folder here, or a Hub id (org/name, org/name@revision)",
            "correct --model, or make a recogniser with `malgil run --line asr`",
        )
    onnx = (folder / ONNX_NAME).is_file()
    own = (folder / _CONFIG).is_file() or not (onnx or (folder / _BELOW / _CONFIG).is_file())
    weights = folder if own else folder / _BELOW
    checkpoint = (weights / _CONFIG).is_file()
    if not (onnx if backend == "onnx" else checkpoint if backend == "torch" else onnx or checkpoint):
        raise _nothing(str(folder), backend)
    if backend == "torch" or not onnx:
        return Found(local_folder(weights), "torch", str(folder))
    return Found(folder, "onnx", str(folder))


def _on_the_hub(asked: HubName, backend: str | None) -> Found:
    folder = _fetch(asked, ["*.json"])
    commit = HubName(asked.repository, folder.name)  # a branch may move meanwhile
    name = f"{commit.repository}@{commit.revision}"
    log.info("model %s", name)
    if backend != "torch":
        _fetch(commit, ["*.json", ONNX_NAME])
        if (folder / ONNX_NAME).is_file():
            return Found(folder, "onnx", name)
    if backend != "onnx" and (folder / _CONFIG).is_file():
        return Found(local_folder(name), "torch", name)
    if backend != "onnx" and (folder / _BELOW / _CONFIG).is_file():
        _fetch(commit, ["*.json", f"{_BELOW}/*"])
        return Found(local_folder(folder / _BELOW), "torch", name)
    raise _nothing(name, backend)


def _nothing(name: str, backend: str | None) -> ModelError:
    needed = _NEEDED[backend] if backend else " or ".join(_NEEDED.values())
    return ModelError(
        f"{name} holds no recogniser" + (f" for {backend}" if backend else ""),
        f"must hold {needed}",
        "make one with `malgil run --line asr`, or name its folder or Hub id with --model",
    )


def _say_what_else_it_could_be(name: str) -> None:
    """A line where a folder hides a model that was fetched from the Hub under the same name."""
    if name.count("/") != 1 or hub_name(name) is None:
        return
    from huggingface_hub import constants

    if (Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir():
        log.info("%s is taken as the folder here; the Hub's model of that name is %s@main", name, name)


def _fetch(name: HubName, patterns: Sequence[str]) -> Path:
    try:
        return fetch(name, patterns=patterns)
    except Exception as error:
        raise _explained(name, error) from error


def _explained(name: HubName, error: Exception) -> MalgilError:
    """What the Hub's client raised, as what is the matter and what to do."""
    from huggingface_hub import errors

    said = f"{name.repository}@{name.revision}" if name.revision else name.repository
    rule = "a model is a folder here, or one of the Hub that this machine reaches and may read"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.HFValidationError):
        why, next_step = "is neither a folder here nor a Hub id", "correct the path, or name it org/name"
    elif isinstance(error, errors.RevisionNotFoundError):
        why = f"has no revision {name.revision!r} on the Hub"
        next_step = f"correct what stands behind @, or name {name.repository} for the head of its main branch"
    elif isinstance(error, errors.GatedRepoError):
        why = "is given by the Hub to those who accepted its conditions"
        next_step = "accept them on the model's page, and export HF_TOKEN=... of that account"
    elif isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        token = bool(os.environ.get("HF_TOKEN"))
        may = "HF_TOKEN may not read it" if token else "it is private: HF_TOKEN is not set"
        why = f"is no folder here, and no model of the Hub either, or {may} (status {status})"
        next_step = "correct the name; for a private model export HF_TOKEN=... of an account that may read it"
    elif isinstance(error, errors.LocalEntryNotFoundError) or (status is None and not _has_number(error)):
        why = f"is no folder here, not whole in the Hub's cache, and cannot be fetched ({first_line(error)})"
        next_step = (
            "start the same command again with a network (look at HF_ENDPOINT and HF_HUB_OFFLINE), or name a "
            "folder"
        )
    elif isinstance(error, OSError) and status is None:
        return explain_os_error(error)
    else:
        why = f"was not given by the Hub (status {status})"
        next_step = "start the same command again later; what was fetched is kept"
    return ModelError(f"{said} {why}", rule, next_step)


def _has_number(error: Exception) -> bool:
    """Whether the operating system refused something: a full disk, a folder that is read-only."""
    return isinstance(error, OSError) and error.errno is not None
