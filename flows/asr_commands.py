"""The commands `malgil asr ...`: a finished recogniser at work.

    malgil asr transcribe PATHS... [--format text|json|srt|vtt|textgrid] [--out DIR]
    malgil asr study [--so-far]
    malgil asr embed PATHS... --out FILE
    malgil asr stream FILE|-
    malgil asr evaluate --model FOLDER|HUB_ID --data TABLE|FOLDER|HUB_ID

The bodies are in tasks/asr; what is slow to import is imported by the command that needs it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.asr_embed import embed
from flows.asr_evaluate import evaluate
from flows.asr_recogniser import Backend, Decoder, choose_search, load_recogniser
from flows.asr_stream import stream
from flows.asr_study import study
from flows.console import log_to_console
from flows.environment import take_every_core
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.asr.recordings.formats import Transcription
    from tasks.asr.recordings.sources import Failure

asr = typer.Typer(name="asr", help="Use a trained recogniser.", no_args_is_help=True)
asr.command()(study)
asr.command()(embed)
asr.command()(stream)
asr.command()(evaluate)


class Format(StrEnum):
    """How transcriptions are written."""

    text = "text"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    textgrid = "textgrid"


SUFFIXES = {
    Format.text: ".txt",
    Format.json: ".json",
    Format.srt: ".srt",
    Format.vtt: ".vtt",
    Format.textgrid: ".TextGrid",
}


@asr.command()
def transcribe(
    paths: Annotated[list[str], typer.Argument(help="audio files, folders, globs; - is standard input")],
    form: Annotated[Format, typer.Option("--format", help="what is written")] = Format.text,
    model: Annotated[
        str | None,
        typer.Option(help="recogniser: a folder, or a Hub id; build/asr/shipped or build/asr/checkpoint"),
    ] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="the shipped ONNX file or the torch checkpoint; as --model holds")
    ] = None,
    decoder: Annotated[
        Decoder | None, typer.Option(help="the best symbols, a beam search, or one with an n-gram model")
    ] = None,
    beam_size: Annotated[
        int | None, typer.Option(min=1, max=1000, help="hypotheses kept per frame (beam, lm)")
    ] = None,
    lm: Annotated[
        Path | None, typer.Option(help="your own n-gram model, of symbols or words: ARPA, gzipped or not")
    ] = None,
    hot_word: Annotated[
        list[str] | None, typer.Option(help="a word or phrase to expect; several times for several")
    ] = None,
    hot_words: Annotated[Path | None, typer.Option(help="file with a hot word per line")] = None,
    hot_word_weight: Annotated[
        float | None, typer.Option(min=0.0, max=20.0, help="nats per symbol of a hot word; 3")
    ] = None,
    batch_seconds: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="padded audio per batch, in seconds (torch)")
    ] = 10.0,
    out: Annotated[Path | None, typer.Option(help="folder for one file per recording")] = None,
) -> None:
    """Text, subtitles and word times of recordings of any length."""
    from tasks.asr.recordings import sources

    log_to_console()
    take_every_core()
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # whatever the locale says
    with tempfile.TemporaryDirectory(prefix="malgil-") as scratch:
        found = sources.find_sources(paths, sys.stdin.buffer, Path(scratch))
        if len(found) > 1 and out is None and form not in (Format.text, Format.json):
            raise DataError(
                f"--format {form} for {len(found)} recordings",
                f"a {form} file holds one",
                "name a folder: --out DIR",
            )
        files = sources.output_files(found, out, SUFFIXES[form]) if out else {}
        acoustic, name = load_recogniser(model, backend, batch_seconds)
        acoustic.search = choose_search(
            acoustic, decoder, beam_size, lm, hot_word, hot_words, hot_word_weight
        )

        from tasks.asr.transcribe import total_seconds
        from tasks.asr.transcribe import transcribe as results
        from tasks.progress import Progress

        with Progress("transcribe", total_seconds(found), "s of audio") as progress:
            failures, warnings = _write(
                results(found, acoustic, progress=progress), form, files, len(found) > 1, name
            )
    for warning in warnings:
        print(f"malgil: warning: {warning}", file=sys.stderr)
    for failure in failures:
        print(f"malgil: {type(failure.error).__name__}: {failure.told()}", file=sys.stderr)
    if failures:
        print(f"malgil: {len(failures)} of {len(found)} recordings have no text", file=sys.stderr)
        raise typer.Exit(DataError.exit_code)


def _write(
    results: Iterator[Transcription | Failure],
    form: Format,
    files: Mapping[str, Path],
    several: bool,
    model: str,
) -> tuple[list[Failure], list[str]]:
    """Prints each result, or writes it to its file; JSON is printed at the end, as one list.

    Returns what has no text, and the warnings about what has.
    """
    from tasks.artifacts import write_text
    from tasks.asr.recordings import formats
    from tasks.asr.recordings.sources import Failure

    failures: list[Failure] = []
    listed: list[Transcription] = []
    warnings: list[str] = []
    for result in results:
        if isinstance(result, Failure):
            failures.append(result)
            continue
        warnings += result.warnings
        if files:
            write_text(files[result.path], _formatted(result, form, False, model))
        elif form is Format.json:
            listed.append(result)
        else:
            print(_formatted(result, form, several, model), end="", flush=True)
    if form is Format.json and not files:
        print(formats.as_json(listed, model), end="")
    return failures, warnings


def _formatted(transcription: Transcription, form: Format, several: bool, model: str) -> str:
    from tasks.asr.recordings import formats

    if form is Format.text:
        return formats.as_line(transcription, several)
    if form is Format.json:
        return formats.as_json([transcription], model)
    return {Format.srt: formats.as_srt, Format.vtt: formats.as_vtt, Format.textgrid: formats.as_textgrid}[
        form
    ](transcription)
