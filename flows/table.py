"""The table that ends a run, on the terminal (rich) and as a Prefect artifact (Markdown).

One list of sections from the summary serves both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Row = Sequence[str]
RECONCILIATION = "In, out, set aside"
WORDS = (
    RECONCILIATION,
    "Release",
    "Verdicts, with reasons",
)  # tables of text; the others hold figures after the first column


class Section(NamedTuple):
    """A titled table: the header's cells, then rows of as many."""

    title: str
    header: Row
    rows: Sequence[Row]


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """The tables of a summary; a line that never ran has none."""
    found = [_data(summary["data"])]
    if steps := summary["data"].get("reconciliation"):
        found.append(_reconciliation(steps))
    if summary["asr"]:
        found += [_asr(summary["asr"]), _voices(summary["asr"])]
    if summary["llm"]:
        found.append(_llm(summary["llm"]))
    if summary["end_to_end"]:
        found.append(_road(summary["end_to_end"]))
    found += [_reasons(summary["release"]), _release(summary["release"])]
    found.append(_stages(summary["stages"], summary["wall_s"]))
    return found


def print_table(summary: Mapping[str, Any]) -> None:
    """Prints the closing table to standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for section in sections(summary):
        table = Table(title=section.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, name in enumerate(section.header):
            numeric = number > 0 and section.title not in WORDS
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"Report: {summary['report']}    Figures: build/summary.json", soft_wrap=True)


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The same as Markdown, for the UI."""
    parts = []
    for title, header, rows in sections(summary):
        lines = [header, ["---"] * len(header), *rows]
        body = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        parts.append(f"## {title}\n\n{body}")
    return "\n\n".join([*parts, f"Report: `{summary['report']}`"])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def percent(fraction: float | None) -> str:
    """A fraction as per cent with two decimals; – if there is none."""
    return "–" if fraction is None else f"{fraction:.2%}"


def _reconciliation(steps: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        (
            f"{step['step']} ({step['unit']}s)",
            f"{step['in']}",
            f"{step['out']}",
            ", ".join(f"{number} {reason}" for reason, number in step["set_aside"].items()) or "–",
        )
        for step in steps
    ]
    return Section(RECONCILIATION, ("step", "in", "out", "set aside"), rows)


def _data(data: Mapping[str, Any]) -> Section:
    title = "Data: synthetic speech" if data["synthetic"] else "Data"
    header = ("utterances", "hours", "voices", "rejected rows")
    row = (f"{data['utterances']}", f"{data['hours']:.2f}", f"{data['voices']}", f"{data['quarantined']}")
    return Section(title, header, [row])


def _asr(asr: Mapping[str, Any]) -> Section:
    names = {
        "cer_unseen_sentences": "CER, unseen sentences",
        "cer_unseen_voices": "CER, unseen sentences and voices",
        "wer_unseen_sentences": "WER, unseen sentences",
        "wer_unseen_voices": "WER, unseen sentences and voices",
        "cer_with_silence": "CER, silence added",
        "cer_joined": "CER, utterances joined",
        "cer_unseen_sentences_greedy": "CER, unseen sentences, without n-gram model",
        "cer_unseen_voices_greedy": "CER, unseen sentences and voices, without",
        "cer_ood": "CER, out of domain",
        "cer_ood_greedy": "CER, out of domain, without n-gram model",
    }
    before, shipped = asr["checkpoint"], asr["onnx_int8"]
    if shipped.get("cer_ood") is None:
        names = {key: said for key, said in names.items() if key != "cer_ood_greedy"}
        names["cer_ood"] = "CER, out of domain: no such slice"
    rows = [(said, _rate(before, key), _rate(shipped, key)) for key, said in names.items()]
    return Section(
        "Speech recognition (CER without spaces; the checkpoint on plain speech only)",
        ("", "checkpoint", "shipped ONNX int8"),
        rows,
    )


def _rate(rates: Mapping[str, Any], key: str) -> str:
    """A rate with its interval, where it has one."""
    ends = rates.get(f"{key}_interval")
    between = f" ({percent(ends[0])} to {percent(ends[1])})" if ends else ""
    return percent(rates.get(key)) + between


def _voices(asr: Mapping[str, Any]) -> Section:
    before, shipped = asr["checkpoint"]["cer_by_voice"], asr["onnx_int8"]["cer_by_voice"]
    rows = [(voice, percent(before.get(voice)), percent(shipped[voice])) for voice in sorted(shipped)]
    return Section("CER per voice", ("voice", "checkpoint", "shipped ONNX int8"), rows)


def _llm(llm: Mapping[str, Any]) -> Section:
    rows = []
    for name, rate in llm["exact_match"].items():
        size, speed = llm["bytes"].get(name), llm["tokens_per_s"].get(name)
        label = f"{name} (serves)" if name == llm["serves"] else name
        megabytes = "–" if size is None else f"{size / 1e6:.1f}"
        rows.append(
            (
                label,
                percent(rate),
                f"{llm['answered'][name]}",
                megabytes,
                "–" if speed is None else f"{speed:.0f}",
            )
        )
    title = "Language model: tool calls from true text"
    return Section(title, ("", "exact match", "commands", "MB", "tokens/s"), rows)


def _road(road: Mapping[str, Any]) -> Section:
    rows = [
        ("unseen sentences", percent(road["exact_match_unseen_sentences"])),
        ("unseen sentences and voices", percent(road["exact_match_unseen_voices"])),
    ]
    return Section("Spoken command to correct tool call, shipped files", ("", "exact match"), rows)


def _release(release: Mapping[str, Any]) -> Section:
    rows = []
    for line, result in release.items():
        version = "–" if result["version"] is None else f"{result['version']}"
        alias = result["alias"] or "–"
        rows.append((line, result["verdict"], version, alias, result["published"] or "–"))
    return Section("Release", ("line", "verdict", "version", "alias", "published"), rows)


def _reasons(release: Mapping[str, Any]) -> Section:
    rows = [(line, reason) for line, result in release.items() for reason in result["reasons"]]
    return Section("Verdicts, with reasons", ("line", "reason"), rows)


def _stages(stages: Mapping[str, Any], wall_s: float) -> Section:
    rows = [
        (name, f"{run['seconds']:.1f}", f"{run['peak_rss_mb']:.0f}", "cached" if run["cached"] else "made")
        for name, run in stages.items()
    ]
    rows.append(("whole run (wall)", f"{wall_s:.1f}", "", ""))
    return Section("Stages", ("stage", "s", "peak MB", ""), rows)
