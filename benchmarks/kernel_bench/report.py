"""Results of kernel benchmarks as a table and as JSON, with the machine, versions and commit behind them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "liger-kernel", "bitsandbytes", "peft", "transformers")


def circumstances(quick: bool, commit: str) -> dict[str, Any]:
    """GPU, driver, versions and commit. `commit`: where git cannot be asked."""
    found = {"quick": quick, "commit": commit or _git_commit(), "versions": _versions()}
    if not torch.cuda.is_available():
        return found | {"gpu": None, "note": "no GPU: the times are the interpreter's and mean nothing"}
    properties = torch.cuda.get_device_properties(0)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found | {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "driver": driver.stdout.strip(),
        "cuda": torch.version.cuda,
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    # with its build, which the metadata of PyPI's wheel leaves out
    return found | {"torch": str(torch.__version__)}


def _git_commit() -> str:
    answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def table(rows: Sequence[dict[str, Any]], limits: dict[str, float]) -> str:
    """Markdown: ours against the best peer, the ceilings reached, what fell short, what was not timed."""
    lines = [
        f"copy {limits['copy_bytes_per_s'] / 1e12:.2f} TB/s, "
        f"matmul {limits['matmul_flops_per_s'] / 1e12:.0f} TFLOP/s",
        "",
        "| op | ms (20–80%) | best peer | ratio | GB/s | of copy | TFLOP/s | peak MB | missed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = row["timings"].get("malgil")
        if ours is None:
            lines.append(f"| {row['name']} | {row['wrong'].get('malgil', 'not timed')} |" + " – |" * 7)
            continue
        best = row["best_peer"]
        against = (
            f"{best} {row['timings'][best]['median_ms']:.3g} ms | {row['ratios'][best]:.2f}x"
            if best
            else "– | –"
        )
        lines.append(
            f"| {row['name']} | {ours['median_ms']:.3g} ({ours['p20_ms']:.3g}–{ours['p80_ms']:.3g}) "
            f"| {against} "
            f"| {row['gb_per_s']:.0f} | {row['share_of_copy']:.0%} | {row['tflop_per_s']:.0f} "
            f"| {ours['peak_bytes'] / 2**20:.0f} | {'; '.join(row['missed']) or 'none'} |"
        )
        lines += [f"|   {name}: {why} |" + " |" * 8 for name, why in row["wrong"].items()]
    return "\n".join(lines) + "\n"


def load(path: Path) -> dict[str, Any]:
    """The results of earlier runs."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def save(results: dict[str, Any], path: Path) -> None:
    """Written beside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
