"""One run at a time in a project: a kernel lock on build/.run.lock, released however its holder ends.

Beside the lock the file says who holds it and since when. What a killed run leaves in Prefect's books is
closed by `flows.reaping`.
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
_held: list[int] = []


@contextmanager
def hold_run_lock() -> Iterator[None]:
    """Holds the project's run lock; inside a block that holds it already, that one.

    Raises:
        ConflictError: another process holds it.
        CapacityError: build/ cannot be written.
    """
    if _held:
        yield
        return
    descriptor = _open()
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _conflict(_read(descriptor)) from None
        try:
            _sign(descriptor)
        except OSError as error:
            raise explain_os_error(error, LOCK) from error
        _held.append(descriptor)
        try:
            yield
        finally:
            _held.clear()
    finally:
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    text = json.dumps({"pid": os.getpid(), "started": started})
    os.pwrite(descriptor, text.encode(), 0)
    os.ftruncate(descriptor, len(text))


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
