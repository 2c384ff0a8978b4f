"""The report of `malgil asr evaluate`, on the terminal and in a folder. No command."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.table import Row, Section, percent
from tasks.errors import DataError, explain_os_error

if TYPE_CHECKING:
    from tasks.asr.judging.items import SetAside
    from tasks.asr.judging.recognise import Recognised

WRITTEN = ("metrics.json", "utterances.parquet", "set_aside.parquet")
NAMES = {
    "cer": "CER, without spaces",
    "cer_with_spaces": "CER, with spaces",
    "wer": "WER",
    "wer_space_normalised": "WER, spaced as the reference",
    "cer_greedy": "CER, without n-gram model",
}
_SHOWN = 10  # slices of one group, and rows of one reason


def check_out(folder: Path) -> None:
    """Refuses, before anything is computed, a folder that cannot take the report, or would lose by it.

    Raises:
        DataError: it is a file, or holds anything but an earlier evaluation.
        CapacityError: it cannot be written.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise DataError(
            f"--out {folder}: {there} is a file",
            "names a folder",
            "name a folder that is not there yet",
        )
    if not os.access(there if there != folder.absolute() else there.parent, os.W_OK | os.X_OK):
        raise explain_os_error(PermissionError(errno.EACCES, "not writable", str(there)))
    others = sorted({path.name for path in folder.iterdir()} - set(WRITTEN)) if folder.exists() else []
    if others:
        raise DataError(
            f"--out {folder} holds {', '.join(others[:3])}",
            "an evaluation takes the place of its folder, and that would be lost",
            "name a folder that is new, empty, or of an earlier evaluation",
        )


def write_report(
    folder: Path, report: Mapping[str, Any], heard: Sequence[Recognised], left: Sequence[SetAside]
) -> None:
    """metrics.json, utterances.parquet (a row per utterance and model) and set_aside.parquet, whole or not
    at all.
    """
    import pandas as pd

    from tasks.artifacts import new_folder, write_json, write_parquet
    from tasks.asr.judging.items import SetAside

    tables = []
    for number, (model, one) in enumerate(zip(report["models"], heard, strict=True), 1):
        table = one.table.drop(columns="block")
        table.insert(0, "model", number)
        table.insert(1, "model_name", model["name"])
        tables.append(table)
    with new_folder(folder) as new:
        write_json(new / "metrics.json", report)
        write_parquet(new / "utterances.parquet", pd.concat(tables, ignore_index=True))
        write_parquet(new / "set_aside.parquet", pd.DataFrame(left, columns=list(SetAside._fields)))


