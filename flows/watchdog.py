"""Runs one command and ends it, with everything it started, when whoever started us is gone.

    python -I -S flows/watchdog.py REPORT_FD COMMAND [ARGUMENT...]

Standard input is a pipe whose other end the parent holds. Its end means that the parent closed it (stop,
please) or was killed, SIGKILL included: then every process below this one gets SIGTERM, and SIGKILL soon
after. When the command ends by itself, however it ends, what it left behind is ended in the same way (a
Prefect worker starts each flow run in a session of its own, which would outlive it), and its exit code
and peak memory go to REPORT_FD as JSON. Standard library only, no project imports: it starts in a few
hundredths of a second.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 10.0
KIB_PER_MB = 1000 / 1.024  # ru_maxrss is in KiB
# Linux, <linux/prctl.h>
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> int:
    """Starts the command, waits, reports."""
    report_fd, command = int(sys.argv[1]), sys.argv[2:]
    # A handler, not SIG_IGN: an ignored signal would stay ignored in the command.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans below us become our children, not init's
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_watchdog)
    stopping = threading.Event()
    threading.Thread(target=_end_with_parent, args=(stopping,), daemon=True).start()
    code = _wait(child)
    if stopping.is_set():
        time.sleep(GRACE_S + 5)  # the thread ends the group, us included
    _end_family()
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    os.write(report_fd, json.dumps({"code": code, "peak_rss_mb": round(peak_kib / KIB_PER_MB, 1)}).encode())
    return code if code >= 0 else 128 - code


def _wait(child: "subprocess.Popen[bytes]") -> int:
    """The exit code of the command; orphans that end before it are buried meanwhile."""
    while sys.platform == "linux":
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        if ended is None or ended.si_pid == child.pid:
            break
        os.waitpid(ended.si_pid, 0)
    return child.wait()


def _end_with_parent(stopping: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stopping.set()
    if not os.path.isdir("/proc"):  # noqa: PTH112
        os.killpg(os.getpgrp(), signal.SIGTERM)
        time.sleep(GRACE_S)
    _end_family()  # each is told once: a second SIGTERM makes Prefect's worker kill itself
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _end_family() -> None:
    """Ends every process below this one and in its group: SIGTERM, and after GRACE_S SIGKILL."""
    deadline = time.monotonic() + GRACE_S
    told: set[int] = set()
    # Twice: a process whose parent ended during the first look has us as its parent in the second.
    while (family := _family() or _family()) and (now := time.monotonic()) < deadline + GRACE_S:
        for pid in family if now > deadline else family - told:
            _signal(pid, signal.SIGKILL if now > deadline else signal.SIGTERM)
        told |= family
        time.sleep(0.05)


def _family() -> set[int]:
    """Living processes below this one or in its group (Linux; elsewhere none are seen)."""
    parents: dict[int, int] = {}  # of zombies too: one has its children until its last thread is gone
    living: set[int] = set()
    found: set[int] = set()
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
                state, parent, group = stream.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        parents[pid] = int(parent)
        if state not in "ZX":
            living.add(pid)
            if int(group) == os.getpgrp():
                found.add(pid)
    for pid in living:
        above = pid
        for _ in parents:  # at most so many steps: pids given again during the look could make a circle
            above = parents.get(above, 0)
            if above in (0, os.getpid()):
                break
        if above == os.getpid():
            found.add(pid)
    return found - {os.getpid()}


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _die_with_watchdog() -> None:
    """In the command, before it starts: SIGKILL when this watchdog is killed itself."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    raise SystemExit(main())
