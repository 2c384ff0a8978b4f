"""From what a user names (files, folders, globs, standard input) to a list of recordings. No command.

What cannot be one is a `Failure`, beside those that can: one wrong path of a thousand stops nothing.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tasks.errors import DataError, MalgilError, explain_os_error

STANDARD_INPUT = "-"
# What is looked for in a folder. The second half ffmpeg reads where it is installed; else it is reported.
SUFFIXES = frozenset(
    f".{suffix}"
    for suffixes in (
        ("wav", "wave", "flac", "ogg", "oga", "opus", "spx", "mp3", "mp2", "mpga"),
        ("aiff", "aif", "aifc", "au", "snd", "caf", "w64", "rf64", "sph"),
        ("m4a", "mp4", "aac", "wma", "amr", "webm", "mka", "ac3", "wv", "3gp"),
    )
    for suffix in suffixes
)


class Source(NamedTuple):
    """A recording to read: the `name` shown, the file's `path`, and where its output goes, without suffix."""

    name: str
    path: Path
    output: Path


class Failure(NamedTuple):
    """A recording that could not be used, and why."""

    name: str
    error: MalgilError

    def told(self) -> str:
        """The message, with the recording's name where it is not in it."""
        message = str(self.error)
        return message if self.name in message else f"{self.name}: {message}"


def find_sources(
    arguments: Sequence[str], standard_input: IO[bytes], scratch: Path
) -> list[Source | Failure]:
    """Recordings in the order of the arguments, each once; those of a folder sorted by path.

    Args:
        arguments: files, folders (searched recursively for audio suffixes), globs, "-".
        standard_input: read whole into a file below `scratch`, if asked for.
    """
    found: dict[Path, Source | Failure] = {}
    for argument in arguments:
        if argument == STANDARD_INPUT:
            if (path := scratch / "stdin") not in found:
                with path.open("wb") as copy:
                    shutil.copyfileobj(standard_input, copy)
                found[path] = Source(STANDARD_INPUT, path, Path("stdin"))
            continue
        for entry in _expanded(argument):
            found.setdefault(entry.path.resolve() if isinstance(entry, Source) else Path(entry.name), entry)
    return list(found.values())


def _expanded(argument: str) -> Iterator[Source | Failure]:
    if glob.has_magic(argument) and not os.path.lexists(argument):  # a file may be called "a[1].wav"
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  absolute patterns too
        for match in matches:
            yield from _found(Path(match))
        if not matches:
            yield Failure(
                argument, DataError(f"{argument} matches no file", "a glob must match", "correct the pattern")
            )
        return
    yield from _found(Path(argument))


def _found(path: Path) -> Iterator[Source | Failure]:
    if path.is_dir():
        yield from _in_folder(path)
    elif path.is_file():
        yield Source(_shown(path), path, Path(path.stem))
    elif os.path.lexists(path):
        error = DataError(
            f"{_shown(path)} is not a file", "must be a file or a folder", "pipe it instead: `... | malgil`"
        )
        yield Failure(_shown(path), error)
    else:
        error = DataError(f"{_shown(path)} is missing", "must be a file or a folder", "correct the path")
        yield Failure(_shown(path), error)


def _in_folder(folder: Path) -> Iterator[Source | Failure]:
    refused: list[OSError] = []
    files = [
        Path(parent, name)
        for parent, _, names in os.walk(folder, onerror=refused.append)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
    ]
    for path in sorted(files):
        yield Source(_shown(path), path, path.relative_to(folder).with_suffix(""))
    for problem in refused:
        yield Failure(str(problem.filename), explain_os_error(problem))
    if not files and not refused:
        error = DataError(
            f"{_shown(folder)} holds no audio file",
            f"looked for {' '.join(sorted(SUFFIXES))}",
            "correct the path, or name files of another suffix one by one",
        )
        yield Failure(_shown(folder), error)


def _shown(path: Path) -> str:
    """The path as it can be printed: bytes that are no UTF-8 become question marks."""
    return str(path).encode("utf-8", "replace").decode()


def output_files(sources: Sequence[Source | Failure], folder: Path, suffix: str) -> dict[str, Path]:
    """Name of each source → its file in `folder`, below which the subfolders of a folder are kept.

    Where names clash (a.mp3 and a.wav), or one would be that of a recording, those are kept apart by their
    whole name (a.mp3.srt, a.wav.srt), then by the folders that they come from.

    Raises:
        DataError: that does not help either.
    """
    wanted = {
        source.name: _output_names(source, folder, suffix) for source in sources if isinstance(source, Source)
    }
    inputs = {source.path.resolve() for source in sources if isinstance(source, Source)}
    level = dict.fromkeys(wanted, 0)
    while True:
        owners: dict[Path, list[str]] = {}
        for name, names in wanted.items():
            owners.setdefault(names[level[name]], []).append(name)
        clashes = [(t, own) for t, own in owners.items() if len(own) > 1 or t.resolve() in inputs]
        if not clashes:
            return {name: names[level[name]] for name, names in wanted.items()}
        for target, own in clashes:
            lowest = min(level[name] for name in own)
            for name in own:
                if level[name] == lowest:
                    level[name] += 1
                if level[name] == len(wanted[name]):
                    raise _clash(target, own)


def _output_names(source: Source, folder: Path, suffix: str) -> list[Path]:
    """What the file of a source may be called, the shortest first."""
    own = source.output
    whole = source.path.name if source.name != STANDARD_INPUT else own.name
    names = [folder / own.with_name(own.name + suffix), folder / own.with_name(whole + suffix)]
    above: tuple[str, ...] = ()
    for part in reversed([p for p in source.path.resolve().parent.parts if p != source.path.anchor]):
        above = (part, *above)
        names.append(folder.joinpath(*above, whole + suffix))
    return names


def _clash(target: Path, names: list[str]) -> DataError:
    if len(names) > 1:
        return DataError(
            f"{' and '.join(names)} would be written to {target}",
            "recordings of one call need names of their own",
            "call once for each, with an --out of its own",
        )
    return DataError(f"{target} is a recording", "results overwrite no input", "choose another --out")
