"""The command `malgil asr study`: how much less data transfer needs; see tasks/asr/transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console import log_to_console


def study(
    prepared: Annotated[Path, typer.Option(help="prepared speech to learn from")] = Path(
        "build/prepared/asr"
    ),
    out: Annotated[Path, typer.Option(help="folder for asr_transfer.json and .svg")] = Path(
        "benchmarks/results"
    ),
    work: Annotated[Path, typer.Option(help="folder of finished runs")] = Path("build/work/study_asr"),
    params: Annotated[Path, typer.Option(help="settings file")] = Path("params.yaml"),
    so_far: Annotated[bool, typer.Option("--so-far", help="write from the runs done, start none")] = False,
) -> None:
    """Measure Korean CER by amount of data: from scratch, transfer head-only, transfer full."""
    from tasks.asr.transfer import study as body
    from tasks.params import load

    log_to_console()
    settings = load(params)
    report = body.study(
        settings.study_asr, settings.train_asr, prepared=prepared, out_dir=out, work_dir=work, so_far=so_far
    )
    print("\n".join(lines_of(report)))
    print(f"written: {out / body.NAME}.json and .svg")


def lines_of(report: dict[str, Any]) -> list[str]:
    """The study as text: means with their spread, then what the plot says about the claim."""
    lines = [f"{report['what']} (synthetic speech)", "method      utterances  CER mean (lowest to highest)"]
    for row in report["table"]:
        spread = f"({row['lowest_cer']:.1%} to {row['highest_cer']:.1%}), {row['seeds']} seeds"
        lines.append(f"{row['method']:<11} {row['utterances']:>10}  {row['mean_cer']:.1%} {spread}")
    lines += [
        "in twice the steps: {method}, {utterances} utterances, seed {seed}: CER {cer:.1%}".format(**run)
        for run in report["runs"]
        if run["stretch"] > 1
    ]
    lines += [f"note: {said}" for said in report["caveats"]]
    for method, entries in report["reading"].items():
        lines.append(f"{report['claim']}, in these steps ({method}): {report['verdict'][method]}")
        lines += [_explained(entry) for entry in entries]
    return lines


def _explained(entry: dict[str, Any]) -> str:
    low, high = entry["ratio"]
    ratio = f"at least {low:.1f}x" if high is None else f"{low:.1f}x"
    if high is not None and high > low:
        ratio = f"{low:.1f}x to {high:.1f}x"
    slow, quick = _bounds(entry["slow"]), _bounds(entry["quick"])
    end = " (it never gets there)" if entry["slow"][1] is None else ""
    return (
        f"  CER {entry['level']:.1%}: from scratch {slow}{end}, transfer {quick}; {ratio}, {entry['verdict']}"
    )


def _bounds(needed: list[float | None]) -> str:
    low, high = needed
    if high is None:
        return f"more than {low:,.0f}"
    return f"{high:,.0f}" if low == high else f"at most {high:,.0f}"
