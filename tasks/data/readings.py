"""Words of the user's transcripts that no normaliser can read, and how they are said. No command.

A table (.csv, .tsv, .jsonl or .parquet) with the columns `written` and `spoken`: "Netflix,넷플릭스". It is
applied once, when the corpus is made (`corpus.readings`): every later stage meets Hangul. What the
transcripts said before, with their marks (`tasks.data.transcripts`), stays in `transcript_written`.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from tasks.data.manifest import require_columns
from tasks.data.tables import read_table
from tasks.data.transcripts.rows import WRITTEN
from tasks.errors import DataError

COLUMNS = ("written", "spoken")
_SPOKEN = re.compile("[가-힣]+( [가-힣]+)*")
_NAMED = 10  # mistakes told at once


def read_readings(path: Path) -> dict[str, str]:
    """Word to its reading.

    Raises:
        DataError: not a table, a column missing, or rows that are wrong: all of them, up to ten.
        ArtifactError: the file is missing.
    """
    table = read_table(path)
    require_columns(table, COLUMNS, path)
    found: dict[str, str] = {}
    problems = []
    rows = zip(table["written"].fillna(""), table["spoken"].fillna(""), strict=True)
    for number, (written, spoken) in enumerate(rows, 1):
        word, reading = str(written).strip(), " ".join(str(spoken).split())
        if not word:
            problems.append(f"row {number} has no word")
        elif not _SPOKEN.fullmatch(reading):
            problems.append(f"row {number}: {word!r} is said {reading!r}")
        elif found.setdefault(word, reading) != reading:
            problems.append(f"row {number}: {word!r} is said {reading!r}, and {found[word]!r} before")
    if problems:
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise DataError(
            f"{path}: {'; '.join(problems[:_NAMED])}{more}",
            "a word needs one reading, of Hangul syllables and spaces",
            "correct the rows; corpus.readings names the table",
        )
    return found


def with_readings(frame: pd.DataFrame, path: Path | None) -> tuple[pd.DataFrame, list[str]]:
    """The frame with the words of the table read out in its transcripts, and a note of what was done.

    A word is found where no Latin letter or digit touches it, in the case of the table first, then in any.
    """
    if path is None:
        return frame, []
    readings = read_readings(path)
    folded = {word.casefold(): reading for word, reading in reversed(readings.items())}
    words = "|".join(re.escape(word) for word in sorted(readings, key=len, reverse=True))
    pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])", re.IGNORECASE)
    used: Counter[str] = Counter()

    def read(match: re.Match[str]) -> str:
        used[match[0].casefold()] += 1
        return readings.get(match[0]) or folded[match[0].casefold()]

    before = frame["transcript"]
    after = before.map(lambda text: pattern.sub(read, text) if isinstance(text, str) else text)
    unused = len(readings) - sum(word.casefold() in used for word in readings)
    note = f"{used.total()} words of {int((after != before).sum())} transcripts were read out by {path.name}"
    note += f"; {unused} of its {len(readings)} words occur in none" if unused else ""
    written = frame.get(WRITTEN, before)
    return frame.assign(**{"transcript": after, WRITTEN: written}), [note]
