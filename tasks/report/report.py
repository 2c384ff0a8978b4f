"""One self-contained HTML page per run: figures, verdicts, curves, errors that can be heard, lineage.

    from tasks.report import write_report
    write_report(Path("build"), release, stages, Path("build/report.html"))

Not a DVC stage: it is written after the release, which it tells of. Nothing is computed here that a stage
has not measured, and nothing is loaded when the page is read (`tasks.data.page`).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tasks.artifacts import write_text
from tasks.data.chart_parts import percent
from tasks.data.charts import Interval, Point, Series, intervals, lines, scatter
from tasks.data.page import environment, without_nan
from tasks.report.clips import read_clips
from tasks.report.facts import SHIPPED, Facts, read_facts
from tasks.report.jamo_map import jamo_maps
from tasks.report.provenance import read_provenance

TEMPLATES = Path(__file__).parent / "templates"
LINES = ("asr", "llm")
PARTS_OF_A_RUN = ("history", "runs", "validation")
RUNS = {"pretrained": "from the pre-trained encoder", "from scratch": "from fresh weights"}


def write_report(
    build_dir: Path,
    release: Mapping[str, Mapping[str, Any]],
    stages: Mapping[str, Mapping[str, Any]],
    target: Path,
    *,
    root: Path | None = None,
) -> Path:
    """Writes the report of a run, whole or not at all.

    Args:
        build_dir: what the stages wrote.
        release: line ("asr", "llm") to {"verdict", "reasons", "version", "alias", "published"}; a line that
        was not
            released is absent.
        stages: DVC stage to {"seconds", "peak_rss_mb", "cached"}; decides which parts were in this run.
        target: the HTML file.
        root: the project's folder, with dvc.lock, git and benchmarks/; the current folder by default.

    Returns:
        `target`.

    Raises:
        ArtifactError: a file of build_dir is not what its stage writes.
        CapacityError: the disk is full or the folder read-only; an earlier report stays as it was.
    """
    root = root or Path.cwd()
    facts = read_facts(build_dir, release, stages, root)
    facts["lineage"] = read_provenance(build_dir, root, release or LINES)
    clips = read_clips(build_dir / "prepared/asr", audible(facts["asr"]) if facts["asr"] else [])
    write_text(target, render(without_nan(facts), clips))
    return target


def render(facts: Facts, clips: Mapping[str, str]) -> str:
    """The page.

    Args:
        facts: as `tasks.report.facts.read_facts`, with "lineage".
        clips: utterance id to data address of its audio.
    """
    asr, llm = facts["asr"], facts["llm"]
    return (
        environment(TEMPLATES)
        .get_template("run.html.j2")
        .render(
            facts=facts,
            clips=clips,
            shipped=SHIPPED,
            synthetic=is_synthetic(facts),
            asr_curves=asr_curves(asr["history"]) if asr else [],
            llm_curves=llm_curves(llm["history"]) if llm else [],
            sizes=size_chart(llm["systems"]) if llm else "",
            slices=slice_chart(asr["metrics"][SHIPPED].get("slices", [])) if asr else "",
            jamo_maps=jamo_maps(asr["metrics"][SHIPPED].get("jamo_counts", {})) if asr else [],
            scratch=scratch_curves(facts["from_scratch"]),
            slowest=max((cost["seconds"] for cost in facts["stages"].values()), default=0.0) or 1.0,
            worst_cer=max((voice["cer"] for voice in asr["voices"]), default=0.0) or 1.0 if asr else 1.0,
        )
    )


def audible(asr: Facts) -> list[str]:
    """Utterances whose audio the page carries if there is room: the worst in domain, then those out of
    domain. What was heard in another condition than plain is not in the prepared audio.
    """
    kinds = [
        part for part in asr["gallery"] if part["group"] == "out of domain" and part["slice"][:3] != "by "
    ]
    outside = [one for part in kinds for one in part["worst"]]
    return list(dict.fromkeys(one["utterance_id"] for one in [*asr["worst"], *outside]))


def slice_chart(slices: Sequence[Mapping[str, Any]]) -> Markup:
    """CER of every slice but single speakers, with its interval; a hollow mark without the n-gram model."""
    rows = []
    for one in slices:
        if one["group"] != "speaker":
            low, high = one["cer_interval"] or (None, None)
            rows.append(Interval(one["slice"], one["cer"], low, high, one["cer_greedy"]))
    return intervals(
        rows,
        label="CER by slice with interval",
        x_label="CER (%)",
        y_label="slice (name)",
        names=("as served, with its interval", "greedy, without the n-gram model"),
        write=percent,
    )


def is_synthetic(facts: Facts) -> bool:
    """Whether the speech is synthetic; unknown counts as synthetic, lest a figure look better than it is."""
    data = facts["data"]
    return True if data is None else bool(data.get("synthetic", True))


def asr_curves(history: Sequence[Mapping[str, float]]) -> list[tuple[str, Markup]]:
    """Training loss, and error rates on the validation split."""
    rates = [
        series("CER without spaces", history, "validation_cer"),
        series("CER with spaces", history, "validation_cer_with_spaces"),
        series("WER", history, "validation_wer"),
    ]
    return [
        ("CTC loss", _lines([series("training loss", history, "loss")], "CTC loss", "loss per jamo (nats)")),
        (
            "Error rates on the validation split",
            _lines(rates, "Validation error rates", "error rate (%)", share=True),
        ),
    ]


def llm_curves(history: Sequence[Mapping[str, float]]) -> list[tuple[str, Markup]]:
    """Loss on the completions of both splits, and exact match on the validation split."""
    losses = [series("training", history, "loss"), series("validation", history, "validation_loss")]
    exact = [series("exact match", history, "validation_exact")]
    return [
        ("Loss on the tool call", _lines(losses, "Loss on the tool call", "loss per token (nats)")),
        (
            "Exact match on the validation split",
            _lines(exact, "Validation exact match", "exact match (%)", share=True),
        ),
    ]


def size_chart(systems: Sequence[Mapping[str, Any]]) -> Markup:
    """Exact match against file size, one mark per form of the model."""
    points = [
        Point(one["system"], one["bytes"] / 1e6, one["exact_match"])
        for one in systems
        if one["bytes"] and one["system"] != "base"
    ]
    label = "Exact match against size"
    return scatter(points, label=label, x_label="file size (MB)", y_label="exact match (%)", write=percent)


def scratch_curves(experiment: Mapping[str, Any] | None) -> Markup:
    """Validation CER of every training run of the from-scratch experiment, each by its name."""
    runs = [
        series(RUNS.get(name, name), rows, "validation_cer")
        for name, rows in find_histories(experiment or {})
    ]
    if not runs:
        return Markup("")
    return _lines(runs, "Fine-tuning against training from scratch", "CER (%)", share=True)


def find_histories(value: Any, name: str = "") -> Iterator[tuple[str, list[dict[str, float]]]]:
    """Every list of {"step", "validation_cer", …} rows inside a JSON value, by the nearest key that names a
    run and not what stands in it.
    """
    if isinstance(value, list):
        rows = [row for row in value if isinstance(row, dict) and "step" in row and "validation_cer" in row]
        if rows:
            yield name, rows
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from find_histories(part, name if key in PARTS_OF_A_RUN else key.replace("_", " "))


def series(name: str, history: Sequence[Mapping[str, float]], key: str) -> Series:
    """The (step, value) points of the rows of a history that have `key`."""
    return Series(
        name, [(float(row["step"]), float(row[key])) for row in history if row.get(key) is not None]
    )


def _lines(drawn: Sequence[Series], label: str, y_label: str, share: bool = False) -> Markup:
    if share:
        return lines(drawn, label=label, x_label="training (steps)", y_label=y_label, write=percent)
    return lines(drawn, label=label, x_label="training (steps)", y_label=y_label)
