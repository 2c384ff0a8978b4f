"""Every file of a folder, once: recordings, other files, and what operating systems left. No command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.data.own.paths import AUDIO_SUFFIXES
from tasks.data.own.reconciliation import SetAside, printable
from tasks.data.own.system_files import is_system_file
from tasks.errors import ArtifactError, explain_os_error


@dataclass(frozen=True)
class Listing:
    """Paths relative to the folder, POSIX, sorted: `files` all but those set aside, `audio` among them.

    `entered` counts every file that was seen; `aside` names those of operating systems, and those whose name
    is not UTF-8.
    """

    files: Sequence[str]
    audio: Sequence[str]
    aside: Sequence[SetAside]
    entered: int


def list_folder(folder: Path) -> Listing:
    """All files below a folder; linked folders are followed, once.

    Raises:
        ArtifactError: there is no such folder.
        CapacityError: a folder below it may not be read.
    """
    if not folder.is_dir():
        if folder.exists():
            raise ArtifactError(f"{folder} is a file", "a folder is expected", "correct the path")
        raise explain_os_error(FileNotFoundError(2, "missing", str(folder)))
    refused: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    files: list[str] = []
    aside: list[SetAside] = []
    for parent, folders, names in os.walk(folder, onerror=refused.append, followlinks=True):
        found = Path(parent).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        beside = Path(parent).relative_to(folder)
        for name in names:
            path = (beside / name).as_posix()
            if is_system_file(path):
                aside.append(SetAside(printable(path), 0, "operating_system_file"))
            elif printable(path) != path:
                why = "its name is not UTF-8; rename it (`convmv -f CP949 -t UTF-8 --notest FILE`)"
                aside.append(SetAside(printable(path), 0, "unreadable_name", why))
            else:
                files.append(path)
    if refused:
        raise explain_os_error(refused[0], refused[0].filename)
    files.sort()
    audio = [file for file in files if PurePosixPath(file).suffix.lower() in AUDIO_SUFFIXES]
    return Listing(files, audio, aside, len(files) + len(aside))
