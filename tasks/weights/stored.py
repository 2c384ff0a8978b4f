"""What a folder's safetensors hold, read from their headers: names, shapes, types, and in which file.

A folder has `model.safetensors`, or shards with an index that names each tensor's. An index and its shards
must say the same. The values are not read. No command.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from tasks.errors import ModelError
from tasks.weights.whole import listed

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_INDEX_BYTES = 100_000_000
_FLOATS = ("F", "BF")  # F64, F32, F16, F8_…, BF16: the types that weights are stored in


class Stored(NamedTuple):
    """One tensor: the file that holds it, its shape and its safetensors type (F32, BF16, I64, …)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def stored_in(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder's weights, by name.

    Raises:
        ModelError: there are none, a file is cut off, a placeholder of Git LFS or no safetensors, or the
            index and its shards differ.
    """
    if (folder / WEIGHTS).is_file():
        return stored(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise ModelError(
            f"{folder} cannot be loaded: it has no {WEIGHTS}",
            "weights are safetensors",
            "fetch the whole folder again",
        )
    index = read_index(folder / INDEX)
    found: dict[str, Stored] = {}
    for name in sorted(set(index.values())):
        found |= stored(folder / name)
    absent = [f"{name} in {index[name]}" for name in index if _file_of(found, name) != index[name]]
    extra = [f"{name} in {tensor.file.name}" for name, tensor in found.items() if name not in index]
    if absent or extra:
        parts = (
            [listed(absent, "tensor is not in its shard", "tensors are not in their shards")]
            if absent
            else []
        )
        parts += (
            [listed(extra, "is in a shard and not in the index", "are in shards and not in the index")]
            if extra
            else []
        )
        raise ModelError(
            f"{folder / INDEX} and its shards differ: {'; '.join(parts)}",
            "the index names every tensor and the shard that holds it",
            "fetch the index and all of its shards again, from one revision",
        )
    return found


def stored(path: Path) -> dict[str, Stored]:
    """Every tensor of one safetensors file, by name.

    Raises:
        ModelError: it is missing, cut off, a placeholder of Git LFS, or no safetensors file.
    """
    require_content(path)
    try:
        with safe_open(path, framework="np") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return {
                name: Stored(path, tuple(part.get_shape()), str(part.get_dtype()))
                for name, part in parts.items()
            }
    except (OSError, SafetensorError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{path.parent} cannot be loaded: {path.name} is no whole safetensors file"
            f" ({' '.join(str(error).split())[:200]})",
            "weights are read from whole safetensors",
            "fetch or copy it again; one that a stage wrote is made again by `dvc repro -f` of the stage",
        ) from error


def read_index(path: Path) -> dict[str, str]:
    """Tensor name → file name of an index of shards, each file lying beside it.

    Raises:
        ModelError: it is no such index, names a file elsewhere, or one that is not there.
    """
    try:
        if path.stat().st_size > _MOST_INDEX_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
        names = dict(found["weight_map"])
        if not names or not all(isinstance(name, str) and name for name in names.values()):
            raise ValueError("weight_map names no files")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read ({type(error).__name__}: {str(error)[:200]})",
            "an index is a JSON object whose weight_map names the file of every tensor",
            "fetch it again",
        ) from error
    outside = sorted({name for name in names.values() if Path(name).name != name or name in (".", "..")})
    if outside:
        raise ModelError(
            f"{path} names {listed(outside, 'file', 'files')} outside of its folder",
            "shards lie beside their index",
            "do not use this checkpoint: an honest one names its own files",
        )
    absent = sorted({name for name in names.values() if not (path.parent / name).is_file()})
    if absent:
        raise ModelError(
            f"{path} names {listed(absent, 'shard that is not there', 'shards that are not there')}",
            "every shard lies beside the index",
            "fetch the missing files (of a Hub repository: `hf download NAME --local-dir FOLDER`)",
        )
    return names


def require_content(path: Path) -> None:
    """Raises `ModelError` where a file of weights is missing, empty, or only Git LFS's placeholder for it."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(POINTER))
    except OSError as error:
        raise ModelError(
            f"{path} cannot be opened ({error.strerror})",
            "a readable file of weights is needed",
            "fetch or copy it again, or correct its permissions",
        ) from error
    if start == POINTER:
        raise ModelError(
            f"{path} is a placeholder of Git LFS and not the weights",
            "the file itself is needed",
            f"fetch it in the repository it was cloned from: `git lfs pull --include {path.name}`",
        )
    if not start:
        raise ModelError(f"{path} is empty", "it must hold weights", "fetch or copy it again")


def require_depth(folder: Path, tensors: Mapping[str, Stored]) -> None:
    """Refuses a config.json with more layers than the files have tensors, before a model of them is built.

    Raises:
        ModelError: it names both numbers; or config.json cannot be read.
    """
    try:
        layers = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("num_hidden_layers", 0)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{folder} cannot be loaded: config.json cannot be read ({str(error)[:200]})",
            "it must be a JSON object",
            "fetch it again",
        ) from error
    if isinstance(layers, int | float) and layers > len(tensors):
        raise ModelError(
            f"{folder} does not fit the model: {layers} layers, and {len(tensors)} tensors in all",
            "config.json and weights belong together",
            "fetch config.json and the weights again from one revision",
        )


def require_floats(tensors: Mapping[str, Stored], model: Any, *, where: object) -> None:
    """Refuses weights stored as integers or booleans: read as numbers they would be something else.

    Args:
        model: a torch module; what it keeps as integers itself, such as counters, may be integers.

    Raises:
        ModelError: it names them.
    """
    counters = {
        name.rpartition(".")[2] for name, value in model.state_dict().items() if not value.is_floating_point()
    }
    wrong = [
        f"{name} is {tensor.dtype}"
        for name, tensor in tensors.items()
        if not tensor.dtype.startswith(_FLOATS) and name.rpartition(".")[2] not in counters
    ]
    if wrong:
        raise ModelError(
            f"{where}: {listed(wrong, 'tensor is of another type', 'tensors are of another type')}",
            "weights are floating-point numbers; quantised checkpoints are not read",
            "name the checkpoint that was not quantised",
        )


def _file_of(found: Mapping[str, Stored], name: str) -> str | None:
    return found[name].file.name if name in found else None
