"""Transcripts beside the recordings: *.trans.txt of LibriSpeech and Zeroth, or one text each. No command."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from tasks.data.own.gathered import Gathered, with_origin
from tasks.data.own.lines import read_lines, read_text_lines
from tasks.data.own.listing import Listing
from tasks.data.own.paths import AUDIO_SUFFIXES
from tasks.data.own.reconciliation import SetAside, counted
from tasks.errors import DataError, MalgilError

_SPEAKER_IN_ID = re.compile(r"(?P<speaker>[^-_]+)[-_].+")
_NO_TRANSCRIPTS = frozenset(
    {"readme", "license", "licence", "copying", "notice", "changelog", "changes", "authors", "speakers"}
    | {"chapters", "books", "citation", "requirements", "version"}
)
_MOST_BAD = 0.5  # of the transcripts; more, and the whole folder is in another encoding


def rows_of_listings(folder: Path, listings: Sequence[str], audio: Sequence[str]) -> Gathered:
    """A row for every line "<id> <text>" of *.trans.txt; recordings that no line names are set aside.

    Raises:
        DataError: no line can be read, or a file is in another encoding.
    """
    beside = _by_stem(audio)
    rows: list[dict[str, str]] = []
    origins: list[tuple[str, int]] = []
    aside: list[SetAside] = []
    entered = renamed = 0
    for listing in listings:
        place = PurePosixPath(listing).parent
        lines = read_lines(folder / listing)
        entered += len(lines)
        for line in lines:
            name, text = ([*line.text.split(maxsplit=1), "", ""])[:2]
            if not name:
                aside.append(SetAside(listing, line.number, "blank_line", "", line.text))
            elif line.fault or not text.strip():
                why = line.fault or 'each line is "<id> <text>"'
                aside.append(SetAside(listing, line.number, "unreadable_line", why, line.text))
            else:
                name, path = _recording(beside, place, name)
                renamed += path is not None and PurePosixPath(path).stem != name
                path = path or (place / f"{name}.flac").as_posix()
                found = _SPEAKER_IN_ID.fullmatch(name)
                speaker = found["speaker"] if found else place.name or folder.resolve().name
                row = {"utterance_id": name, "path": path, "transcript": text.strip(), "speaker": speaker}
                rows.append(row)
                origins.append((listing, line.number))
    if not rows:
        raise DataError(
            f"no line of {folder / listings[0]} can be read",
            'each line is "<id> <text>"',
            "write the transcript behind the id",
        )
    frame = with_origin(pd.DataFrame(rows), *zip(*origins, strict=True))
    count = counted("read", "line", entered, len(frame), aside)
    named = set(frame["path"])
    aside += [SetAside(file, 0, "audio_without_transcript") for file in audio if file not in named]
    notes = [f"{renamed} ids were found in another case or Unicode form"] if renamed else []
    return Gathered(frame, [count], aside, notes)


def _recording(
    beside: Mapping[tuple[str, str], Sequence[str]], place: PurePosixPath, name: str
) -> tuple[str, str | None]:
    """The id, without a suffix of audio, and its recording; None where there is none, or more than one."""
    found = beside.get((str(place), _folded(name)), [])
    if not found and PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES:
        name = PurePosixPath(name).stem  # the file's name for its id
        found = beside.get((str(place), _folded(name)), [])
    if len(found) == 1:
        return name, found[0]
    return name, next((one for one in found if PurePosixPath(one).stem == name), None)


def rows_of_sidecars(folder: Path, listing: Listing) -> Gathered:
    """A row for every recording, its transcript the .txt of its name; other texts are set aside.

    A text that cannot be read costs its own recording alone.

    Raises:
        DataError: there is no transcript, or most of them are in another encoding.
    """
    texts = [file for file in listing.files if PurePosixPath(file).suffix.lower() == ".txt"]
    beside = _by_stem(texts)
    apart = _elsewhere(listing.audio, [file for file in texts if _is_transcript(file)])
    rows: list[dict[str, str]] = []
    aside: list[SetAside] = []
    used: set[str] = set()
    refused: list[MalgilError] = []
    for file in listing.audio:
        path = PurePosixPath(file)
        found = beside.get((str(path.parent), _folded(path.stem)), [])
        found = found or beside.get((str(path.parent), _folded(path.name)), [])  # a.wav.txt
        own = next((one for one in found if PurePosixPath(one).stem == path.stem), found[0] if found else "")
        own = own or apart.get(file, "")
        used.update([own] if own else ())
        try:
            text = "\n".join(read_text_lines(folder / own)).strip() if own else ""
        except MalgilError as error:  # in another encoding, a link to nowhere, or it may not be read
            refused.append(error)
            aside.append(SetAside(own, 0, "unreadable_line", error.what, file))
            continue
        rows.append({"path": file, "transcript": text, "origin": own or file})
    if refused and len(refused) > _MOST_BAD * len(used):
        raise _all_in_another_encoding(folder, refused[0])
    if not any(row["transcript"] for row in rows):
        raise _no_transcripts(folder, listing)
    orphans = [file for file in texts if file not in used and _is_transcript(file)]
    aside += [SetAside(file, 0, "transcript_without_audio") for file in orphans]
    frame = pd.DataFrame(rows)
    frame = with_origin(frame.drop(columns="origin"), frame["origin"].tolist(), [1] * len(frame))
    paired = len(used & set(apart.values()))
    notes = [f"{paired} recordings have their transcript in another folder, by its name alone"]
    return Gathered(frame, [], aside, notes if paired else [])


def _no_transcripts(folder: Path, listing: Listing) -> DataError:
    """The refusal of a folder without a transcript, with the tables and labels that it does hold."""
    tables = [
        file for file in listing.files if PurePosixPath(file).suffix.lower() in (".csv", ".tsv", ".jsonl")
    ]
    labels = sum(file.lower().endswith(".json") for file in listing.files)
    step = "add the transcripts, or write a manifest (corpus.source: manifest)"
    if tables:
        named = folder / min(tables, key=lambda file: (file.count("/"), "train" not in file, file))
        step = f"name the table that holds them: -S corpus.source=manifest -S corpus.manifest={named}"
    held = f", though {labels} .json files: labels have no common form and are not read" if labels else ""
    return DataError(
        f"{folder} holds {len(listing.audio)} recordings and no transcript{held}",
        "a recording has a .txt file of its name beside it (or in a folder of texts alone), or "
        "stands in a *.trans.txt, *.trn, metadata.csv, metadata.jsonl or wav.scp",
        step,
    )


def _elsewhere(audio: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Recordings to the text of their name in another folder, as AI-Hub keeps labels apart from sources: only
    between folders of recordings alone and of texts alone, where one of each bears the name."""
    sources, labels = ({str(PurePosixPath(file).parent) for file in files} for files in (audio, texts))
    recordings, transcripts = _by_name(audio, labels), _by_name(texts, sources)
    return {
        files[0]: transcripts[name][0]
        for name, files in recordings.items()
        if len(files) == 1 and len(transcripts.get(name, [])) == 1
    }


