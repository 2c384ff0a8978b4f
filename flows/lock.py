"""One run at a time in a project: a kernel lock on build/.run.lock, released however its holder ends.

Beside the lock the file says who holds it and since when, and which flow runs were begun and never ended,
so that the next run can close them in Prefect's books.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.errors import ConflictError, explain_os_error

LOCK = Path("build/.run.lock")
_held: list["RunLock"] = []


class RunLock:
    """The lock, held; `unfinished` are flow runs that a killed run left behind."""

    def __init__(self, descriptor: int, unfinished: list[str]) -> None:
        self._descriptor = descriptor
        self.unfinished = unfinished
        self._started = datetime.now().astimezone().isoformat(timespec="seconds")
        self._write()

    def begin(self, flow_run_id: str) -> None:
        """Notes a flow run as begun; until `end` says otherwise it counts as left behind."""
        self.unfinished.append(flow_run_id)
        self._write()

    def end(self, flow_run_ids: list[str]) -> None:
        """Notes flow runs as ended."""
        self.unfinished = [run for run in self.unfinished if run not in flow_run_ids]
        self._write()

    def _write(self) -> None:
        text = json.dumps({"pid": os.getpid(), "started": self._started, "unfinished": self.unfinished})
        os.pwrite(self._descriptor, text.encode(), 0)
        os.ftruncate(self._descriptor, len(text))


@contextmanager
def hold_run_lock() -> Iterator[RunLock]:
    """Holds the project's run lock; inside a block that holds it already, that one.

    Raises:
        ConflictError: another process holds it.
        CapacityError: build/ cannot be written.
    """
    if _held:
        yield _held[0]
        return
    descriptor = _open()
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _conflict(_read(descriptor)) from None
        try:
            lock = RunLock(descriptor, [str(run) for run in _read(descriptor).get("unfinished", [])])
        except OSError as error:
            raise explain_os_error(error, LOCK) from error
        _held.append(lock)
        try:
            yield lock
        finally:
            _held.clear()
    finally:
        os.close(descriptor)


def _open() -> int:
    try:
        LOCK.parent.mkdir(parents=True, exist_ok=True)
        return os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise explain_os_error(error, LOCK) from error


def _read(descriptor: int) -> dict[str, Any]:
    try:
        value = json.loads(os.pread(descriptor, 1 << 16, 0) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _conflict(holder: dict[str, Any]) -> ConflictError:
    pid, started = holder.get("pid", "?"), holder.get("started", "?")
    return ConflictError(
        f"another `malgil run` is at work in this project (pid {pid}, since {started})",
        "a project has one run at a time",
        f"wait until it has ended, or stop it: kill {pid}",
    )
