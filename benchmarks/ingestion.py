"""Ingestion: rows per second and peak memory of the door, for many short recordings of a user's own.

    python benchmarks/ingestion.py [--rows 100000] [--out results/ingestion.json]

The rows are synthetic (half a second of noise each, 16 kHz mono WAV, a few distinct files under many names)
and named by a CSV. The stages `commands` and `corpus` run as their commands do, each in a process of its own,
on one core. Making the rows is not measured; they are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from ruamel.yaml import YAML

from tasks.artifacts import write_json

ROOT = Path(__file__).resolve().parents[1]
DISTINCT = 64  # recordings; the others are names of the same bytes
RATE_HZ = 16_000
SECONDS = 0.5
SYLLABLES = "가나다라마바사아자차카타파하거너더러머버서어저처커터퍼허"
LOOK_S = 0.1


def make_rows(folder: Path, rows: int) -> Path:
    """`rows` recordings and the table that names them; every sentence is its own."""
    sounds = []
    for number in range(DISTINCT):
        path = folder / f"sound{number}.wav"
        noise = 0.1 * np.random.default_rng(number).standard_normal(int(SECONDS * RATE_HZ))
        soundfile.write(path, noise, RATE_HZ, subtype="PCM_16")
        sounds.append(path)
    lines = ["path,transcript,speaker"]
    for row in range(rows):
        place = folder / "clips" / f"{row // 1000:03d}"
        if row % 1000 == 0:
            place.mkdir(parents=True)
        os.link(sounds[row % DISTINCT], place / f"{row}.wav")
        words = "".join(SYLLABLES[row // len(SYLLABLES) ** power % len(SYLLABLES)] for power in range(4))
        lines.append(f"clips/{row // 1000:03d}/{row}.wav,{words} 켜 줘,s{row % 50}")
    table = folder / "rows.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def run(command: list[str]) -> dict[str, float]:
    """Wall seconds, CPU seconds and peak resident memory of a command on one core."""
    started = time.perf_counter()
    child = psutil.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    child.cpu_affinity(child.cpu_affinity()[:1])
    peak, cpu_s = 0, 0.0
    while child.poll() is None:
        try:
            with child.oneshot():
                peak = max(peak, child.memory_info().rss)
                times = child.cpu_times()
                cpu_s = times.user + times.system
        except psutil.Error:
            break
        time.sleep(LOOK_S)
    if child.wait():
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return {"wall_s": time.perf_counter() - started, "cpu_s": cpu_s, "peak_mb": peak / 1e6}


def measure(rows: int) -> dict[str, Any]:
    """The figures of both stages, and of the door as a whole."""
    with tempfile.TemporaryDirectory(prefix="malgil-ingestion-") as scratch:
        folder = Path(scratch)
        table = make_rows(folder, rows)
        settings = YAML().load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        settings["corpus"] |= {"source": "manifest", "manifest": str(table)}
        params = folder / "params.yaml"
        YAML().dump(settings, params)
        stages = {}
        for stage in ("commands", "corpus"):
            command = [sys.executable, "-m", f"tasks.data.{stage}", "--params", str(params)]
            command += ["--out-dir", str(folder / stage)]
            command += ["--commands", str(folder / "commands")] if stage == "corpus" else []
            stages[stage] = run(command)
        steps = json.loads((folder / "corpus/reconciliation.json").read_text(encoding="utf-8"))["steps"]
    corpus = stages["corpus"]
    return {
        "rows": rows,
        "seconds_of_audio_each": SECONDS,
        "rows_per_s_per_core": rows / corpus["cpu_s"],
        "rows_per_s": rows / corpus["wall_s"],
        "peak_mb": corpus["peak_mb"],
        "stages": stages,
        "reconciliation": steps,
    }


def main() -> None:
    """Measures, prints the figures as JSON, and writes them where asked."""
    parser = argparse.ArgumentParser(description="rows per second and peak memory of ingestion")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.rows)
    print(json.dumps(found, ensure_ascii=False, indent=2))
    if arguments.out:
        write_json(arguments.out, found)


if __name__ == "__main__":
    main()
