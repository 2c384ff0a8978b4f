"""Closes in Prefect's books what died without a word, and frees the concurrency slots that it held.

`reap` looks once: at every start of `malgil up` before its worker starts, at every run's start, and for
`malgil reap`. `Watch` looks every fifteen seconds while `malgil up` lives: a thread of `malgil up`, not a
deployment, which would wait for the worker and the slot that a dead run holds. What is dead is decided in
`judge`; a run that may live is never touched, and no process is ended here (`flows/watchdog.py` does that).
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.filters import EventFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from flows.reaping.judge import SILENT_S, Run, Verdict, Worker, judge, leaked
from flows.reaping.processes import Fate, Process, look_around, this_process
from flows.server import POOL

FLOWS = ("retrain",)
LABEL, WORKER_LABEL = "malgil.process", "prefect.worker.name"
UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
EVERY_S = 15.0
SETTLED_S = 1.0  # two looks at a limit so far apart that agree are no transition seen halfway
PAGE = 200
log = logging.getLogger("malgil")


@dataclass(frozen=True)
class Finding:
    """An unfinished flow run and what was done about it."""

    id: str
    name: str
    state: str
    fate: Fate
    reason: str
    closed: bool


@dataclass(frozen=True)
class Slots:
    """A concurrency limit whose count was wrong, and was put right."""

    limit: str
    counted: int
    held: int


@dataclass(frozen=True)
class Report:
    """What one look has found."""

    runs: list[Finding] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)  # released: nobody held them
    slots: list[Slots] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def begin(flow_run_id: UUID) -> None:
    """What a run does first: notes on the server which process has it, and closes those that died before it.

    A reaper that fails says so and lets the run go on.
    """
    with get_client(sync_client=True) as client:

        def note_and_look() -> Report:
            client.update_flow_run_labels(flow_run_id, {LABEL: str(this_process())})
            return _reap(client)

        _try(note_and_look)


def reap(api: str) -> Report:
    """Looks once through the Prefect API at `api`, closes what is dead and says so in the log.

    Raises:
        httpx.HTTPError, PrefectException: the API does not answer, or refuses.
    """
    with SyncPrefectClient(api) as client:
        return _reap(client)


class Watch:
    """Reaps at once, and then every fifteen seconds in a thread, until the end of the `with` block."""

    def __init__(self, api: str, every_s: float = EVERY_S) -> None:
        self._api, self._every_s = api, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def __enter__(self) -> "Watch":
        _try(lambda: reap(self._api))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            _try(lambda: reap(self._api), quiet=self._stop.is_set)


def _try(look: Callable[[], Report], quiet: Callable[[], bool] = lambda: False) -> None:
    """The books bring nobody down: whatever goes wrong here is said, and tried again."""
    try:
        look()
    except Exception as error:  # noqa: BLE001
        if not quiet():
            log.warning("the reaper could not look (%s: %s)", type(error).__name__, error)


def _reap(client: SyncPrefectClient) -> Report:
    unfinished = _read_unfinished(client)
    machine = look_around()  # after the runs were read: who has begun meanwhile is seen
    workers = {run.work_pool_name: _workers(client, run.work_pool_name) for run in unfinished}
    findings = []
    for shown in filter(lambda run: _is_ours(client, run), unfinished):
        pool = workers[shown.work_pool_name]
        run = _as_run(client, shown, pool)
        verdict = judge(run, machine, list(pool.values()), datetime.now(UTC))
        closed = verdict.fate == "dead" and _close(client, shown, verdict)
        findings.append(Finding(run.id, run.name, run.state, verdict.fate, verdict.reason, closed))
    limits = [deployment for deployment in _deployments(client) if deployment.global_concurrency_limit]
    leases = _release_leaked(client, [str(d.global_concurrency_limit.id) for d in limits])  # type: ignore[union-attr]
    slots = [found for deployment in limits if (found := _settle_slots(client, deployment)) is not None]
    return Report(findings, leases, slots)


def _read_unfinished(client: SyncPrefectClient, deployment: UUID | None = None) -> list[FlowRun]:
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
    found: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=state), limit=PAGE, offset=len(found)
        )
        found += page
        if len(page) < PAGE:
            return [run for run in found if deployment in (None, run.deployment_id)]


def _is_ours(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a run is of this project's kind: other flows on a shared server are their owners' affair."""
    if LABEL in run.labels or run.work_pool_name == POOL:
        return True
    return client.read_flow(run.flow_id).name in FLOWS


def _workers(client: SyncPrefectClient, pool: str | None) -> dict[str, Worker]:
    """The workers of a pool by name."""
    if pool is None:
        return {}
    try:
        found = client.read_workers_for_work_pool(pool)
    except ObjectNotFound:
        return {}
    return {worker.name: Worker(Process.parse(worker.name), worker.last_heartbeat_time) for worker in found}


