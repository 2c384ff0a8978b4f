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

BLOCK = 1 << 24  # bytes read at once
# From these bits of a magnitude on (sign aside) a value becomes infinite in float16: 65,520 and beyond.
_BEYOND_F16: dict[str, tuple[Any, int]] = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x4780),
    "F32": (np.uint32, 0x477FF000),
}
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
Header = dict[str, tuple[str, tuple[int, ...]]]


def whole_headers(folder: Path) -> Header:
    """Name to dtype and shape of every weight in a folder's safetensors; the files are as long as they say.

    Raises:
        ModelError: there are none, or one is cut off or no safetensors, or lies in the index and not here.
    """
    files = sorted(folder.glob("*.safetensors"))
    found: Header = {}
    for path in files:
        entries, start, length = _read_header(path)
        ends = [entry["data_offsets"][1] for entry in entries.values()]
        if start + max(ends, default=0) != length:
            raise _torn(path, f"{length} bytes, {start + max(ends, default=0)} expected")
        found |= {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
    if lost := lacking(folder):
        raise _torn(folder / lost[0], "its index names it and it is not here")
    if not files:
        raise _torn(folder, "no *.safetensors")
    return found


def lacking(folder: Path) -> list[str]:
    """Files of weights that an index in the folder names and that are not there."""
    found: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        try:
            found |= set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _torn(index, "it is no index of weights") from error
    return sorted(name for name in found if not (folder / name).is_file())


def are_here(name: str, folder: Path) -> bool:
    """Whether weights can be looked at: of a Hub id only once all of them are in its cache."""
    if Path(name).is_dir():
        return True
    return next(folder.glob("*.safetensors"), None) is not None and not lacking(folder)


def beyond_f16(folder: Path, seconds: float) -> tuple[list[str], float]:
    """Names of weights with values that float16 cannot hold, and the share of bytes that was looked at.

    Args:
        seconds: it stops looking after so long.
    """
    until = time.monotonic() + seconds
    wrong, seen, total = [], 0, 0
    for path in sorted(folder.glob("*.safetensors")):
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
    for path in sorted(folder.glob("*.safetensors")):
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
