"""The reaper on a real Prefect server: closed runs, freed slots and leases, and what it leaves alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow, get_client, runtime, task
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Cancelling, Pending, Running

from flows.reaping import judge, reaper
from flows.reaping.processes import Process, this_process
from flows.server import POOL

LEASES = Path(os.environ["PREFECT_HOME"]) / "concurrency_leases"


@flow(name="retrain")
def empty() -> None:
    """A flow of the name that is ours."""


@task
def reaper_task() -> None:
    """Stands for a stage."""


@flow(name="somebody else's")
def foreign() -> None:
    """A flow on the same server that is none of our business."""


@pytest.fixture
def client(server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient) -> UUID:
    """A deployment in the pool of `malgil up`, one run at a time."""
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    return client.create_deployment(
        client.create_flow(empty), name=f"{uuid4()}", work_pool_name=POOL, concurrency_limit=1
    )


@pytest.fixture(scope="module")
def gone() -> Process:
    """A process that has been and is no more."""
    code = "from flows.reaping.processes import this_process; print(this_process())"
    root = Path(__file__).parents[2]
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    process = Process.parse(said.stdout.strip())
    assert process is not None
    return process


def begun(client: SyncPrefectClient, deployment: UUID, process: Process) -> UUID:
    """A run of the deployment that has come to Running, in that process."""
    run = client.create_flow_run_from_deployment(deployment)
    assert set_state(client, run, Pending()).is_pending()
    client.update_flow_run_labels(run.id, {reaper.WORKER_LABEL: str(process), reaper.LABEL: str(process)})
    assert set_state(client, run, Running()).is_running()
    return run.id


def set_state(client: SyncPrefectClient, run: FlowRun, state: State[None]) -> State[None]:
    shown = client.set_flow_run_state(run.id, state).state
    assert shown is not None
    return shown


def look() -> reaper.Report:
    return reaper.reap(str(reaper.get_client(sync_client=True).api_url))


def state_of(client: SyncPrefectClient, run: UUID) -> State[None]:
    state = client.read_flow_run(run).state
    assert state is not None
    return state


def slots(client: SyncPrefectClient, deployment: UUID) -> int:
    limit = client.read_deployment(deployment).global_concurrency_limit
    assert limit is not None
    return limit.active_slots


def test_a_dead_run_is_crashed_with_its_tasks_and_the_next_may_begin(
    client: SyncPrefectClient, deployment: UUID, gone: Process
) -> None:
    dead = begun(client, deployment, gone)
    stage = client.create_task_run(
        reaper_task, flow_run_id=dead, dynamic_key="0", state=Running(), name="stage"
    )
    lease = state_of(client, dead).state_details.deployment_concurrency_lease_id
    assert (LEASES / f"{lease}.json").is_file() and slots(client, deployment) == 1
    waiting = client.create_flow_run_from_deployment(deployment)
    assert set_state(client, waiting, Pending()).name == "AwaitingConcurrencySlot"
    report = look()
    (found,) = (run for run in report.runs if run.id == str(dead))
    assert found.closed and f"process {gone.pid} has ended" in found.reason
    assert state_of(client, dead).is_crashed() and found.reason in str(state_of(client, dead).message)
    closed = client.read_task_run(stage.id)
    assert isinstance(closed, TaskRun) and closed.state is not None and closed.state.is_crashed()
    assert slots(client, deployment) == 0 and not (LEASES / f"{lease}.json").exists()
    assert set_state(client, waiting, Pending()).is_pending(), "the next one has the slot"


def test_a_living_run_is_left_alone_and_holds_its_slot_whatever_its_lease_says(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    living = begun(client, deployment, this_process())
    lease = LEASES / f"{state_of(client, living).state_details.deployment_concurrency_lease_id}.json"
    said = json.loads(lease.read_text())
    expired = (datetime.now(UTC) - timedelta(hours=8)).isoformat()  # the machine has slept over it
    lease.write_text(json.dumps({**said, "created_at": expired, "expiration": expired}))
    report = look()
    (found,) = (run for run in report.runs if run.id == str(living))
    assert (found.fate, found.closed) == ("alive", False)
    assert state_of(client, living).is_running() and lease.is_file() and slots(client, deployment) == 1
    client.renew_concurrency_lease(UUID(lease.stem), 300)  # what the run does when it wakes up


def test_a_slot_that_nobody_holds_is_freed(client: SyncPrefectClient, deployment: UUID) -> None:
    """As a server leaves it that was killed with its leases in memory."""
    limit = client.read_deployment(deployment).global_concurrency_limit
    assert limit is not None
    client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=1))
    assert [(s.counted, s.held) for s in look().slots if s.limit == limit.name] == [(1, 0)]
    assert slots(client, deployment) == 0
    assert [s for s in look().slots if s.limit == limit.name] == []


def test_a_lease_that_nobody_holds_is_released(
    client: SyncPrefectClient, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server leaves it that was killed between the lease and the state it is for."""
    limit = client.read_deployment(deployment).global_concurrency_limit
    assert limit is not None
    lease = client.increment_concurrency_slots_with_lease([limit.name], 1, "concurrency", 300).json()[
        "lease_id"
    ]
    assert slots(client, deployment) == 1 and (LEASES / f"{lease}.json").is_file()
    assert lease not in look().leases, "it may be one second old"
    monkeypatch.setattr(judge, "SETTLE_S", 0.0)
    assert lease in look().leases
    assert slots(client, deployment) == 0 and not (LEASES / f"{lease}.json").exists()


def test_a_cancelled_run_whose_process_is_gone_becomes_cancelled(
    client: SyncPrefectClient, deployment: UUID, gone: Process
) -> None:
    dead = begun(client, deployment, gone)
    client.set_flow_run_state(dead, Cancelling(), force=True)
    look()
    assert state_of(client, dead).is_cancelled() and slots(client, deployment) == 0


def test_a_pending_run_dies_with_the_last_worker_and_waits_for_a_living_one(
    client: SyncPrefectClient, deployment: UUID, gone: Process
) -> None:
    client.send_worker_heartbeat(POOL, str(gone))
    client.send_worker_heartbeat(POOL, str(this_process()))
    run = client.create_flow_run_from_deployment(deployment)
    set_state(client, run, Pending())
    look()
    assert state_of(client, run.id).is_pending(), "a living worker may be about to start it"
    client.request("DELETE", f"/work_pools/{POOL}/workers/{this_process()}")
    look()
    assert state_of(client, run.id).is_crashed() and slots(client, deployment) == 0


def test_flows_of_others_are_left_alone(client: SyncPrefectClient) -> None:
    theirs = client.create_flow_run(foreign, state=Running())
    assert str(theirs.id) not in {run.id for run in look().runs}


def test_a_run_notes_its_process_before_anything_else(client: SyncPrefectClient, gone: Process) -> None:
    left = client.create_flow_run(empty, state=Running())
    client.update_flow_run_labels(left.id, {reaper.LABEL: str(gone)})
    begin_in_flow()
    assert state_of(client, left.id).is_crashed(), "a run closes those that died before it"


@flow(name="retrain")
def begin_in_flow() -> None:
    """What `retrain` does first."""
    run = UUID(str(runtime.flow_run.id))
    reaper.begin(run)
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(run).labels[reaper.LABEL] == str(this_process())
        assert client.read_flow_run(run).state.is_running()  # type: ignore[union-attr]
