"""Recordings found by the paths of a table, as they are written: exactly, or in another form without doubt.

No command. Another form is the same path in another Unicode form, case or slash, with spaces, quotes, `./` or
`file://` around it, percent-encoded, without its suffix, below the folder where data sets of that kind keep
their audio, or the tail of an absolute path of another machine. It counts only if one file is meant and no
other row names it; else the nearest name is told. Every folder is listed once.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from rapidfuzz import fuzz, process

from tasks.data.own.system_files import is_system_file

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".oga"),
    *(".wave", ".snd", ".m4a", ".aac", ".wma", ".amr", ".webm", ".pcm"),  # read by ffmpeg, or refused by name
)
_AUDIO_FOLDERS = ("clips", "wavs", "wav", "audio")  # Common Voice, LJSpeech and their kin
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
_NEAR = 75.0  # of 100: how alike a near match is
_MOST_NEAR = 200  # rows for which a near match is looked for among all names
_MOST_FILES = 400_000  # of a tree that is searched for a near match
_OTHER_MACHINE = "by the end of the path of another machine"
_AROUND = "\ufeff\u200b \t\r\n\"'`"


class Found(NamedTuple):
    """Where a path leads: `path` is None if nowhere. `how` says in which other form it was found ("" as
    written), or what it was looked for as and what is near; `folder` is that of another machine, where
    nothing but the name of the file is found here."""

    path: Path | None
    how: str = ""
    folder: str = ""


class Finder:
    """Finds recordings below a folder; keeps what each folder holds."""

    def __init__(self, origin: Path) -> None:
        self.origin = origin
        self._names: dict[Path, dict[str, list[str]]] = {}
        self._tree: dict[str, list[str]] | None = None
        self._stems: dict[str, str] = {}
        self._asked = 0

    def find_all(self, written: Sequence[str], bases: Sequence[str] | None = None) -> list[Found]:
        """Where each path leads.

        Args:
            written: paths as they are written.
            bases: for each the folder of its table, relative to the origin; the origin itself without.
        """
        asked = list(zip(written, bases or [""] * len(written), strict=True))
        found = [self.find(path, base) for path, base in asked]
        owners: dict[Path, set[tuple[str, str]]] = {}
        for named, one in zip(asked, found, strict=True):
            if one.path is not None:
                owners.setdefault(one.path, set()).add(named)
        several = len({one.folder for one in found if one.folder}) > 1
        return [self._doubted(one, owners, several) for one in found]

    def _doubted(self, one: Found, owners: dict[Path, set[tuple[str, str]]], several: bool) -> Found:
        """What was found, or nothing where it may be another recording than the row means."""
        if one.path is None or not one.how:
            return one
        shown = _shown([one.path], self.origin)
        if len(owners[one.path]) > 1:
            return Found(None, f"{shown} could be meant, but another row means it too")
        if one.folder and several:
            return Found(None, f"{shown} could be meant, but the rows name several folders")
        return one

    def find(self, written: str, base: str = "") -> Found:
        """Where one path leads. A path that leaves the folder is taken only as it is written."""
        places = dict.fromkeys((self.origin / base, self.origin))
        if not written.strip():
            return Found(None, "the path is empty")
        for place in places:
            if _is_file(place / written):
                aside = "relative to the folder, not to their table" if place != self.origin / base else ""
                return Found(place / written, aside)
        forms = _forms(written)
        for how, form in forms:
            for place in places:
                if _is_file(place / form):
                    return Found(place / form, how)
        for how, form in forms:
            for place in places:
                files = self._alike(place, form)
                if len(files) == 1:
                    return Found(files[0], how or "in another case or Unicode form")
                if files:
                    return Found(None, f"it could be {_shown(files, self.origin)}")
        return self._elsewhere(forms) or self._nowhere(forms[-1][1], places)

    def _elsewhere(self, forms: Sequence[tuple[str, str]]) -> Found | None:
        """By its last parts, its stem, or in a folder of audio: where exactly one file can be meant."""
        form = forms[-1][1]
        parts = [part for part in form.split("/") if part not in ("", ".")]
        if ".." in parts:
            return None
        tails: list[str] = []
        if form.startswith("/") or _DRIVE.match(form):
            tails = ["/".join(parts[at:]) for at in range(len(parts))]
            how = _OTHER_MACHINE
        elif repeated := _repeated(parts, self.origin.resolve().parts):
            tails, how = ["/".join(parts[repeated:])], "without the name of the table's own folder"
        else:
            how = "in a folder of audio, or without its suffix"
            tails = [form, *(f"{folder}/{form}" for folder in _AUDIO_FOLDERS if len(parts) == 1)]
        files: dict[Path, None] = {}
        for tail in tails:
            files.update(dict.fromkeys(self._alike(self.origin, tail)))
            if not Path(tail).suffix:
                files.update(dict.fromkeys(self._with_suffix(tail)))
        if len(files) == 1:
            file = next(iter(files))
            is_bare = how == _OTHER_MACHINE and file.parent == self.origin
            return Found(file, how, "/".join(parts[:-1]) if is_bare else "")
        return Found(None, f"it could be {_shown(list(files), self.origin)}") if files else None

    def _with_suffix(self, tail: str) -> Iterator[Path]:
        for suffix in AUDIO_SUFFIXES:
            yield from self._alike(self.origin, tail + suffix)

    def _nowhere(self, form: str, places: Sequence[Path] | dict[Path, None]) -> Found:
        place = next(iter(places)) / form
        looked = f"looked for as {place}"
        if os.path.lexists(place) and "\0" not in form:
            what = "a folder" if place.is_dir() else "no file" if place.exists() else "a link to nowhere"
            return Found(None, f"{looked}, which is {what}")
        near = self._near(form)
        return Found(None, f"{looked}, there is {near}" if near else looked)

    def _near(self, form: str) -> str:
        """The path below the origin whose name is nearest; "" if none is near."""
        name = form.rpartition("/")[2]
        if self._tree is None:
            self._tree = {}
            for number, path in enumerate(_files(self.origin)):
                if number == _MOST_FILES:
                    break
                own = _folded(path.rpartition("/")[2])
                self._tree.setdefault(own, []).append(path)
                self._stems.setdefault(own.rpartition(".")[0] or own, path)
        if same := self._tree.get(_folded(name)):
            return same[0]
        if same_stem := self._stems.get(_folded(name).rpartition(".")[0] or _folded(name)):
            return same_stem
        self._asked += 1
        if self._asked > _MOST_NEAR:
            return ""
        wanted = _folded(name)
        near = process.extract(wanted, self._tree.keys(), scorer=fuzz.ratio, score_cutoff=_NEAR, limit=5)
        # of numbered files the nearest name is that of another recording
        best = next((found for found, *_ in near if _numbers(found) == _numbers(wanted)), None)
        return self._tree[best][0] if best else ""

    def _alike(self, place: Path, form: str) -> list[Path]:
        """The files below a place whose path differs in case or Unicode form alone."""
        if form.startswith("/") or _DRIVE.match(form) or "\0" in form:
            return []
        reached = [place]
        parts = [part for part in form.split("/") if part not in ("", ".")]
        for at, part in enumerate(parts):
            if part == "..":
                return []
            is_last = at == len(parts) - 1
            reached = [
                folder / name
                for folder in reached
                for name in self._listed(folder).get(_folded(part), ())
                if is_last or (folder / name).is_dir()
            ]
        return [path for path in reached if parts and _is_file(path)]

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder, by how they look without case and Unicode form."""
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        names.setdefault(_folded(entry.name), []).append(entry.name)
            except OSError:
                names = {}
            self._names[folder] = names
        return self._names[folder]


