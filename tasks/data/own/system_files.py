"""Files that operating systems and editors leave among a user's files: told by name alone. Pure; no command.

Every door passes over them alike and counts them: folders, tables in them, listings of transcripts, and what
`transcribe` and `embed` find in a folder.
"""

from __future__ import annotations

from pathlib import PurePath

_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "$recycle.bin"}
    | {"system volume information", "lost+found", "@eadir", "#recycle"}
)


def is_system_file(path: PurePath | str) -> bool:
    """Whether a path is, or lies in, what an operating system left: `._a1.wav`, `~$list.csv`.

    Hidden files and folders (a leading dot) count.

    Args:
        path: relative to the folder that is searched: a hidden folder above that one is the user's choice.
    """
    return any(_is_system_name(part) for part in PurePath(path).parts)


def _is_system_name(name: str) -> bool:
    return (
        (name.startswith(".") and name not in (".", ".."))
        or name.startswith("~$")
        or name.casefold() in _NAMES
    )
