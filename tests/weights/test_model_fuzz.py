"""Broken and hostile files of weights never end or hang a process of ours: a small part of `fuzz_models.py`.

MALGIL_FUZZ_EXAMPLES says how many; the command of the benchmark opens thousands.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_mutated_file_of_weights_gives_a_traceback_a_crash_or_a_hang() -> None:
    wanted = int(os.environ.get("MALGIL_FUZZ_EXAMPLES", "120"))
    command = [sys.executable, str(ROOT / "benchmarks/fuzz_models.py"), "--inputs", str(wanted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["findings"] == [] and done.returncode == 0
    assert report["inputs"] == wanted
    assert set(report["outcomes"]) <= {"refused", "loaded_equal", "loaded_other"}
    assert report["outcomes"]["refused"] > wanted // 2
