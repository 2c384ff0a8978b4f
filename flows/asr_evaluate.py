"""The command `malgil asr evaluate`: error rates of any recogniser on any transcribed speech, or of two.

    malgil asr evaluate --model FOLDER|HUB_ID [--model OTHER] --data TABLE|FOLDER|HUB_ID [--out DIR] [--json]

Rows, items, texts and rates are made in tasks/asr/judging; two recognisers are compared by
tasks/release/paired.py. What is printed is in flows/asr_evaluation.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from flows.asr_recogniser import DEFAULT_MODEL, Backend, Decoder, choose_search, decoder_of
from flows.console import log_to_console
from flows.environment import take_every_core
from tasks.data.chains import CHAINS
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.asr.engines.acoustic import Acoustic
    from tasks.asr.engines.named import Found
    from tasks.asr.judging.items import Items, SetAside
    from tasks.asr.judging.recognise import Recognised
    from tasks.asr.judging.rows import Rows

INTERRUPTED = 130
Normaliser = StrEnum("Normaliser", {chain: chain for chain in CHAINS})  # type: ignore[misc]  # from a table
DEFAULT_NORMALISER = Normaliser("ko-3")
Version = StrEnum("Version", {"marks-1": "marks-1", "none": "none"})
DEFAULT_MARKS = Version("marks-1")


class DualSide(StrEnum):
    """A side of a dual transcription."""

    spoken = "spoken"
    written = "written"


class Fillers(StrEnum):
    """What becomes of marked fillers."""

    keep = "keep"
    remove = "remove"


def evaluate(
    data: Annotated[str, typer.Option(help="table, folder, or Hub data set (org/name, org/name@revision)")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="recogniser: a folder, or a Hub id; a second one is compared with the first"),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="value of the split column; several times for several")
    ] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="the ONNX file or the torch checkpoint; as --model holds")
    ] = None,
    decoder: Annotated[
        Decoder | None, typer.Option(help="the best symbols, a beam search, or one with an n-gram model")
    ] = None,
    beam_size: Annotated[
        int | None, typer.Option(min=1, max=1000, help="hypotheses kept per frame (beam, lm)")
    ] = None,
    lm: Annotated[Path | None, typer.Option(help="your own n-gram model: ARPA, gzipped or not")] = None,
    normaliser: Annotated[
        Normaliser, typer.Option(help="chain that references and hypotheses pass")
    ] = DEFAULT_NORMALISER,
    audio_column: Annotated[str, typer.Option(help="your column of the audio")] = "",
    transcript_column: Annotated[str, typer.Option(help="your column of what is said")] = "",
    speaker_column: Annotated[str, typer.Option(help="your column of who says it")] = "",
    split_column: Annotated[str, typer.Option(help="your column of the split")] = "",
    readings: Annotated[Path | None, typer.Option(help="your table of words and how they are said")] = None,
    marks: Annotated[
        Version, typer.Option(help="how marks of transcribers are read (docs/reference/marks.md)")
    ] = DEFAULT_MARKS,
    dual_side: Annotated[
        DualSide, typer.Option(help="side of (3개)/(세 개) that is taken")
    ] = DualSide.spoken,
    fillers: Annotated[Fillers, typer.Option(help="what becomes of marked fillers")] = Fillers.keep,
    slice_by: Annotated[
        list[str] | None, typer.Option(help="a column to make slices by; several times for several")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="the first N rows alone")] = None,
    batch_seconds: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="padded audio per batch, in seconds (torch)")
    ] = 10.0,
    out: Annotated[Path | None, typer.Option(help="folder for the figures and every utterance")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """CER, WER, slices and intervals of a recogniser on your data; of two, whether one is better."""
    log_to_console()
    take_every_core()
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # whatever the locale says
    from flows.asr_evaluation import check_out, print_report, write_report

    models = model or [DEFAULT_MODEL[backend.value if backend else "onnx"]]
    if len(models) > 2:
        raise DataError(
            f"--model is given {len(models)} times",
            "one recogniser is measured, or two are compared",
            "name two of them, and call again for the others",
        )
    if out is not None:
        check_out(out)
    asked = _Asked(
        data=data,
        columns={
            "path": audio_column,
            "transcript": transcript_column,
            "speaker": speaker_column,
            "split": split_column,
        },
        readings=readings,
        marks=(marks.value, dual_side.value, fillers.value),
        splits=tuple(split or ()),
        slice_by=tuple(slice_by or ()),
        limit=limit,
        normaliser=normaliser.value,
        decoding={
            "decoder": decoder.value if decoder else None,
            "beam_size": beam_size,
            "lm": str(lm) if lm else None,
        },
    )

    def load(found: Found) -> Acoustic:
        from tasks.asr.engines.acoustic import load_acoustic

        acoustic = load_acoustic(found.folder, found.backend, batch_seconds, use_search=True)
        acoustic.search = choose_search(acoustic, decoder, beam_size, lm)
        return acoustic

    try:
        report, tables, left = _measure(asked, models, backend.value if backend else None, load)
        if out is not None:
            write_report(out, report, tables, left)
    except KeyboardInterrupt:
        print("malgil: stopped; nothing was written", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        print_report(report)
        if out is not None:
            print(f"Written: {out}")


class _Asked(NamedTuple):
    """What is evaluated, and under which options."""

    data: str
    columns: dict[str, str]
    readings: Path | None
    marks: tuple[str, Literal["spoken", "written"], Literal["keep", "remove"]]
    splits: tuple[str, ...]
    slice_by: tuple[str, ...]
    limit: int | None
    normaliser: str
    decoding: dict[str, Any]


def _measure(
    asked: _Asked, models: list[str], backend: str | None, load: Callable[[Found], Acoustic]
) -> tuple[dict[str, Any], list[Recognised], list[SetAside]]:
    """The report, what each model heard of the same items, and the rows that were set aside.

    Raises:
        DataError: no row could be evaluated.
    """
    from tasks.asr.engines.named import find_model
    from tasks.asr.judging.items import choose_items
    from tasks.asr.judging.recognise import recognise
    from tasks.asr.judging.rows import Marks, read_rows

    found = [find_model(name, backend) for name in models]
    acoustics = [load(one) for one in found]  # what is missing or broken is said before anything is read
    with tempfile.TemporaryDirectory(prefix="malgil-") as scratch:
        rows = read_rows(asked.data, asked.columns, Path(scratch), asked.readings, Marks(*asked.marks))
        items, left = choose_items(rows, asked.normaliser, asked.splits, asked.slice_by, asked.limit)
        heard: list[Recognised] = []
        frame = items.frame
        for one, acoustic in zip(found, acoustics, strict=True) if len(frame) else ():
            heard.append(recognise(frame, acoustic, asked.normaliser, one.name))
            left += heard[-1].left
            frame = frame[frame["row"].isin(heard[-1].table["row"])]
    left.sort()
    kept = set(heard[-1].table["row"]) if heard else set()
    if not kept:
        raise _nothing_evaluated(rows, left)
    heard = [
        one._replace(table=one.table[one.table["row"].isin(kept)].reset_index(drop=True)) for one in heard
    ]
    return _report(asked, rows, items, found, acoustics, heard, left), heard, left


def _nothing_evaluated(rows: Rows, left: list[SetAside]) -> DataError:
    from tasks.asr.judging.items import CHOSEN, REASONS, count_reasons

    counts = ", ".join(f"{count} {REASONS[reason]}" for reason, count in count_reasons(left).items())
    first = next((one for one in left if one.reason not in CHOSEN), None)
    example = f"; the first is {first.where} ({first.path}): {first.detail}" if first else ""
    return DataError(
        f"no row of {rows.name} could be evaluated: {rows.read} read, {counts or 'none set aside'}{example}",
        "a row needs a recording that can be read and a transcript that the normaliser can read",
        "correct the rows, or name other columns (--audio-column, --transcript-column), another --normaliser "
        "or readings of your own (--readings)",
    )


def _report(
    asked: _Asked,
    rows: Rows,
    items: Items,
    found: list[Found],
    acoustics: list[Acoustic],
    heard: list[Recognised],
    left: list[SetAside],
) -> dict[str, Any]:
    """Everything that is known, as docs/how-to/evaluate.md describes it."""
    from tasks.asr.judging import figures
    from tasks.asr.judging.items import CHOSEN, count_reasons, items_digest
    from tasks.asr.judging.versions import versions
    from tasks.asr.recordings.clipping import MOST
    from tasks.cpu import measured_on
    from tasks.data.chains import steps_of
    from tasks.release.paired import compare_recognisers

    table = heard[0].table
    models = [
        {
            "name": one.name,
            "backend": one.backend,
            "sha256": acoustic.sha256,
            "decoder": decoder_of(acoustic),
            **figures.figures(result.table),
            "seconds": round(result.seconds, 2),
            "times_real_time": round(float(result.table["duration_s"].sum()) / max(result.seconds, 1e-9), 1),
            "slices": figures.slices(result.table),
        }
        for one, acoustic, result in zip(found, acoustics, heard, strict=True)
    ]
    comparison = None
    if len(heard) == 2:
        comparison = compare_recognisers(
            heard[0].table,
            heard[1].table,
            block=items.block,
            confidence=figures.CONFIDENCE,
            resamples=figures.RESAMPLES,
            seed=figures.SEED,
        )
    synthetic = int(table["synthetic"].sum())
    return {
        "data": {
            "name": rows.name,
            "door": rows.door,
            "splits": list(asked.splits),
            "limit": asked.limit,
            "synthetic": "all"
            if rows.synthetic or synthetic == len(table)
            else "some"
            if synthetic
            else None,
            "notes": [*rows.notes, *items.notes],
            "recordings": list(heard[0].notes),
            "clipped": int((table["clipped_share"] > MOST).sum()),
            "items_sha256": items_digest(table),
        },
        "rows": {"read": rows.read, "evaluated": len(table), "set_aside": count_reasons(left)},
        "set_aside": [one._asdict() for one in left if one.reason not in CHOSEN],
        "normaliser": asked.normaliser,
        "normaliser_steps": list(steps_of(asked.normaliser)),
        "decoding": asked.decoding,
        "intervals": {
            "block": items.block,
            "confidence": figures.CONFIDENCE,
            "resamples": figures.RESAMPLES,
            "seed": figures.SEED,
        },
        "models": models,
        "comparison": comparison,
        "measured_on": measured_on(),
        "versions": versions(),
    }
