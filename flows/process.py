"""Child processes that never outlive this one, each in a session of its own under `flows/watchdog.py`.

`run` waits and streams the output; `start` leaves a server running. `stop_all` ends every one that is
waited for; the death of this process, however it dies, ends servers too.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tasks.errors import explain_os_error

WATCHDOG = Path(__file__).with_name("watchdog.py")
Child = subprocess.Popen[bytes]
_children: set[Child] = set()
_stopping = threading.Event()


class Finished(NamedTuple):
    """How a child ended."""

    code: int  # negative: the signal that ended it
    seconds: float
    peak_rss_mb: float  # of the largest single process of its tree
    stopped: bool  # because we asked


def run(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], on_line: Callable[[str], None]
) -> Finished:
    """Runs a command to its end; its output goes to `log` whole and to `on_line` line by line.

    Raises:
        CapacityError: `log` cannot be written.
    """
    began = time.monotonic()
    read_fd, write_fd = os.pipe()
    try:
        with _open(log) as stream:
            child = _spawn(command, write_fd, environment, subprocess.PIPE)
            _children.add(child)
            os.close(write_fd)
            write_fd = -1
            code = _follow(child, stream, on_line)
        report = os.read(read_fd, 4096)
    except OSError as error:
        raise explain_os_error(error, error.filename or log) from error
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)
    said: dict[str, Any] = json.loads(report) if report else {"code": code, "peak_rss_mb": 0.0}
    return Finished(said["code"], time.monotonic() - began, said["peak_rss_mb"], _stopping.is_set())


def _follow(child: Child, stream: BinaryIO, on_line: Callable[[str], None]) -> int:
    """Passes the output of `child` on until it ends; ends it if that fails (a full disk)."""
    assert child.stdout is not None
    try:
        for raw in child.stdout:
            stream.write(raw)
            stream.flush()
            on_line(raw.decode("utf-8", "replace").rstrip())
        return child.wait()
    finally:
        stop(child)


def start(command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Child:
    """Starts a server; its output goes to `log`. End it with `stop`."""
    try:
        with _open(log) as stream:
            return _spawn(command, 2, environment, stream)
    except OSError as error:
        raise explain_os_error(error, log) from error


def stop(child: Child, wait_s: float = 30.0) -> None:
    """Ends a child and everything it started; returns when they are gone."""
    if child.stdin is not None and not child.stdin.closed:
        child.stdin.close()
    try:
        child.wait(wait_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        child.wait()
    _forget(child)


def stop_all() -> None:
    """Asks every child of `run` to end, and lets no other start. Does not wait: `run` returns in its thread.

    Servers stay: whoever started one still has things to say to it.
    """
    _stopping.set()
    for child in list(_children):
        if child.stdin is not None and not child.stdin.closed:
            child.stdin.close()


def tail(log: Path, lines: int = 15) -> list[str]:
    """The last lines of a log file; none if it does not exist."""
    try:
        return log.read_text("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


def _spawn(
    command: Sequence[str], report_fd: int, environment: Mapping[str, str], output: int | BinaryIO
) -> Child:
    if _stopping.is_set():
        raise KeyboardInterrupt
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(WATCHDOG), str(report_fd), *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=() if report_fd <= 2 else (report_fd,),
        env=dict(environment),
    )


def _forget(child: Child | None) -> None:
    if child is not None:
        _children.discard(child)
        for stream in (child.stdin, child.stdout):
            if stream is not None and not stream.closed:
                stream.close()


def _open(log: Path) -> BinaryIO:
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")
