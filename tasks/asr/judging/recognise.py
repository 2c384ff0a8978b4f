"""The items of an evaluation through one recogniser: a table of utterances with their edits. No command.

Audio becomes text on the same route as in `malgil asr transcribe`, so recordings may have any length.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tasks.asr.engines.acoustic import Acoustic
from tasks.asr.judging.items import SetAside
from tasks.asr.quality.slices import count_edits
from tasks.asr.recordings.clipping import clipping_warnings
from tasks.asr.recordings.formats import Transcription
from tasks.asr.recordings.sources import Failure, Source
from tasks.asr.transcribe import total_seconds, transcribe
from tasks.data.normalisers import normalise
from tasks.errors import ModelError
from tasks.progress import Progress


class Recognised(NamedTuple):
    """What came of the items.

    Attributes:
        table: the items that have a text, with hypothesis, greedy (both normalised), duration_s, confidence,
            clipped_share, and the counts of `tasks.asr.quality.slices.count_edits`.
        left: the others.
        seconds: that it took, reading included.
        notes: what was put right in recordings, sentences that name them.
    """

    table: pd.DataFrame
    left: list[SetAside]
    seconds: float
    notes: tuple[str, ...] = ()


def recognise(items: pd.DataFrame, acoustic: Acoustic, normaliser: str, name: str) -> Recognised:
    """Every item through the recogniser; `name` is shown beside the progress.

    Hypotheses pass the same normaliser as the references: a recogniser that writes digits, punctuation or
    capitals is scored on what it heard.
    """
    sources = [
        Source(path, Path(file), Path(path)) for path, file in zip(items["path"], items["file"], strict=True)
    ]
    began = time.monotonic()
    heard: list[dict[str, object]] = []
    left: list[SetAside] = []
    notes: list[str] = []
    kept: list[int] = []
    with Progress(f"evaluate {name}", total_seconds(sources), "s of audio") as progress:
        results: Iterator[Transcription | Failure] = transcribe(sources, acoustic, progress=progress)
        for index, result in enumerate(results):
            if isinstance(result, Failure):
                reason = "not_recognised" if isinstance(result.error, ModelError) else "unreadable_file"
                row = int(items["row"].iloc[index])
                named = (str(items[column].iloc[index]) for column in ("path", "where"))
                left.append(SetAside(row, next(named), reason, str(result.error), next(named)))
                continue
            kept.append(index)
            clipped = clipping_warnings(result.path, result.clipped_share)  # counted by the evaluation
            notes += [warning for warning in result.warnings if warning not in clipped]
            heard.append(
                {
                    "hypothesis": normalise(result.text, normaliser),
                    "greedy": normalise(result.greedy, normaliser),
                    "duration_s": result.duration_s,
                    "confidence": result.confidence,
                    "clipped_share": result.clipped_share,
                }
            )
    seconds = time.monotonic() - began
    table = items.iloc[kept].drop(columns="file").reset_index(drop=True)
    if not kept:
        return Recognised(table, left, seconds, tuple(notes))
    return Recognised(count_edits(table.join(pd.DataFrame(heard))), left, seconds, tuple(notes))