def _as_run(client: SyncPrefectClient, run: FlowRun, workers: Mapping[str, Worker]) -> Run:
    state = _state(run)
    name = run.labels.get(WORKER_LABEL)
    worker = Process.parse(name)
    times = [_last_heartbeat(client, run.id), workers[str(name)].heard if str(name) in workers else None]
    return Run(
        id=str(run.id),
        name=run.name,
        state=state.type.value,  # type: ignore[arg-type]
        since=state.timestamp,
        process=Process.parse(run.labels.get(LABEL)),
        worker=worker,
        stranger=name is not None and worker is None,
        deployed=run.deployment_id is not None,
        heard=max((time for time in times if time is not None), default=None),
    )


def _state(run: FlowRun) -> State[Any]:
    assert run.state is not None, "a run that was found by its state has one"
    return run.state


def _last_heartbeat(client: SyncPrefectClient, flow_run_id: UUID) -> datetime | None:
    """When a run was last heard of, if that is recent enough to count."""
    since = datetime.now(UTC) - timedelta(seconds=2 * SILENT_S)
    wanted = {
        "occurred": {"since": since},
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{flow_run_id}"]},
    }
    found = client.read_events(EventFilter.model_validate(wanted), limit=1)  # newest first
    return found.events[0].occurred if found.events else None


def _close(client: SyncPrefectClient, shown: FlowRun, verdict: Verdict) -> bool:
    """Marks a dead run and its tasks as crashed (as cancelled if that was wished); not if it has moved on."""
    now = client.read_flow_run(shown.id)
    if now.state is None or now.state.id != _state(shown).id:
        return False
    message = f"Closed by the reaper: {verdict.reason}."
    cancelled = now.state.is_cancelling()
    state: State[None] = Cancelled(message=message) if cancelled else Crashed(message=message)
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[shown.id]))
    for task in client.read_task_runs(flow_run_filter=this_run):
        if task.state is not None and not task.state.is_final():
            client.set_task_run_state(task.id, state, force=True)
    client.set_flow_run_state(shown.id, state, force=True)  # last: a look that is cut off finds it again
    log.info("reaper: flow run %s (%s) is now %s: %s", shown.name, shown.id, state.name, verdict.reason)
    return True


def _deployments(client: SyncPrefectClient) -> Sequence[DeploymentResponse]:
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    return client.read_deployments(work_pool_filter=pool)


def _release_leaked(client: SyncPrefectClient, limits: Sequence[str]) -> list[str]:
    """Releases leases on this server's disk that no unfinished run holds; Prefect counts their slots down."""
    folder = Path(os.environ.get("PREFECT_HOME", "")) / "concurrency_leases"
    leases = {}
    for path in folder.glob("*-*.json"):
        try:
            leases[path.stem] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
    if not leases:
        return []
    unfinished = _read_unfinished(client)
    if any(_state(run).is_cancelling() for run in unfinished):
        return []  # that state no longer names the lease that its run holds until it ends
    details = [_state(run).state_details for run in unfinished]
    held = [str(each.deployment_concurrency_lease_id) for each in details]
    released = []
    for lease in leaked(leases, limits, held, datetime.now(UTC)):
        client.release_concurrency_slots_with_lease(UUID(lease))
        # It was this server's. One of no limit is Prefect's note of a task with a tag: a matter of course.
        if leases[lease]["resource_ids"] and not (folder / f"{lease}.json").exists():
            log.info("reaper: lease %s of a concurrency slot released: no unfinished run holds it", lease)
            released.append(lease)
    return released


def _settle_slots(client: SyncPrefectClient, deployment: DeploymentResponse) -> Slots | None:
    """Sets a limit's count of slots to its unfinished runs, if two looks show the same difference."""
    first = _count(client, deployment.id)
    if first is None or first.counted == first.held:
        return None
    time.sleep(SETTLED_S)
    if _count(client, deployment.id) != first:
        return None
    client.update_global_concurrency_limit(first.limit, GlobalConcurrencyLimitUpdate(active_slots=first.held))
    log.info(
        "reaper: deployment %s held %d concurrency slots for %d unfinished runs; corrected",
        deployment.name,
        first.counted,
        first.held,
    )
    return first


def _count(client: SyncPrefectClient, deployment: UUID) -> Slots | None:
    held = len(_read_unfinished(client, deployment))
    try:
        limit = client.read_deployment(deployment).global_concurrency_limit
    except ObjectNotFound:
        return None
    return None if limit is None else Slots(limit.name, limit.active_slots, held)
