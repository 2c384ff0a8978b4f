"""Damaged files of every format that libsndfile writes: accounted for or refused, in a child with a limit."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "benchmarks/fuzz_audio.py"
EXAMPLES = int(os.environ.get("MALGIL_FUZZ_EXAMPLES", "400"))


def test_no_damaged_file_is_halved_silently_crashes_or_hangs() -> None:
    command = [sys.executable, PROGRAM, "--inputs", str(EXAMPLES), "--seed", "20261129"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60 + EXAMPLES, check=False)
    found = json.loads(ended.stdout)
    assert found["inputs"] == EXAMPLES
    assert found["faults"] == {}
    outcomes = found["outcomes"]
    assert {"whole", "said", "refused: truncated", "refused: unreadable"} <= set(outcomes), "all were tried"
