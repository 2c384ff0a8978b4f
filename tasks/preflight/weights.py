"""Weights looked at without loading them: headers, whole files, and the largest value in a file."""

import hashlib
import json
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import ModelError
from tasks.weights.pickled import BIN, BIN_INDEX, with_safetensors
from tasks.weights.stored import INDEX, WEIGHTS, read_index, stored_in

BLOCK = 1 << 24  # bytes read at once
# From these bits of a magnitude on (sign aside) a value becomes infinite in float16: 65,520 and beyond.
_BEYOND_F16: dict[str, tuple[Any, int]] = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x4780),
    "F32": (np.uint32, 0x477FF000),
}
Header = dict[str, tuple[str, tuple[int, ...]]]


def with_weights(name: str, folder: Path) -> Path | None:
    """The folder of a checkpoint with its weights as safetensors: pickled ones are converted here, once.

    Args:
        name: as the settings have it.
        folder: where its files lie, of a Hub id those that are in the Hub's cache.

    Returns:
        None of a Hub id whose weights are not all in the cache.

    Raises:
        ModelError: there are no weights, or only such as are not read.
    """
    if not Path(name).is_dir() and not _are_cached(folder):
        return None
    return with_safetensors(folder)


def _are_cached(folder: Path) -> bool:
    if any((folder / file).is_file() for file in (WEIGHTS, BIN)):
        return True
    try:
        return any(read_index(folder / index) for index in (INDEX, BIN_INDEX) if (folder / index).is_file())
    except ModelError:  # of the files that it names some are not here yet
        return False


def whole_headers(folder: Path) -> Header:
    """Name to dtype and shape of every weight in a folder's safetensors; the files are as long as they say.

    Raises:
        ModelError: there are none, or one is cut off or no safetensors, or index and shards differ.
    """
    return {name: (tensor.dtype, tensor.shape) for name, tensor in stored_in(folder).items()}


def _files(folder: Path) -> list[Path]:
    """The files of the weights: not every one that lies there is among them."""
    return sorted({tensor.file for tensor in stored_in(folder).values()})


def beyond_f16(folder: Path, seconds: float) -> tuple[list[str], float]:
    """Names of weights with values that float16 cannot hold, and the share of bytes that was looked at.

    Args:
        seconds: it stops looking after so long.
    """
    until = time.monotonic() + seconds
    wrong, seen, total = [], 0, 0
    for path in _files(folder):
        entries, start, _ = _read_header(path)
        for name, entry in entries.items():
            kind, limit = _BEYOND_F16.get(entry["dtype"], (None, 0))
            first, last = (start + at for at in entry["data_offsets"])
            total += last - first
            if kind is None or time.monotonic() > until:
                continue
            sign = np.iinfo(kind).max >> 1
            with path.open("rb") as stream:
                stream.seek(first)
                for at in range(first, last, BLOCK):
                    bits = np.frombuffer(stream.read(min(BLOCK, last - at)), dtype=kind)
                    seen += bits.nbytes
                    if len(bits) and int((bits & kind(sign)).max()) >= limit:
                        wrong.append(name)
                        seen += last - at - bits.nbytes
                        break
    return wrong, seen / total if total else 1.0


def are_equal(folder: Path, one: str, other: str) -> bool:
    """Whether two weights of a folder hold the same bytes; True where one of them is not there."""
    digests = []
    for path in _files(folder):
        entries, start, _ = _read_header(path)
        for name in {one, other} & entries.keys():
            first, last = (start + at for at in entries[name]["data_offsets"])
            digest = hashlib.sha256(entries[name]["dtype"].encode())
            with path.open("rb") as stream:
                stream.seek(first)
                for at in range(first, last, BLOCK):
                    digest.update(stream.read(min(BLOCK, last - at)))
            digests.append(digest.digest())
    return len(set(digests)) < 2


def on_hub(name: str, folder: Path) -> Sequence[str]:
    """Files of a Hub id at the commit whose small files lie in `folder`; those in the cache where offline."""
    from tasks.data.hub import hub_name

    asked = hub_name(name)
    if asked is None:
        return []
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return list(HfApi().list_repo_files(asked.repository, revision=folder.name))
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.TransportError, OSError) as error:
        raise ModelError(
            f"{name} is not whole in the Hub's cache, and the Hub cannot be reached ({type(error).__name__})",
            "its weights are fetched once",
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or name a local folder",
        ) from error


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Entries of a safetensors file, where its data begin, and its length in bytes."""
    length = path.stat().st_size
    try:
        with path.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if size > min(length, 100_000_000):
                raise ValueError("its header is longer than the file")
            entries = json.loads(stream.read(size))
        entries.pop("__metadata__", None)
        for entry in entries.values():
            first, last = entry["data_offsets"]
            if not 0 <= first <= last or not isinstance(entry["dtype"], str):
                raise ValueError("an entry of its header is no entry")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise _torn(path, str(error)) from error
    return entries, 8 + size, length


def _torn(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} cannot be loaded ({why})",
        "weights are whole safetensors",
        "fetch or copy it again from its origin",
    )
