"""build/summary.json: the figures of a run, for programs. Schema: docs/reference/summary.schema.json.

Pure reading: figures come from the stages' files, verdicts from the release, times from the flow. Rates
are fractions. A line that was never run has null where its figures would stand.
"""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps import StageRun
from tasks.artifacts import read_json
from tasks.cpu import describe_cpu, model_name
from tasks.settings import Params

if TYPE_CHECKING:
    from tasks.release.release import Line, ReleaseResult

SUMMARY = Path("build/summary.json")
ASR_KEYS = (
    "cer_unseen_sentences",
    "cer_unseen_voices",
    "wer_unseen_sentences",
    "wer_unseen_voices",
    "cer_by_voice",
    "cer_with_silence",
    "cer_joined",
    "cer_unseen_sentences_greedy",
    "cer_unseen_voices_greedy",
)
# Not in the evaluations of earlier versions of Malgil; null there, and out of domain without such a slice.
ASR_LATER_KEYS = (
    "cer_ood",
    "cer_ood_greedy",
    "cer_ood_by_kind",
    "wer_ood",
    "wer_space_normalised_unseen_sentences",
    "wer_space_normalised_unseen_voices",
    "wer_space_normalised_ood",
    "cer_unseen_sentences_interval",
    "cer_unseen_voices_interval",
    "cer_ood_interval",
)
PACKAGES = (
    "malgil",
    "torch",
    "transformers",
    "peft",
    "prefect",
    "mlflow",
    "dvc",
    "great-expectations",
    "onnxruntime",
    "gguf",
    "cyllama",
    "espeakng-loader",
)


def build_summary(
    build: Path,
    params: Params,
    results: "Mapping[Line, ReleaseResult]",
    stages: Mapping[str, StageRun],
    report: Path,
    *,
    wall_s: float,
) -> dict[str, Any]:
    """Collects the summary of a run.

    Args:
        build: the folder of the stages' outputs.
        params: the settings of this run.
        results: what the release of each line came to.
        stages: what each stage cost in this run.
        report: path of the report.
        wall_s: time from the first stage to the report, s.

    Raises:
        ArtifactError: a stage's file is missing or not JSON.
    """
    asr = build / "asr/evaluation/metrics.json"
    llm = build / "llm/evaluation/metrics.json"
    road = build / "road/metrics.json"
    return {
        "data": data_figures(build),
        "asr": asr_figures(read_json(asr)) if asr.is_file() else None,
        "llm": llm_figures(read_json(llm), params.evaluate_road.quantisation) if llm.is_file() else None,
        "end_to_end": road_figures(read_json(road)) if road.is_file() and "evaluate_road" in stages else None,
        "release": {line: dict(result) for line, result in results.items()},
        "stages": {name: stage.summary() for name, stage in stages.items()},
        "report": report.as_posix(),
        "wall_s": round(wall_s, 1),
        "machine": machine(),
        "versions": versions(),
    }


def data_figures(build: Path) -> dict[str, Any]:
    """Size of the validated corpus, the number of quarantined rows, and what went in and came out."""
    import pyarrow.parquet as pq

    table = pq.read_table(build / "validated/manifest.parquet", columns=["duration_s", "speaker"])
    quarantined = pq.read_metadata(build / "validated/quarantine.parquet").num_rows
    result = read_json(build / "validated/result.json")
    return {
        "utterances": table.num_rows,
        "hours": round(sum(table.column("duration_s").to_pylist()) / 3600, 4),
        "voices": len(set(table.column("speaker").to_pylist())),
        "quarantined": quarantined,
        "synthetic": bool(result["synthetic"]),
        "reconciliation": result.get("reconciliation", []),  # none in results of earlier versions
    }


def asr_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Error rates of the checkpoint and of the shipped file."""
    return {
        name: {key: metrics[name][key] for key in ASR_KEYS}
        | {key: metrics[name].get(key) for key in ASR_LATER_KEYS}
        for name in ("checkpoint", "onnx_int8")
    }


def llm_figures(metrics: Mapping[str, Any], serves: str) -> dict[str, Any]:
    """Exact match, size and speed of each form of the language model; `serves` is the type that ships."""
    return {key: metrics[key] for key in ("exact_match", "bytes", "tokens_per_s")} | {
        "examples": metrics["n"],
        "answered": metrics["answered"],
        "serves": serves,
    }


def road_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Spoken command to tool call, through the shipped files."""
    return {key: metrics[key] for key in ("exact_match_unseen_sentences", "exact_match_unseen_voices")}


def machine() -> dict[str, Any]:
    """The machine of this run."""
    import psutil

    return {
        "cpu": model_name(),
        "instruction_sets": describe_cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu(),
        "system": f"{platform.system()} {platform.release()}",
    }


def gpu() -> str | None:
    """Name of the first NVIDIA GPU, asked of the driver, not of torch (its import takes seconds)."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = said.stdout.split("\n") if said.returncode == 0 else [""]
    return names[0].strip() or None


def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that figures depend on; null where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
