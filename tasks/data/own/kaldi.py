"""Folders as Kaldi and ESPnet write them: wav.scp, text, utt2spk. No command.

wav.scp   <utterance> <path>        a command (`sox a.wav - |`) is no path: its line is set aside
text      <utterance> <transcript>
utt2spk   <utterance> <speaker>     optional
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from tasks.data.own.gathered import Gathered, with_origin
from tasks.data.own.lines import read_lines
from tasks.data.own.reconciliation import Count, SetAside, added, counted
from tasks.errors import DataError

SCRIPT = "wav.scp"
_TEXT, _SPEAKERS = "text", "utt2spk"
_Entries = dict[str, tuple[int, str]]


def rows_of_kaldi(folder: Path, scripts: Sequence[str]) -> Gathered:
    """The rows of every folder with a wav.scp.

    Args:
        scripts: paths of wav.scp files relative to the folder.

    Raises:
        DataError: there is no `text` beside one, or `segments`, which cut recordings.
    """
    frames: list[pd.DataFrame] = []
    counts: list[Count] = []
    aside: list[SetAside] = []
    for script in scripts:
        gathered = _rows(folder, Path(script))
        frames.append(gathered.frame)
        counts += gathered.counts
        aside += gathered.aside
    return Gathered(pd.concat(frames, ignore_index=True), [added("read", counts)], aside)


def is_kaldis(file: str) -> bool:
    """Whether a file beside a wav.scp is one of those that are read."""
    return PurePosixPath(file).name in (SCRIPT, _TEXT, _SPEAKERS)


def _rows(folder: Path, script: Path) -> Gathered:
    place = folder / script.parent
    if (place / "segments").is_file():
        raise DataError(
            f"{place / 'segments'} cuts recordings into utterances",
            "one file per utterance is needed",
            "cut them first (Kaldi: `extract-segments`, ESPnet: `format_wav_scp.sh --segments`)",
        )
    if not (place / _TEXT).is_file():
        raise DataError(
            f"{folder / script} has no file text beside it",
            "the transcripts stand in text: <utterance> <transcript>",
            "write it, or name a manifest (corpus.source: manifest)",
        )
    text_file = (script.parent / _TEXT).as_posix()
    aside: list[SetAside] = []
    paths, entered = _entries(folder / script, script.as_posix(), aside)
    texts, of_texts = _entries(place / _TEXT, text_file, aside)
    speakers = _entries(place / _SPEAKERS, "", [])[0] if (place / _SPEAKERS).is_file() else {}
    for name, (line, path) in list(paths.items()):
        if path.endswith("|"):
            why = "a command, not a file: run it and name what it writes"
            aside.append(SetAside(script.as_posix(), line, "unreadable_line", why, f"{name} {path}"))
            del paths[name]
            if name in texts:
                line, text = texts.pop(name)
                aside.append(SetAside(text_file, line, "paired", f"with {name} of {script}", text))
    for name in list(paths.keys() - texts.keys()):
        line, path = paths.pop(name)
        aside.append(SetAside(script.as_posix(), line, "audio_without_transcript", "", f"{name} {path}"))
    for name in list(texts.keys() - paths.keys()):
        line, text = texts.pop(name)
        aside.append(SetAside(text_file, line, "transcript_without_audio", "", f"{name} {text}"))
    rows = pd.DataFrame(
        {
            "utterance_id": list(paths),
            "path": [path for _, path in paths.values()],
            "transcript": [texts[name][1] for name in paths],
            "speaker": [speakers[name][1] if name in speakers else "" for name in paths],
        }
    )
    frame = with_origin(rows, [text_file] * len(rows), [texts[name][0] for name in paths])
    frame["path"] = [(script.parent / path).as_posix() for path in frame["path"]]
    pairs = [SetAside(script.as_posix(), 0, "paired") for _ in paths]  # a row has a line in either file
    count = counted("read", "line", entered + of_texts, len(frame), [*aside, *pairs])
    return Gathered(frame, [count], aside)


def _entries(path: Path, file: str, aside: list[SetAside]) -> tuple[_Entries, int]:
    """Utterance to (line, the rest of it), and how many lines there are."""
    found: _Entries = {}
    lines = read_lines(path)
    for line in lines:
        name, rest = ([*line.text.split(maxsplit=1), "", ""])[:2]
        if not line.text.strip():
            aside.append(SetAside(file, line.number, "blank_line"))
        elif line.fault or not rest.strip() or name in found:
            why = line.fault or ("it has no second field" if not rest.strip() else f"{name} stands twice")
            aside.append(SetAside(file, line.number, "unreadable_line", why, line.text))
        else:
            found[name] = line.number, rest.strip()
    return found, len(lines)
