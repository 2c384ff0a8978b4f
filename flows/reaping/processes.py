"""Which process is which, beyond its pid, and which processes live on this machine now.

A pid alone proves nothing: it is given again, and means something on one machine, since one boot, in one pid
namespace. With the start time that the kernel counts from boot a process has a name that no other ever has,
whatever is done to the clock meanwhile. Not here: what a dead process means (`judge`).
"""

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

Fate = Literal["alive", "dead", "unknown"]
FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # set by a Prefect worker for the process of a flow run
# In its command line from its first moment on; the stages below it inherit the variable, not these.
ENGINES = ("prefect.engine", "prefect.flow_engine", "prefect.runner._workspace_supervisor")
ENGINE_FILE = "_workspace_runtime_bootstrap.py"


class Place(NamedTuple):
    """Where a pid means something."""

    host: str  # name of the machine and a digest of its machine id
    boot: str  # of the boot since which it runs
    namespace: str  # of its pids: containers have their own


class Process(NamedTuple):
    """One process; no other ever is equal to it."""

    place: Place
    pid: int
    started: int  # clock ticks since boot; without /proc: seconds since the epoch

    def __str__(self) -> str:
        return ":".join((*self.place, str(self.pid), str(self.started)))

    @classmethod
    def parse(cls, text: object) -> "Process | None":
        """The process that `str` wrote so; None for anything else."""
        parts = str(text).split(":")
        if len(parts) != 5 or not (parts[3].isdigit() and parts[4].isdigit()):
            return None
        return cls(Place(*parts[:3]), int(parts[3]), int(parts[4]))


@dataclass(frozen=True)
class Machine:
    """This machine's living processes at one moment."""

    place: Place
    started: Mapping[int, int]  # pid → start time; zombies are not among them
    engines: Mapping[str, int]  # flow run → pid of the process that runs it, or is about to
    hidden: frozenset[int] = frozenset()  # engines of other users: we are not shown whose

    def fate(self, process: Process) -> Fate:
        """Whether a process lives; unknown if it is of another machine or container."""
        if process.place.host != self.place.host:
            return "unknown"
        if process.place.boot != self.place.boot:
            return "dead"  # this machine has been started since
        if process.place.namespace != self.place.namespace:
            return "unknown"
        return "alive" if self.started.get(process.pid) == process.started else "dead"


def this_process() -> Process:
    """The process that asks; `exec` does not change it."""
    started = _started(os.getpid())
    assert started is not None
    return Process(this_place(), os.getpid(), started)


@cache
def this_place() -> Place:
    """Where this process runs."""
    machine = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")
    name = socket.gethostname().replace(":", "-") or "localhost"
    boot = _read("/proc/sys/kernel/random/boot_id") or str(int(psutil.boot_time()))
    try:
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        namespace = "0"
    digest = hashlib.sha256(machine.encode()).hexdigest()
    return Place(f"{name}-{digest[:6]}", boot.replace("-", "")[:12], namespace)


def look_around() -> Machine:
    """The living processes of this machine, now."""
    started: dict[int, int] = {}
    engines: dict[str, int] = {}
    hidden = set()
    for process in psutil.process_iter():
        since = _started(process.pid)
        if since is None:
            continue
        started[process.pid] = since
        try:
            if not _is_engine(process.cmdline()):
                continue
            if run := process.environ().get(FLOW_RUN):
                engines[run] = process.pid
        except psutil.AccessDenied:
            hidden.add(process.pid)
        except psutil.Error:
            continue  # it has just ended
    return Machine(this_place(), started, engines, frozenset(hidden))


def _is_engine(command: list[str]) -> bool:
    return any(part in ENGINES or part.endswith(ENGINE_FILE) for part in command)


def _started(pid: int) -> int | None:
    """The start time of a living process, None for a zombie or none. Source: proc(5), /proc/pid/stat."""
    if not Path("/proc/self/stat").exists():
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
        except psutil.Error:
            return None
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZX":
        return None
    return int(fields[19])


def _read(path: str) -> str:
    try:
        return Path(path).read_text("ascii", "replace").strip()
    except OSError:
        return ""
