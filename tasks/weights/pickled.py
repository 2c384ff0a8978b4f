"""`pytorch_model.bin`: read in a child process with a memory limit, and kept as safetensors from then on.

    folder = with_safetensors(Path("checkpoint"))     # itself, or one with the same files and safetensors

A pickled file can run code when it is read. So it is never read here: `unpickle.py` does it, in a process of
its own with limits on memory and time, with torch's `weights_only`, once. What it writes lies beside the
Hub's cache (`HF_HOME`/malgil/converted/<SHA-256 of the pickled file>), with both digests in conversion.json;
the folder with the pickled file is not written to. Everything else that is pickled is refused by name. No
command.
"""

import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.artifacts import digest_json, new_folder, read_json, sha256_file, write_json
from tasks.errors import CapacityError, MalgilError, ModelError, explain_os_error
from tasks.weights.stored import INDEX, WEIGHTS, read_index, require_content, stored
from tasks.weights.whole import listed

BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
CONVERSION = "conversion.json"
# What is fetched of a repository on the Hub: safetensors, and only where it has none the others.
SAFETENSORS, PICKLED = ("model*.safetensors",), (BIN, "pytorch_model-*.bin")
_UNREAD = (".bin", ".ckpt", ".h5", ".msgpack", ".nemo", ".pickle", ".pkl", ".pt", ".pth", ".tar", ".t7")
_MORE_BYTES = 4 << 30  # and three times the file: the file mapped, a copy, what is written
_SECONDS, _BYTES_PER_SECOND = 300, 10_000_000
log = logging.getLogger("malgil.weights")


def with_safetensors(folder: Path) -> Path:
    """The folder, where its weights are safetensors; else one with its files and the converted weights.

    Raises:
        ModelError: there are no weights, only such as are not read, or `pytorch_model.bin` is not weights.
        CapacityError: the cache cannot be written.
    """
    if not folder.is_dir() or has_safetensors(folder):
        return folder
    if (folder / BIN).is_file():
        names = [BIN]
    elif (folder / BIN_INDEX).is_file():
        names = sorted(set(read_index(folder / BIN_INDEX).values()))
    else:
        raise _no_weights(folder)
    for name in names:
        require_content(folder / name)
    digests = {name: _digest(folder / name) for name in names}
    key = digests.get(BIN) or digest_json(digests)
    place = cache() / key
    with _alone(place):
        if not _whole(place):
            _convert(folder, digests, place)
        return _beside(folder, place)


def has_safetensors(folder: Path) -> bool:
    """Whether the folder has safetensors, whole or as an index of shards."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def weights_of(folder: Path) -> dict[str, Any]:
    """Which file a folder's weights are and its SHA-256; of converted ones both digests.

    For shards: the SHA-256 of the JSON of theirs. Empty where there are none.
    """
    if (folder / CONVERSION).is_symlink():
        found = read_json(folder / CONVERSION)
        return {name: found[name] for name in ("file", "sha256", "converted_sha256")}
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        return {}
    if (folder / WEIGHTS).is_file():
        return {"file": WEIGHTS, "sha256": _digest(folder / WEIGHTS)}
    return {"file": INDEX, "sha256": digest_json({file.name: _digest(file) for file in files})}


def cache() -> Path:
    """Where converted weights lie: beside the Hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "malgil" / "converted"


def _convert(folder: Path, digests: dict[str, str], place: Path) -> None:
    """Writes the converted weights and their digests to the folder `place`, all or nothing."""
    started, shards = time.monotonic(), len(digests) > 1
    total = sum((folder / name).stat().st_size for name in digests)
    log.info("%s: %.0f MB of pickled weights are converted to safetensors, once", folder, total / 1e6)
    try:
        with new_folder(place) as new:
            made: dict[str, str] = {}
            for number, name in enumerate(digests, 1):
                target = f"model-{number:05d}-of-{len(digests):05d}.safetensors" if shards else WEIGHTS
                _run_child(folder / name, new / target)
                made[target] = sha256_file(new / target)
            if shards:
                index = {name: file for file in made for name in stored(new / file)}
                write_json(new / INDEX, {"metadata": {}, "weight_map": index})
            about = {
                "file": BIN if BIN in digests else BIN_INDEX,
                "sha256": place.name,
                "converted_sha256": digest_json(made) if shards else made[WEIGHTS],
                "pickled": digests,
                "converted": made,
            }
            write_json(new / CONVERSION, about)
    except CapacityError as error:
        raise CapacityError(
            error.what, error.rule, "free space there, or set HF_HOME to a folder that can be written"
        ) from error
    log.info("converted in %.1f s: %s", time.monotonic() - started, place)


