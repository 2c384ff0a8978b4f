"""Everything the report says, as one JSON value, read from the files that the stages wrote.

A part whose stage did not run (`malgil run --line asr`) is None, even when files of an earlier run lie there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.artifacts import read_json, sha256_file
from tasks.data.manifest import OUT_OF_DOMAIN
from tasks.report.confusion import argument_errors, confuse
from tasks.report.marks import aligned_words, summary
from tasks.tracking import read_history

WORST = 12  # utterances shown
WRONG_CALLS = 8
SHIPPED = "onnx_int8"
FROM_SCRATCH = Path("benchmarks/results/asr_from_scratch.json")
Facts = dict[str, Any]


def read_facts(build_dir: Path, release: Mapping[str, Any], stages: Mapping[str, Any], root: Path) -> Facts:
    """The report's content.

    Args:
        build_dir: what the stages wrote.
        release: line ("asr", "llm") to verdict, reasons, version, alias, published.
        stages: DVC stage to seconds, peak_rss_mb, cached; a line is in the report when its evaluation is
        among
            them. Empty: whatever lies in build_dir is.
        root: the project's folder, for the from-scratch experiment.

    Raises:
        ArtifactError: a file is not what its stage writes.
    """

    def made(stage: str, path: str) -> bool:
        return (not stages or stage in stages) and (build_dir / path).is_file()

    validation = build_dir / "validated/result.json"
    scratch = root / FROM_SCRATCH
    road = made("evaluate_road", "road/metrics.json")
    return {
        "data": read_json(validation) if validation.is_file() else None,
        "asr": asr_facts(build_dir) if made("evaluate_asr", "asr/evaluation/metrics.json") else None,
        "llm": llm_facts(build_dir) if made("evaluate_llm", "llm/evaluation/metrics.json") else None,
        "road": road_facts(build_dir / "road") if road else None,
        "release": {line: dict(result) for line, result in release.items()},
        "stages": {name: dict(cost) for name, cost in stages.items()},
        "from_scratch": read_json(scratch) if scratch.is_file() else None,
    }


def asr_facts(build_dir: Path) -> Facts:
    """Rates of both systems, CER per voice, curves, and the worst utterances with their alignment: of the
    utterances in domain, and of every slice.
    """
    metrics = read_json(build_dir / "asr/evaluation/metrics.json")
    table = pd.read_parquet(build_dir / "asr/evaluation/utterances.parquet")
    plain = table[(table["system"] == SHIPPED) & (table["condition"] == "plain")]
    unseen = set(plain.loc[plain["split"] == "test_voices", "speaker"])
    by_voice = {name: metrics[name]["cer_by_voice"] for name in ("checkpoint", SHIPPED)}
    voices = [
        {
            "voice": voice,
            "unseen": voice in unseen,
            "cer": rate,
            "cer_checkpoint": by_voice["checkpoint"].get(voice),
        }
        for voice, rate in sorted(
            by_voice[SHIPPED].items(), key=lambda item: (item[0] not in unseen, -item[1])
        )
    ]
    return {
        "metrics": metrics,
        "voices": voices,
        "worst": worst_utterances(plain[plain["split"] != OUT_OF_DOMAIN]),
        "gallery": gallery(table[table["system"] == SHIPPED], metrics[SHIPPED].get("slices", [])),
        "history": read_history(build_dir / "asr/training/history.jsonl"),
        "training": _read(build_dir / "asr/training/result.json"),
    }


def worst_utterances(plain: pd.DataFrame) -> list[Facts]:
    """The utterances with the highest error rate, worst first; those without an error are not among them."""
    wrong = plain[(plain["edits"] > 0) & (plain["characters"] > 0)].copy()
    wrong["cer"] = wrong["edits"] / wrong["characters"]
    shown = wrong.sort_values(["cer", "edits", "utterance_id"], ascending=[False, False, True]).head(WORST)
    return [marked(row) for row in _records(shown)]


def gallery(table: pd.DataFrame, slices: Sequence[Facts]) -> list[Facts]:
    """The worst utterances of every slice that has errors and is not a single speaker:
    {"group", "slice", "worst"}.
    """
    found = []
    for one in slices:
        if one["group"] not in ("domain", "speaker") and one["worst"]:
            condition = one["slice"] if one["group"] == "condition" else "plain"
            rows = table[table["condition"] == condition].set_index("utterance_id", drop=False)
            worst = [marked(row) for row in _records(rows.loc[one["worst"]])]
            found.append({"group": one["group"], "slice": one["slice"], "worst": worst})
    return found


def marked(row: Mapping[str, Any]) -> Facts:
    """An utterance of the evaluation with its error rate and its alignment, column by column."""
    words = aligned_words(row["reference"], row["hypothesis"])
    keep = ("utterance_id", "condition", "speaker", "split", "reference", "hypothesis", "edits", "characters")
    return {name: row[name] for name in keep} | {
        "cer": row["edits"] / row["characters"],
        "errors": summary(words),
        "words": [[list(pair) for pair in word] for word in words],
    }


def llm_facts(build_dir: Path) -> Facts:
    """Exact match, size and speed per form of the model, curves; errors of the one that serves."""
    folder = build_dir / "llm"
    metrics = read_json(folder / "evaluation/metrics.json")
    systems = [
        {
            "system": name,
            "exact_match": rate,
            "bytes": metrics.get("bytes", {}).get(name),
            "tokens_per_s": metrics.get("tokens_per_s", {}).get(name),
            "answered": metrics.get("answered", {}).get(name),
        }
        for name, rate in metrics["exact_match"].items()
    ]
    serves = _serving(build_dir, [system["system"] for system in systems])
    samples = pd.read_parquet(folder / "evaluation/samples.parquet")
    own = _records(samples[samples["system"] == serves])
    wrong = [row for row in own if not row["exact"]][:WRONG_CALLS]
    return {
        "metrics": metrics,
        "systems": systems,
        "serves": serves,
        "confusion": confuse(own),
        "argument_errors": argument_errors(own),
        "wrong": [
            {name: row[name] for name in ("id", "written", "reference", "hypothesis")} for row in wrong
        ],
        "history": read_history(folder / "training/history.jsonl"),
        "training": _read(folder / "training/result.json"),
        "verification": _read(folder / "verification.json"),
        "artifacts": {path.name: sha256_file(path) for path in sorted(folder.glob("gguf/*.gguf"))},
    }


def road_facts(folder: Path) -> Facts:
    """Spoken command to tool call, and on which side of the transcript the failures lie."""
    samples = pd.read_parquet(folder / "samples.parquet")
    heard = samples["transcript_reference"].map(_letters) == samples["transcript_hypothesis"].map(_letters)
    sides = [
        {
            "split": str(split),
            "n": len(rows),
            "right_from_right": int((heard[rows.index] & rows["exact"]).sum()),
            "right_from_wrong": int((~heard[rows.index] & rows["exact"]).sum()),
            "wrong_from_right": int((heard[rows.index] & ~rows["exact"]).sum()),
            "wrong_from_wrong": int((~heard[rows.index] & ~rows["exact"]).sum()),
        }
        for split, rows in samples.groupby("split", sort=True)
    ]
    shown = (
        "utterance_id",
        "speaker",
        "transcript_reference",
        "transcript_hypothesis",
        "reference",
        "hypothesis",
    )
    wrong = [
        {name: row[name] for name in shown} for row in _records(samples[~samples["exact"]])[:WRONG_CALLS]
    ]
    return {"metrics": read_json(folder / "metrics.json"), "sides": sides, "wrong": wrong}


def _serving(build_dir: Path, systems: list[str]) -> str:
    """The form whose errors are shown: the one that the road used, else the first quantised one."""
    road = _read(build_dir / "road/metrics.json") or {}
    if road.get("quantisation") in systems:
        return str(road["quantisation"])
    quantised = [name for name in systems if name not in ("base", "merged")]
    return (quantised or systems)[0]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _letters(text: object) -> str:
    return "".join(str(text).split())


def _read(path: Path) -> Any:
    return read_json(path) if path.is_file() else None
