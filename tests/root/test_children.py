"""Children of tests are waited for as long as they work, and ended when they hang or run away."""

import subprocess
import sys

import psutil
import pytest

from tests import children


def test_outputs_and_code_come_back_and_input_arrives(monkeypatch):
    monkeypatch.setattr(children, "LOOK_S", 0.05)  # it is looked at many times before it ends
    code = (
        "import sys, time; time.sleep(0.5); print(sys.stdin.read()); print('e', file=sys.stderr); sys.exit(3)"
    )
    done = children.run([sys.executable, "-c", code], input="말길" * 100_000, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "말길" * 100_000 + "\n", "e\n")
    with pytest.raises(subprocess.CalledProcessError):
        children.run([sys.executable, "-c", "raise SystemExit(1)"], check=True)


@pytest.mark.parametrize("does", ["import signal; signal.pause()", "while True: pass"])
def test_a_child_that_hangs_or_runs_away_is_ended_with_its_own_children(monkeypatch, does):
    monkeypatch.setattr(children, "LOOK_S", 0.05)
    monkeypatch.setattr(children, "QUIET_S", 2.0)
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {does!r}]); print(p.pid, flush=True); p.wait()"
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        children.run([sys.executable, "-c", code], cpu_s=1.0, text=True)
    assert not psutil.pid_exists(int(caught.value.output))