def _repeated(parts: Sequence[str], origin: Sequence[str]) -> int:
    """How many folders at the start of a path are the last ones of its origin: mine/a.wav in .../mine."""
    counts = range(min(len(parts) - 1, len(origin)), 0, -1)
    return next((count for count in counts if tuple(parts[:count]) == tuple(origin[-count:])), 0)


def is_recording(field: str) -> bool:
    """Whether a field of a table is the path of a recording."""
    return PurePosixPath(field.strip(' "').replace("\\", "/")).suffix.lower() in AUDIO_SUFFIXES


def told(found: Sequence[Found]) -> list[str]:
    """A line for every other form in which recordings were found, with how many."""
    counts = Counter(one.how for one in found if one.path is not None and one.how)
    return [f"{number} recordings were found {how}" for how, number in counts.most_common()]


def _forms(written: str) -> list[tuple[str, str]]:
    """The path in plainer forms, with what was done to it; the plainest last."""
    forms = []
    form = written
    done: list[str] = []
    plain = form.strip(_AROUND)
    if plain != form:
        form, done = plain, [*done, "without spaces or quotes around the path"]
        forms.append((", ".join(done), form))
    if form.lower().startswith("file:"):
        form = unquote(form[5:])
        form = "/" + form.lstrip("/") if not form.startswith("//localhost") else form[11:]
        done = [*done, "as a file:// address"]
        forms.append((", ".join(done), form))
    if form.startswith("~/"):
        form, done = str(Path(form).expanduser()), [*done, "in the home folder"]
        forms.append((", ".join(done), form))
    if "\\" in form:
        form, done = form.replace("\\", "/"), [*done, "with / for \\"]
        forms.append((", ".join(done), form))
    if "%" in form and unquote(form) != form:
        form, done = unquote(form), [*done, "percent-decoded"]
        forms.append((", ".join(done), form))
    return forms or [("", form)]


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, no permission, a NUL
        return False


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, without those of operating systems."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        beside = Path(parent).relative_to(folder)
        for name in sorted(names):
            if not is_system_file(name):
                yield (beside / name).as_posix()


def _shown(files: Sequence[Path], origin: Path) -> str:
    return " or ".join(os.path.relpath(path, origin) for path in files[:3])
