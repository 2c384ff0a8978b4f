"""Children of tests are waited for as long as they work, and ended when they hang or run away."""

import subprocess
import sys
import time

import psutil
import pytest

from tests import children

ECHO = """
import sys, time
time.sleep(0.5)
print(sys.stdin.read())
print("e", file=sys.stderr)
raise SystemExit(3)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
child.wait()
"""


def test_outputs_and_code_come_back_and_input_arrives(monkeypatch):
    monkeypatch.setattr(children, "LOOK_S", 0.05)  # it is looked at many times before it ends
    done = children.run([sys.executable, "-c", ECHO], input=b"malgil" * 100_000, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "malgil" * 100_000 + "\n", "e\n")
    with pytest.raises(subprocess.CalledProcessError):
        children.run([sys.executable, "-c", "raise SystemExit(1)"], check=True)


@pytest.mark.parametrize("does", ["import signal; signal.pause()", "while True: pass"])
def test_a_child_that_hangs_or_runs_away_is_ended_with_its_own_children(monkeypatch, does):
    monkeypatch.setattr(children, "LOOK_S", 0.05)
    monkeypatch.setattr(children, "QUIET_S", 5.0)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, does], stdout=subprocess.PIPE, text=True)
    grandchild = int(parent.stdout.readline())
    with pytest.raises(subprocess.TimeoutExpired):
        children.communicate(parent, cpu_s=1.0)
    while runs(grandchild):
        time.sleep(0.01)


def runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
