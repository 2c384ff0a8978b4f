"""prefect.yaml: every deployment names a real flow, parameters that it takes, and the pool of `malgil up`."""

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.server.schemas.schedules import CronSchedule
from ruamel.yaml import YAML

from flows.up import POOL

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = YAML(typ="safe").load((ROOT / "prefect.yaml").read_text("utf-8"))[
    "deployments"
]


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    path, _, name = deployment["entrypoint"].partition(":")
    module = import_module(path.removesuffix(".py").replace("/", "."))
    assert Path(str(module.__file__)) == ROOT / path
    flow = getattr(module, name)
    assert isinstance(flow, Flow)
    return flow


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_entrypoint_and_parameters_fit_the_flow(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    assert set(deployment["parameters"]) == set(flow.parameters.properties)
    flow.validate_parameters(deployment["parameters"])


def test_the_run_form_refuses_what_the_flow_does_not_take() -> None:
    flow = flow_of(DEPLOYMENTS[0])
    assert flow.parameters.properties["line"]["enum"] == ["all", "asr", "llm"]
    with pytest.raises(ParameterTypeError):
        flow.validate_parameters({"line": "tts", "quick": False, "overrides": []})


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_one_run_at_a_time_and_nothing_starts_by_itself(deployment: dict[str, Any]) -> None:
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["work_pool"]["name"] == POOL
    for schedule in deployment["schedules"]:
        assert schedule["active"] is False
        cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert len(asyncio.run(cron.get_dates(2))) == 2


def test_there_is_a_weekly_and_a_quick_deployment() -> None:
    assert {deployment["name"] for deployment in DEPLOYMENTS} == {"weekly", "quick"}