def print_report(report: Mapping[str, Any]) -> None:
    """Prints the tables to standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # names of models and columns are no markup

    console = Console()
    for section in sections(report):
        title = Text(section.title, style="bold")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for number, name in enumerate(section.header):
            table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    for line in sentences(report):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def sections(report: Mapping[str, Any]) -> Iterator[Section]:
    """The tables: rows, rates, slices."""
    from tasks.asr.judging.items import REASONS

    data, rows, models = report["data"], report["rows"], report["models"]
    synthetic = {"all": ": synthetic speech", "some": ": partly synthetic speech", None: ""}[
        data["synthetic"]
    ]
    counted = [("rows read", f"{rows['read']}")]
    counted += [(REASONS[reason], f"-{count}") for reason, count in rows["set_aside"].items()]
    yield Section(
        f"{data['name']}{synthetic}", ("", "rows"), [*counted, ("evaluated", f"{rows['evaluated']}")]
    )

    first, intervals = models[0], report["intervals"]
    title = (
        f"{first['utterances']} utterances, {first['speakers'] or 'unknown'} speakers, "
        f"{first['hours']:.2f} h; normaliser {report['normaliser']}, {intervals['confidence']:.0%} intervals "
        f"by {intervals['block']}"
    )
    rates = [(said, *(_rate(model, name) for model in models)) for name, said in NAMES.items()]
    rates.append(("times real time", *(f"{model['times_real_time']:g}" for model in models)))
    names = [model["name"] for model in models]
    if len(names) > 1:
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    yield Section(title, ("", *names), rates)
    if first["slices"]:
        yield _slices(models)


def _slices(models: Sequence[Mapping[str, Any]]) -> Section:
    """CER by slice; of a large group those with the highest."""
    several = len(models) > 1
    header = (
        "slice",
        "utterances",
        "speakers",
        *(f"CER {n}" if several else "CER" for n in _numbers(models)),
    )
    by_model = [{(row["group"], row["slice"]): row for row in model["slices"]} for model in models]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in models[0]["slices"]:
        groups.setdefault(row["group"], []).append(row)
    rows: list[Row] = []
    for group, own in groups.items():
        shown = own if len(own) <= _SHOWN else sorted(own, key=lambda row: -row["cer"])[:_SHOWN]
        for row in shown:
            rates = [_rate(found[group, row["slice"]], "cer") for found in by_model]
            rows.append((f"{group}: {row['slice']}", f"{row['utterances']}", f"{row['speakers']}", *rates))
        if len(own) > len(shown):
            rows.append((f"{group}: {len(own) - len(shown)} more, in --json", "", "", *("" for _ in models)))
    return Section("Slices", header, rows)


def _numbers(models: Sequence[Any]) -> Sequence[int]:
    return range(1, len(models) + 1)


def sentences(report: Mapping[str, Any]) -> Iterator[str]:
    """What stands below the tables: rows that were set aside, the comparison, what to beware of."""
    from tasks.asr.recordings.clipping import MOST

    shown: dict[str, int] = {}
    for one in report["set_aside"]:
        shown[one["reason"]] = count = shown.get(one["reason"], 0) + 1
        if count <= _SHOWN:
            path = one["path"] or "no path"
            yield f"set aside: {one['where']} ({path}), {one['reason']}: {one['detail']}".rstrip(": ")
    for reason, count in shown.items():
        if count > _SHOWN:
            yield f"set aside: {count - _SHOWN} more, {reason}; all are in --json and --out"
    yield from report["data"]["notes"]
    recordings = report["data"]["recordings"]
    yield from recordings[:_SHOWN]
    if len(recordings) > _SHOWN:
        yield f"{len(recordings) - _SHOWN} more such recordings; all are in --json and --out"
    if clipped := report["data"]["clipped"]:
        yield f"{clipped} recordings are clipped (more than {MOST:.0%} of their samples at full scale)"
    for model in report["models"]:
        if model["cer_interval"] is None:
            yield f"no interval: one {report['intervals']['block']} alone tells nothing of others"
            break
    if report["comparison"]:
        yield from _compared(report["comparison"], *(model["name"] for model in report["models"]))
    elif report["intervals"]["block"] == "utterance":
        yield (
            "no speakers are known: the intervals draw utterances, and are too narrow where one person says "
            "several; name the column of speakers (--speaker-column)"
        )


def _compared(found: Mapping[str, Any], first: str, second: str) -> Iterator[str]:
    verdict = found["verdict"] if found["verdict"].startswith("no") else f"the second is {found['verdict']}"
    low, high = (_points(end, sign) for end, sign in zip(found["interval"], "-+", strict=True))
    yield f"{second} (second) against {first} (first): {verdict}"
    yield (
        f"CER {percent(found['second'])} against {percent(found['first'])}, difference "
        f"{100 * found['difference']:+.2f} points, {found['confidence']:.0%} interval [{low}, {high}], "
        f"p = {found['p']:.3f} ({found['method']}, {found['blocks']} {found['block']}s)"
    )
    yield (
        f"the second makes fewer errors in {found['second_better']} utterances, more in "
        f"{found['second_worse']}, as many in {found['equal']}"
    )
    yield from found["notes"]


def _points(end: float | None, sign: str) -> str:
    return f"{sign}∞" if end is None else f"{100 * end:+.2f}"


def _rate(rates: Mapping[str, Any], name: str) -> str:
    """A rate with its interval, where it has one."""
    ends = rates[f"{name}_interval"]
    return percent(rates[name]) + (f" [{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]" if ends else "")
