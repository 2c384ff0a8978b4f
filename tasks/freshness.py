"""What settings name by path, as digests of its content: a change behind an unchanged name is seen.

    build/sources/<stage>.json    what a stage's settings name; DVC makes the stage again when it changes
    build/work/digests.json       the SHA-256 of each file read so far, with its size, times and inode

A file whose size, times and inode are as they were is not read again; any other is, and its content
decides: touched alone, it changes nothing. A table counts with every file that it names. Which those are is
found in `tasks.named_files`, since no reader of tables may be asked here: this is a root module.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.artifacts import CHUNK_BYTES, read_json, write_json, write_text
from tasks.errors import MalgilError
from tasks.named_files import TABLES, files_named_by
from tasks.progress import Progress
from tasks.settings import Params

CACHE = Path("build/work/digests.json")
MISSING, UNREADABLE = "missing", "unreadable"
KEEP_EVERY_S = 60.0
SETTLED_NS = 2_000_000_000  # a file system may stamp two writes alike that are no further apart
# The settings of each stage that name a file or folder which it reads. A Hub id is the Hub's to version, but
# a folder of that name here comes before it.
READ: dict[str, tuple[str, ...]] = {
    "corpus": ("manifest", "folder", "hub", "readings"),
    "embed_asr": ("model",),
    "train_asr": ("encoder",),
    "language_model_asr": ("text",),
    "base_llm": ("model",),
    "train_llm": ("initial",),
}
# Those of what is run by hand: they key its resumable state, not a stage of DVC.
READ_BY_HAND = {"pretrain": ("corpus", "initial"), "pretrain_llm": ("text",)}
WRITTEN = {
    "publish.folder": "an output: versions are put there, and found again by their own digests",
    "registry.artifacts": "an output: MLflow's files of runs and models",
}
"""Settings of type path that name no input, and why."""

log = logging.getLogger("malgil.freshness")


class Stamp(NamedTuple):
    """By what a file is known to be as it was. A replaced file that kept size and mtime has another ctime."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Digests:
    """SHA-256 of files, each read once for as long as its stamp stays.

    Args:
        cache: JSON file of the digests known so far; a damaged one counts as none.
    """

    def __init__(self, cache: Path = CACHE) -> None:
        self.cache = cache
        self._known = self._load()
        self._used: dict[str, list[Any]] = {}

    def of_files(self, paths: Iterable[str]) -> dict[str, str]:
        """The digest of each file by its path; "missing" or "unreadable" where there is none.

        Says how far it is when it takes more than two seconds.
        """
        found: dict[str, str] = {}
        unread: dict[str, Stamp] = {}
        here = Path.cwd().as_posix()
        for path in paths:
            stamp = _stamp(path)
            if stamp is None:
                found[path] = MISSING
                continue
            place = path if path.startswith("/") else f"{here}/{path}"
            entry = self._known.get(place)
            if entry is not None and tuple(entry[:4]) == stamp:
                self._used[place] = entry
                found[path] = str(entry[4])
            else:
                unread[path] = stamp
        total = sum(stamp.size for stamp in unread.values())
        with Progress("inputs that are new or changed", total // 1_000_000, "MB") as progress:
            kept = time.monotonic()
            for path, stamp in unread.items():
                place = path if path.startswith("/") else f"{here}/{path}"
                found[path] = self._read(path, place, stamp, progress)
                if time.monotonic() - kept > KEEP_EVERY_S:  # a kill costs no more than that
                    write_text(self.cache, json.dumps({**self._known, **self._used}))
                    kept = time.monotonic()
        return found

    def of_file(self, path: Path) -> str:
        """The digest of one file, "missing" or "unreadable"."""
        return self.of_files([str(path)])[str(path)]

    def of_folder(self, folder: Path) -> str:
        """Over the paths below `folder` and their contents; equal to `tasks.artifacts.digest_folder` where
        nothing below it is hidden, which is passed over here, or is unreadable.
        """
        return self._combined(dict(_below(folder)))

    def of_speech(self, path: Path) -> str | None:
        """Of a table with every file that it names, or of a folder with what the tables in it name; None
        where there is neither.

        `tools.json` beside a table belongs to it.
        """
        if path.is_dir():
            below = dict(_below(path))
            tables = [Path(p) for name, p in below.items() if Path(name).suffix.lower() in TABLES]
        elif path.is_file():
            tools = path.with_name("tools.json")
            below = {p.name: str(p) for p in (path, tools) if p.is_file()}
            tables = [path]
        else:
            return None
        root = path if path.is_dir() else path.parent
        places: dict[str, str] = {}
        for table in tables:
            for named in files_named_by(table):
                folder, _, name = named.rpartition("/")
                if folder not in places:
                    places[folder] = os.path.relpath(folder or "/", root)
                below.setdefault(f"{places[folder]}/{name}".removeprefix("./"), named)
        return self._combined(below)

    def save(self) -> None:
        """Keeps what was used for the next run, if it differs from what was kept.

        Raises:
            CapacityError: the disk is full or the folder read-only.
        """
        if self._used != self._known:
            write_text(self.cache, json.dumps(self._used))

    def _combined(self, files: Mapping[str, str]) -> str:
        digests = self.of_files(files.values())
        whole = hashlib.sha256()
        for name in sorted(files):
            whole.update(f"{name}\0{digests[files[name]]}\n".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    def _read(self, path: str, place: str, stamp: Stamp, progress: Progress) -> str:
        digest, began, done = hashlib.sha256(), time.time_ns(), 0
        before = progress.done
        try:
            with Path(path).open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    digest.update(chunk)
                    done += len(chunk)
                    progress.advance(before + done // 1_000_000 - progress.done)
        except FileNotFoundError:
            return MISSING
        except OSError as error:  # whoever needs it says what is wrong with it
            log.info("%s cannot be read (%s)", path, error.strerror)
            return UNREADABLE
        if began - stamp.ctime_ns > SETTLED_NS and _stamp(path) == stamp:
            self._used[place] = [*stamp, digest.hexdigest()]
        return digest.hexdigest()

    def _load(self) -> dict[str, list[Any]]:
        try:
            known = read_json(self.cache)
            return {str(path): list(entry) for path, entry in known.items() if len(entry) == 5}
        except (MalgilError, AttributeError, TypeError):
            return {}


def write_sources(params: Params, folder: Path) -> None:
    """Writes `folder`/<stage>.json with the digest of what that stage's settings name by path.

    Where a path names nothing here (a Hub id, a file that is missing) its digest is null, and the stage says
    what is wrong with it.
    """
    digests = Digests(folder.parent / "work" / CACHE.name)
    for stage in READ:
        write_json(folder / f"{stage}.json", source_of(params, stage, digests))
    digests.save()


def source_of(params: Params, stage: str, digests: Digests) -> dict[str, str | None]:
    """What the settings of a stage name by path: the setting, its value and the digest of its content."""
    section = getattr(params, stage)
    if stage == "corpus":
        key: str = params.corpus.source if params.corpus.source != "builtin" else "manifest"
        name = getattr(section, key)
        digest = digests.of_speech(Path(name)) if name and params.corpus.source != "builtin" else None
        return {
            "setting": f"{stage}.{key}",
            "value": name,
            "sha256": digest,
            "readings_sha256": digest_named(section.readings, digests),
        }
    (key,) = READ[stage]
    name = getattr(section, key)
    return {"setting": f"{stage}.{key}", "value": name, "sha256": digest_named(name, digests)}


def digest_named(name: str, digests: Digests) -> str | None:
    """The digest of the file or folder of this name; None for an empty name, or where there is neither."""
    path = Path(name)
    if name and path.is_dir():
        return digests.of_folder(path)
    return digests.of_file(path) if name and path.is_file() else None


def _below(folder: Path) -> Iterable[tuple[str, str]]:
    """(path relative to `folder`, path) of every file below it that is not hidden, sorted; links followed."""
    top = str(folder)
    seen: set[tuple[int, int]] = set()
    found = []
    for here, folders, files in os.walk(top, followlinks=True):
        about = Path(here).stat()
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()  # a link to a folder above, or a second way to the same
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = "" if here == top else f"{os.path.relpath(here, top)}/"
        found += [(prefix + name, f"{here}/{name}") for name in files if not _is_passed_over(name)]
    return sorted(found)


def _is_passed_over(name: str) -> bool:
    """Files of operating systems and editors, which no door takes for data."""
    return name.startswith((".", "~$")) or name.lower() in ("thumbs.db", "desktop.ini")


def _stamp(path: str) -> Stamp | None:
    """None where no regular file is."""
    try:
        about = os.stat(path)  # noqa: PTH116  a Path for each of 100,000 files takes as long as the look
    except OSError:
        return None
    if about.st_mode & 0o170000 != 0o100000:
        return None
    return Stamp(about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
