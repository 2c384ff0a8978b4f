"""Files of the pipeline: written whole or not at all, and named by their hash.

Everything is written to a temporary sibling first and renamed over the target, so a kill at any moment
leaves either the old file or the new one. Not here: what the files mean.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import ArtifactError, MalgilError, explain_os_error

if TYPE_CHECKING:
    import pandas as pd

CHUNK_BYTES = 1 << 20


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` to write to; renames it over `path` on success.

    Raises:
        CapacityError: the disk is full or the folder read-only. `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise explain_os_error(error, path) from error
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise explain_os_error(error, error.filename if error.errno == 2 else path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary sibling folder; on success it takes the place of `path`.

    Leftovers of killed writers of the same folder are removed first.

    Raises:
        CapacityError: the disk is full or the folder read-only. `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.*.part"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        temporary.chmod(0o755)
    except OSError as error:
        raise explain_os_error(error, path) from error
    try:
        yield temporary
        replace_folder(temporary, path)
    except MalgilError:
        raise
    except OSError as error:
        raise explain_os_error(error, error.filename if error.errno == 2 else path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Renames `source` over the folder `target`; the old folder is removed after the new one stands."""
    if not target.exists():
        os.rename(source, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old.part", dir=target.parent))
    os.rename(target, old / "old")
    try:
        os.rename(source, target)
    except OSError:
        os.rename(old / "old", target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented UTF-8 JSON atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_parquet(path: Path, frame: "pd.DataFrame") -> None:
    """Writes a Parquet file atomically, without the index."""
    with new_file(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ArtifactError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise explain_os_error(error, path) from error
    except ValueError as error:
        raise ArtifactError(
            f"{path} is not JSON ({error})",
            "it must be a whole JSON document",
            "make it again: `dvc repro -f`",
        ) from error


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise explain_os_error(error, path) from error
    return digest.hexdigest()


def files_in(folder: Path) -> list[Path]:
    """All files below `folder`, sorted by their POSIX path relative to it."""
    if not folder.is_dir():
        raise ArtifactError(
            f"{folder} is not a folder", "a folder of artifacts is expected", "run the stages before this one"
        )
    return sorted(
        (p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(folder).as_posix()
    )


def digest_folder(folder: Path) -> str:
    """Hex SHA-256 over the relative paths and contents of all files below `folder`."""
    digest = hashlib.sha256()
    for path in files_in(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
