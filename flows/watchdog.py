"""Runs one command and ends it, with everything it started, when whoever started us is gone.

    python -I -S flows/watchdog.py REPORT_FD COMMAND [ARGUMENT...]

Standard input is a pipe whose other end the parent holds. Its end means that the parent closed it (stop,
please) or was killed, SIGKILL included: then the whole process group gets SIGTERM, and SIGKILL soon
after. When the command ends by itself, its exit code and peak memory go to REPORT_FD as JSON. Standard
library only, no project imports: it starts in a few hundredths of a second.
"""

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


def main() -> int:
    """Starts the command, waits, reports."""
    report_fd, command = int(sys.argv[1]), sys.argv[2:]
    # A handler, not SIG_IGN: an ignored signal would stay ignored in the command.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    stopping = threading.Event()
    threading.Thread(target=_end_with_parent, args=(stopping,), daemon=True).start()
    code = child.wait()
    if stopping.is_set():
        time.sleep(GRACE_S)  # the thread ends the group, us included
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    os.write(report_fd, json.dumps({"code": code, "peak_rss_mb": round(peak_kib / KIB_PER_MB, 1)}).encode())
    return code if code >= 0 else 128 - code


def _end_with_parent(stopping: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stopping.set()
    group = os.getpgrp()
    os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and _others(group):
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)


def _others(group: int) -> bool:
    """Whether a process of the group other than this one is alive (Linux; elsewhere: assume yes)."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return True
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
                state, _, its_group = stream.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if pid != os.getpid() and int(its_group) == group and state != "Z":
            return True
    return False


if __name__ == "__main__":
    raise SystemExit(main())
