"""The command `malgil asr stream FILE|-`: text while it is spoken.

    malgil asr stream FILE|- [--model FOLDER|HUB_ID] [--mode cached|windowed|auto] [--json] [--realtime]
    malgil asr stream --microphone

The body is in tasks/asr/streaming.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.asr_screen import Screen, UntilInterrupted
from flows.console import log_to_console
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.asr.streaming.recogniser import Partial


class Mode(StrEnum):
    """How the logits are computed."""

    auto = "auto"
    cached = "cached"
    windowed = "windowed"


def stream(
    source: Annotated[
        str | None,
        typer.Argument(metavar="FILE|-", help="recording; - is raw s16le at 16 kHz, or any audio file"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="checkpoint or published version: a folder, or a Hub id")
    ] = "build/asr/checkpoint",
    mode: Annotated[Mode, typer.Option(help="auto: cached where the checkpoint can")] = Mode.auto,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object per line")] = False,
    realtime: Annotated[bool, typer.Option("--realtime", help="at the pace of speech")] = False,
    microphone: Annotated[bool, typer.Option("--microphone", help="hear the default microphone")] = False,
    greedy: Annotated[bool, typer.Option("--greedy", help="without the n-gram model")] = False,
    silence_s: Annotated[float, typer.Option(help="silence that ends a segment, in seconds")] = 0.8,
) -> None:
    """Text of a stream while it is spoken; the final text of a segment once a silence ends it."""
    from tasks.asr.recordings.clipping import Clipping, clipping_warnings
    from tasks.asr.recordings.recording import Heard
    from tasks.asr.streaming import source as sources

    log_to_console()
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # whatever the locale says
    if (source is None) != microphone:
        raise DataError(
            "a stream from two places" if microphone else "no stream",
            "needs one of FILE, - and --microphone",
            "`malgil asr stream recording.wav`",
        )
    clipping, heard = Clipping(), Heard()
    if source == "-":
        blocks = sources.from_bytes(sys.stdin.buffer, clipping, heard)
    elif source is None:
        blocks = sources.from_microphone(clipping)
    else:
        blocks = sources.from_file(Path(source), clipping, heard)

    from tasks.asr.engines.named import find_model
    from tasks.asr.streaming.recogniser import StreamingRecognizer
    from tasks.asr.streaming.session import run_stream

    found = find_model(model, "torch")
    recogniser = StreamingRecognizer.load(found.folder, mode.value, not greedy, silence_s)
    final, delays = run_stream(recogniser, UntilInterrupted(blocks), _shower(as_json), realtime)
    name = "the microphone" if source is None else "standard input" if source == "-" else source
    warnings = [*clipping_warnings(name, clipping.share), *(f"{name} {note}" for note in heard.notes)]
    about = {
        "model": found.name,
        "mode": recogniser.encoder.mode,
        "latency_s": round(recogniser.encoder.latency_s, 3),
        **delays.summary(),
        "clipped_share": round(clipping.share, 4),
        "warnings": warnings,
    }
    if as_json:
        print(json.dumps({"text": final.text, **about}, ensure_ascii=False), flush=True)
    else:
        _say(about)
    for warning in warnings:
        print(f"malgil: warning: {warning}", file=sys.stderr)


def _shower(as_json: bool) -> Callable[[Partial], None]:
    """How a partial is shown: as JSON, over itself on a terminal that can, or line by line."""
    if as_json:
        return _json_line
    in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return Screen(sys.stdout).show if in_place else _line


def _json_line(partial: Partial) -> None:
    from dataclasses import asdict

    print(json.dumps(asdict(partial), ensure_ascii=False), flush=True)


def _line(partial: Partial) -> None:
    """A final text as it is, a text that grows behind a tilde."""
    print(partial.text if partial.final else f"~ {partial.text}", flush=True)


def _say(about: Mapping[str, object]) -> None:
    """The delays, on standard error."""

    def seconds(name: str) -> str:
        return "–" if about[name] is None else f"{about[name]} s"

    print(
        f"{about['mode']} (latency {about['latency_s']} s): first text {seconds('first_partial_s')} "
        f"after its sound, final text {seconds('final_s')} after the last sound of a segment "
        f"and {seconds('end_s')} after the end; "
        f"{about['audio_s']} s at {about['times_real_time']}x real time",
        file=sys.stderr,
    )
