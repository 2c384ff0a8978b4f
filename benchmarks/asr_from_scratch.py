"""The same fine-tuning with and without the pre-trained encoder, side by side in one file.

It trains nothing itself: it puts together the histories of two runs of `tasks.asr.train` that differ in
`train_asr.from_scratch` alone, and refuses two that differ in anything else.

    python -m tasks.asr.train --params PARAMS_WITH_FROM_SCRATCH --out-dir
build/experiments/scratch/checkpoint \
        --training-dir build/experiments/scratch/training --work-dir build/experiments/scratch/work
    python benchmarks/asr_from_scratch.py --pretrained build/asr/training \
        --scratch build/experiments/scratch/training --out benchmarks/results/asr_from_scratch.json
"""

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.artifacts import read_json, sha256_file, write_json
from tasks.tracking import read_history

SAME = ("steps", "training_hours", "parameters", "normaliser", "threads", "device", "encoder")


def main() -> int:
    """Reads both training folders and writes the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = {"pretrained": read_run(arguments.pretrained), "from_scratch": read_run(arguments.scratch)}
    first, second = (run["result"] for run in runs.values())
    different = [name for name in SAME if first[name] != second[name]]
    if different or first["from_scratch"] or not second["from_scratch"]:
        print(
            f"the runs differ in {', '.join(different) or 'nothing: one must be from scratch'}",
            file=sys.stderr,
        )
        return 2
    comparison = {
        "what": "fine-tuning on the built-in (synthetic) corpus; CER without spaces on the validation split",
        **runs,
        "compared_at_commit": commit(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": first["threads"]},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "numpy", "espeakng-loader")},
    }
    write_json(arguments.out, comparison)
    return 0


def read_run(folder: Path) -> dict[str, Any]:
    """result.json, the validation curve and the loss curve of a training folder."""
    history = read_history(folder / "history.jsonl")
    return {
        "result": read_json(folder / "result.json"),
        "history_sha256": sha256_file(folder / "history.jsonl"),
        "validation": [
            {name: row[name] for name in ("step", "seconds", "validation_cer", "validation_wer")}
            for row in history
            if "validation_cer" in row
        ],
        "loss": [[row["step"], round(row["loss"], 4)] for row in history if "loss" in row],
    }


def commit() -> str:
    """The commit of this checkout, where the histories were put together; the runs do not record theirs."""
    asked = ["git", "rev-parse", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def cpu_name() -> str:
    """The processor's name, or what the platform module says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    raise SystemExit(main())
