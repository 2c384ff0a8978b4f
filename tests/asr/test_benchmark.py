"""The benchmark runs end to end on small shapes, and keeps what other parts have measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.artifacts import read_json, write_json

ROOT = Path(__file__).parents[2]


def test_the_benchmark_of_transcription_runs_and_says_what_it_ran(
    prepared: Path, checkpoint: Path, shipped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "asr.json"
    write_json(out, {"synthetic": True, "parts": {"memory": {"rows": []}}})
    command = [sys.executable, str(ROOT / "benchmarks/asr.py"), "--quick", "--part", "transcription"]
    command += ["--prepared", str(prepared), "--checkpoint", str(checkpoint), "--shipped", str(shipped)]
    ended = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, cwd=ROOT, env={**os.environ}
    )
    assert ended.returncode == 0, ended.stderr
    found = read_json(out)
    assert found["synthetic"] is True and set(found["parts"]) == {"memory", "transcription"}
    part = found["parts"]["transcription"]
    assert part["quick"] and part["versions"]["torch"] and len(part["commit"]) == 40
    assert {row["detail"]["threads"] for row in part["rows"]} == {1, os.cpu_count()}
    for row in part["rows"]:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        times = row["detail"]["median_s"]
        peers = [took for name, took in times.items() if name.startswith("pipeline")]
        assert times[row["detail"]["peer"]] == min(peers) and len(peers) == 3
        same = row["detail"]["texts as of pipeline, batch size 1"]
        assert same["torch"] == same["pipeline, batch size 1"] == 4
        assert f"| {row['figure']} |" in ended.stdout
