"""Children end with their parent, however it ends; a project has one run at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import process
from flows.lock import hold_run_lock
from tasks.errors import CapacityError, ConflictError

ROOT = Path(__file__).parents[2]
# Starts a child that starts another, notes both pids, and waits.
PARENT = """
import os, sys
from pathlib import Path
from flows import process
grandchild = "import os, time; open('grandchild', 'w').write(str(os.getpid())); time.sleep(600)"
child = f'''
import os, subprocess, sys
open('child', 'w').write(str(os.getpid()))
subprocess.call([sys.executable, '-c', {grandchild!r}])
'''
process.run([sys.executable, "-c", child], log=Path("log"), environment=os.environ, on_line=print)
"""
HOLDER = """
import time
from flows.lock import hold_run_lock
with hold_run_lock():
    print("held", flush=True)
    time.sleep(600)
"""


def python(code: str, folder: Path, **options: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **options)  # type: ignore[call-overload]


def wait_until(condition: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_output_code_and_peak_memory_come_back(tmp_path: Path) -> None:
    code = "x = bytearray(300_000_000); print('말길'); raise SystemExit(7)"
    lines: list[str] = []
    ended = process.run(
        [sys.executable, "-c", code], log=tmp_path / "a/log", environment=os.environ, on_line=lines.append
    )
    assert (ended.code, lines, ended.stopped) == (7, ["말길"], False)
    assert 300 < ended.peak_rss_mb < 400
    assert process.tail(tmp_path / "a/log") == ["말길"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_when_the_parent_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    parent = python(PARENT, tmp_path)
    wait_until((tmp_path / "grandchild").exists)
    wait_until(lambda: (tmp_path / "grandchild").read_text())
    pids = [int((tmp_path / name).read_text()) for name in ("child", "grandchild")]
    assert all(map(psutil.pid_exists, pids))
    parent.send_signal(number)
    parent.wait()
    wait_until(lambda: not any(map(psutil.pid_exists, pids)))


def test_a_child_is_asked_to_end_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second SIGTERM means "at once" to many programs, Prefect's worker among them."""
    monkeypatch.chdir(tmp_path)
    polite = """
import signal, time
from pathlib import Path
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
Path("ready").touch()
while not asked:
    time.sleep(0.01)
time.sleep(1)
Path("asked").write_text(str(len(asked)))
"""
    child = process.start([sys.executable, "-c", polite], log=tmp_path / "log", environment=os.environ)
    wait_until(Path("ready").exists)
    process.stop(child)
    assert Path("asked").read_text() == "1"


# A server whose child has a session of its own and is deaf to SIGTERM.
SERVER = """
import subprocess, sys
child = "import os, signal, time; signal.signal(15, signal.SIG_IGN); open('orphan', 'w').write(str(os.getpid())); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True).wait()
"""


def test_what_a_killed_server_started_ends_with_it_in_whatever_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a Prefect worker starts its runs."""
    monkeypatch.chdir(tmp_path)
    server = [sys.executable, "-c", SERVER]
    watchdog = process.start(server, log=tmp_path / "log", environment=os.environ)
    wait_until(lambda: Path("orphan").exists() and Path("orphan").read_text())
    pid = int(Path("orphan").read_text())
    try:
        (itself,) = psutil.Process(watchdog.pid).children()
        itself.kill()
        assert watchdog.wait(60) != 0
        wait_until(lambda: not psutil.pid_exists(pid))
    finally:
        process.stop(watchdog)
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_second_run_is_told_who_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    holder = python(HOLDER, tmp_path, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match=f"pid {holder.pid}, since 20") as caught, hold_run_lock():
            pass
        assert caught.value.exit_code == 3
    finally:
        holder.kill()
        holder.wait()
    with hold_run_lock(), hold_run_lock():  # the kernel let go of it; inside it is the same one
        assert json.loads(Path("build/.run.lock").read_text())["pid"] == os.getpid()


def test_a_damaged_lock_file_does_not_stick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("build").mkdir()
    Path("build/.run.lock").write_text('{"pid": 1')
    with hold_run_lock():
        assert json.loads(Path("build/.run.lock").read_text())["pid"] == os.getpid()


def test_a_project_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("build").write_text("a file where a folder belongs")
    with pytest.raises(Exception, match="build") as caught, hold_run_lock():
        pass
    assert isinstance(caught.value, CapacityError) or "refused" in str(caught.value)