def _by_name(files: Sequence[str], without: Collection[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in files:
        if str(PurePosixPath(file).parent) not in without:
            found.setdefault(_folded(PurePosixPath(file).stem), []).append(file)
    return found


def _is_transcript(file: str) -> bool:
    """Whether a text without a recording is a transcript that lost it, not a word about the data."""
    return re.split(r"[-_. ]", PurePosixPath(file).stem.casefold())[0] not in _NO_TRANSCRIPTS


def _all_in_another_encoding(folder: Path, error: MalgilError) -> MalgilError:
    """The refusal of a folder of which most texts are not UTF-8, with a command that converts those alone."""
    found = re.search(r"iconv -f (\S+) ", error.next_step)
    if not found:
        return error
    script = (
        'for f; do iconv -f UTF-8 -t UTF-8 "$f" > /dev/null 2>&1 || '
        f'{{ iconv -f {found[1]} -t UTF-8 "$f" > "$f.part" && mv "$f.part" "$f"; }}; done'
    )
    where = shlex.quote(str(folder))
    step = f"convert a copy of the folder: `find {where} -name '*.txt' -exec sh -c '{script}' _ {{}} +`"
    return DataError(error.what, f"{error.rule}, and most transcripts of {folder} are not", step)


def _by_stem(files: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """(Folder, name without suffix, case and Unicode form) to the files that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in files:
        path = PurePosixPath(file)
        found.setdefault((str(path.parent), _folded(path.stem)), []).append(file)
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
