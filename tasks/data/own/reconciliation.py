"""What goes in equals what comes out plus what is named: counts of every door and stage. Pure; no command.

A `Count` is one step: so many lines, files or rows went in, so many rows came out, and every other one was
set aside for a reason. Its sum must agree. What was set aside keeps its file, line and text (`SetAside`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from tasks.errors import DataError

BAD = frozenset(
    {
        "unreadable_line",
        "unclosed_quote",
        "unreadable_name",
        "transcript_without_audio",
        "audio_without_transcript",
    }
)
"""Reasons that count as bad rows (`validate.max_bad_share`); others lose nothing: blank lines, headers ..."""

_TEXTS = (".csv", ".tsv", ".jsonl", ".json", ".txt")
ORIGIN = ("origin_file", "origin_line", "origin_path", "origin_detail")
"""Columns of a manifest that say where a row was written: the table, its line there (the row, in Parquet),
the path as it is written, and what was said when the recording was looked for."""


class SetAside(NamedTuple):
    """A line, row or file that became no row. `line` counts from 1 in its file; 0 for a whole file."""

    file: str
    line: int
    reason: str
    why: str = ""
    text: str = ""


@dataclass(frozen=True)
class Count:
    """One step: `entered` of a `unit` (line, row, file), `made` rows, the rest set aside, by reason."""

    step: str
    unit: str
    entered: int
    made: int
    set_aside: Mapping[str, int] = field(default_factory=dict)

    def check(self) -> Count:
        """This count. Raises DataError if a line, row or file came out as nothing and was not named."""
        aside = sum(self.set_aside.values())
        if self.entered != self.made + aside:
            named = ", ".join(f"{number} {reason}" for reason, number in self.set_aside.items()) or "none"
            raise DataError(
                f"step {self.step}: {self.entered} {self.unit}s went in, {self.made} came out and {aside} "
                f"were set aside ({named})",
                "what goes in equals what comes out plus what is named; nothing is written otherwise",
                "this is a mistake of Malgil: report it with these numbers",
            )
        return self

    def as_json(self) -> dict[str, Any]:
        """For result.json, summary.json and the pages: `in`, `out` and `set_aside`."""
        return {
            "step": self.step,
            "unit": self.unit,
            "in": self.entered,
            "out": self.made,
            "set_aside": dict(self.set_aside),
        }


def counted(step: str, unit: str, entered: int, made: int, aside: Iterable[SetAside]) -> Count:
    """The count of a step, checked."""
    reasons = Counter(one.reason for one in aside)
    return Count(step, unit, entered, made, dict(reasons.most_common())).check()


def added(step: str, counts: Sequence[Count]) -> Count:
    """The sum of the counts of several files, as one step."""
    reasons: Counter[str] = Counter()
    for count in counts:
        reasons.update(count.set_aside)
    return Count(
        step,
        counts[0].unit if counts else "line",
        sum(count.entered for count in counts),
        sum(count.made for count in counts),
        dict(reasons.most_common()),
    ).check()


def set_aside_table(aside: Sequence[SetAside]) -> pd.DataFrame:
    """set_aside.parquet: file, line, reason, why and the text as written (half surrogates escaped)."""
    frame = pd.DataFrame(list(aside), columns=list(SetAside._fields))
    for name in ("file", "reason", "why", "text"):
        frame[name] = pd.Series([printable(str(value)) for value in frame[name]], dtype=object)
    frame["line"] = frame["line"].astype("int64")
    return frame.astype(dict.fromkeys(("file", "reason", "why", "text"), "string"))


def printable(text: str) -> str:
    """The text with what UTF-8 cannot hold (bytes of file names, half surrogates) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def place(file: str, line: int) -> str:
    """Where a row is written, for messages: "line 21 of train.csv"."""
    if not line:
        return file
    is_text = file.lower().endswith(_TEXTS) or file.rpartition("/")[2] in ("text", "wav.scp")
    return f"{'line' if is_text else 'row'} {line} of {file}"