def _run_child(source: Path, target: Path) -> None:
    size = source.stat().st_size
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    command = [sys.executable, "-P", str(Path(__file__).with_name("unpickle.py")), str(source), str(target)]
    command += [str(3 * size + _MORE_BYTES), str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + 60, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(source, "took too long to read") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    answer = json.loads(lines[-1]) if lines else {}
    if answer.get("kind") == "full":
        raise explain_os_error(OSError(28, "no space left"), target)
    if done.returncode or "tensors" not in answer:
        last = (done.stderr.strip().splitlines() or [""])[-1][:200]
        ended = f"ended the process that read it (signal {-done.returncode})" if done.returncode < 0 else ""
        raise _refused(source, answer.get("why") or ended or f"cannot be read ({last})")
    log.info(
        "%s: %d tensors, peak memory %.2f GB", source.name, answer["tensors"], answer["peak_bytes"] / 1e9
    )


def _beside(folder: Path, place: Path) -> Path:
    """A folder with links to the converted weights and to everything else that `folder` has."""
    weights = {path.name: path for path in place.iterdir() if path.is_file()}
    others = {path.name: path for path in folder.resolve().iterdir() if _kept(path)}
    wanted = {name: str(path.resolve()) for name, path in {**others, **weights}.items()}
    view = place / f"with-{digest_json(str(folder.resolve()))[:16]}"
    found = {path.name: str(path.readlink()) for path in view.iterdir()} if view.is_dir() else {}
    if found != wanted:
        with new_folder(view) as new:
            for name, target in wanted.items():
                (new / name).symlink_to(target)
    return view


def _kept(path: Path) -> bool:
    return path.is_file() and path.suffix not in _UNREAD and path.name != BIN_INDEX


def _whole(place: Path) -> bool:
    """Whether the converted files are there and are those that were written."""
    try:
        made = read_json(place / CONVERSION)["converted"]
        return bool(made) and all(_digest(place / name) == digest for name, digest in made.items())
    except (MalgilError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time; the next one finds what the first has made."""
    lock = place.with_name(f"{place.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CapacityError(
            f"cannot write {lock.parent} ({error.strerror})",
            "pickled weights are converted into a cache, once",
            "set HF_HOME to a folder that can be written",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    found = path.stat()
    return _digest_of(path.resolve(), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of(path: Path, _size: int, _mtime_ns: int) -> str:
    """SHA-256 of a file, taken once in a process while it stays as it is."""
    return sha256_file(path)


def _no_weights(folder: Path) -> ModelError:
    pickled = [path.name for path in folder.iterdir() if path.is_file() and path.suffix in _UNREAD]
    if pickled:
        return ModelError(
            f"{folder} cannot be loaded: it has no {WEIGHTS} and no {BIN}; "
            f"{listed(pickled, 'other file', 'other files')}: not read",
            f"weights are safetensors, or {BIN} with nothing in it but tensors",
            "name a checkpoint in the layout of transformers; its documentation converts those of fairseq, "
            "NeMo and others",
        )
    return ModelError(
        f"{folder} cannot be loaded: it has no {WEIGHTS} and no {BIN}",
        "a model folder holds its weights",
        "fetch the whole folder (of a Hub repository: `hf download NAME --local-dir FOLDER`)",
    )


def _refused(source: Path, why: str) -> ModelError:
    return ModelError(
        f"{source} {why}",
        "a pickled file is read for tensors by name and for nothing else",
        "do not use it unless you know who made it; fetch it again, or name a checkpoint with safetensors",
    )
