"""Which unfinished flow runs are dead: pure, from what the server shows and which processes live here.

Evidence, strongest first: a process here that runs it or is about to; the process that the run noted when it
began; the worker that took it; silence. A pid of this machine is never overruled by silence, so a sleeping
laptop, a stopped process or a long garbage collection cannot make a living run look dead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from flows.reaping.processes import Fate, Machine, Process

State = Literal["PENDING", "RUNNING", "CANCELLING"]
# What one step of a worker may take on a very busy machine: between two of its calls of the API a run has no
# process yet, or has just lost it and the worker is about to say so itself.
SETTLE_S = 30.0
# A living worker has started nothing for so long: it has lost the run. Its slowest step is a call of the API
# (one minute at most, tried again a few times); the imports of a run happen in a process, which is seen.
LOST_S = 600.0
# A run of another machine that has not been heard of for so long: 30 heartbeats of 30 s. Its lease of a
# concurrency slot would by Prefect's own rule be lost after 5 minutes.
SILENT_S = 900.0


@dataclass(frozen=True)
class Run:
    """An unfinished flow run as the server shows it."""

    id: str
    name: str
    state: State
    since: datetime  # when it came into this state
    process: Process | None = None  # noted by the run when it began
    worker: Process | None = None  # that took it
    stranger: bool = False  # a worker took it that is not one of ours
    deployed: bool = True  # started by a worker; else by a command
    heard: datetime | None = None  # its last heartbeat, or its worker's

    def age_s(self, now: datetime) -> float:
        """Seconds in this state."""
        return (now - self.since).total_seconds()


@dataclass(frozen=True)
class Worker:
    """A worker of the pool as the server shows it; `process` is None if it is not one of ours."""

    process: Process | None
    heard: datetime | None


class Verdict(NamedTuple):
    """Whether a run lives, and by what that is known. Only a dead one may be closed."""

    fate: Fate
    reason: str


def judge(run: Run, machine: Machine, workers: Sequence[Worker], now: datetime) -> Verdict:
    """Whether a flow run still has somebody who works on it.

    Args:
        run: in the state Pending, Running or Cancelling.
        machine: the processes of this machine, looked at after the run was read from the server.
        workers: all workers that the server knows of the run's pool.
        now: the time, by the clock that `run.since` is told by.
    """
    if run.id in machine.engines:
        return Verdict("alive", f"process {machine.engines[run.id]} has it")
    if run.state != "PENDING" and run.process is not None and not _tried_elsewhere(run):
        return _by_process(run, run.process, machine, now)
    if machine.hidden and run.deployed:
        return Verdict("unknown", f"processes of another user may have it: {sorted(machine.hidden)}")
    if run.deployed:
        return _by_worker(run, machine, workers, now)
    return _by_silence(run, "nobody has noted which process has it", now)


def _tried_elsewhere(run: Run) -> bool:
    """A worker on another machine has it: what it noted is of an earlier attempt until it notes again."""
    return (
        run.process is not None and run.worker is not None and run.worker.place.host != run.process.place.host
    )


def _by_process(run: Run, process: Process, machine: Machine, now: datetime) -> Verdict:
    fate, here = machine.fate(process), machine.place
    if fate == "alive":
        return Verdict("alive", f"process {process.pid} has it")
    if fate == "unknown":
        return _by_silence(run, f"it runs on {process.place.host}", now)
    if process.place.boot != here.boot:
        return Verdict("dead", f"this machine has been started anew since process {process.pid} had it")
    return Verdict("dead", f"process {process.pid} has ended without a word")


def _by_worker(run: Run, machine: Machine, workers: Sequence[Worker], now: datetime) -> Verdict:
    """Of a run without a process here: whether a worker is about to start one."""
    if run.stranger:
        return _by_silence(run, "it has a worker that was not started by `malgil up`", now)
    age = run.age_s(now)
    others = [worker for worker in workers if _may_live(worker, machine, now)]
    fate = "unknown" if run.worker is None else machine.fate(run.worker)
    if run.worker is not None and fate == "unknown":
        return _by_silence(run, f"its worker is on {run.worker.place.host}", now)
    if fate == "dead" or not others:
        # The label may be of an earlier attempt, when a living worker has just taken the run again.
        if others and age < SETTLE_S:
            return Verdict("unknown", "a worker may just have taken it")
        gone = f"worker {run.worker.pid}" if run.worker is not None else "every worker of its pool"
        return Verdict("dead", f"{gone} has ended, and no process has it")
    if fate == "alive" and run.state != "PENDING" and age >= SETTLE_S:
        return Verdict("dead", "its process has ended without a word, its worker has not")
    if age >= LOST_S:
        return Verdict("dead", f"its worker has started no process for {age / 60:.0f} minutes")
    return Verdict("unknown", "its worker is about to start it")


def _may_live(worker: Worker, machine: Machine, now: datetime) -> bool:
    if worker.process is not None and (fate := machine.fate(worker.process)) != "unknown":
        return fate == "alive"
    return worker.heard is not None and (now - worker.heard).total_seconds() < SILENT_S


def _by_silence(run: Run, why: str, now: datetime) -> Verdict:
    last = max(run.since, run.heard or run.since)
    silent = (now - last).total_seconds()
    if silent >= SILENT_S:
        return Verdict("dead", f"{why}, and nothing has been heard of it for {silent / 60:.0f} minutes")
    return Verdict("unknown", f"{why}; heard of {max(silent, 0):.0f} s ago")


def leaked(
    leases: Mapping[str, Mapping[str, Any]], limits: Sequence[str], held: Sequence[str], now: datetime
) -> list[str]:
    """Leases of concurrency slots that nobody holds, of the leases on the server's disk.

    Args:
        leases: id → what Prefect's file of it says: resource_ids, created_at, expiration (ISO 8601).
        limits: ids of the limits of our deployments. A lease of one of these is held by a flow run, which may
            outsleep its expiration; any other is a `concurrency()` of somebody, who renews it while he lives.
        held: leases of unfinished flow runs, whatever their flow.
    """
    found = []
    for lease, said in leases.items():
        try:
            age = now - _time(said["created_at"])
            overdue = now - _time(said["expiration"])
            ours = not set(said["resource_ids"]).isdisjoint(limits)
        except (KeyError, ValueError, TypeError):
            continue
        # While a run goes to Pending its lease is on disk and its new state is not yet told.
        if lease not in held and timedelta(seconds=SETTLE_S) < (age if ours else overdue):
            found.append(lease)
    return found


def _time(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)
