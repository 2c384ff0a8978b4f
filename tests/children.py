"""A child of a test, waited for as long as it works: a limit of time would fail on a busy machine.

What hangs uses no CPU time, and what runs away uses too much of it; both are ended and said. A machine that has
ten other things to do makes neither of them.
"""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any, AnyStr

import psutil

QUIET_S = 600.0  # wall time in which a child that works uses some CPU time
LOOK_S = 5.0


def run(
    command: Sequence[str], *, cpu_s: float = 300.0, check: bool = False, input: bytes = b"", **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """`subprocess.run` with both outputs captured, for a child and its children that use at most `cpu_s`.

    `input` is the child's standard input where there is any.

    Raises:
        subprocess.TimeoutExpired: they used more, or none for QUIET_S; all of them were killed.
        subprocess.CalledProcessError: `check` was asked for and the exit code is not zero.
    """
    with tempfile.TemporaryFile() as given:
        if input:
            given.write(input)
            given.seek(0)
            options["stdin"] = given
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = communicate(child, cpu_s=cpu_s)
    if check and child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, out, err)
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def communicate(child: "subprocess.Popen[AnyStr]", *, cpu_s: float = 300.0) -> tuple[AnyStr, AnyStr]:
    """`child.communicate` with the limits of `run`."""
    used, worked = 0.0, time.monotonic()
    while True:
        try:
            return child.communicate(timeout=LOOK_S)
        except subprocess.TimeoutExpired as late:
            family = _family(child.pid)
            now = sum(map(_cpu_s, family))
            if now > used + 0.01:
                used, worked = now, time.monotonic()
            if used <= cpu_s and time.monotonic() - worked <= QUIET_S:
                continue
            for process in family:
                process.kill()
            out, err = child.communicate()
            raise subprocess.TimeoutExpired(child.args, late.timeout, out, err) from None


def _family(pid: int) -> list[psutil.Process]:
    try:
        return [(first := psutil.Process(pid)), *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_s(process: psutil.Process) -> float:
    """Its CPU time and that of its children which have ended, s."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0
