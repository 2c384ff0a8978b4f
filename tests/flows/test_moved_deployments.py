"""Deployments of a project that was moved: a late run is not taken where the project had stood."""

from pathlib import Path

from prefect.settings import PREFECT_API_URL

from flows.up import bring_deployments_home
from tests.flows.prefect_api import call

STEP = "prefect.deployments.steps.set_working_directory"


def test_deployments_of_a_moved_project_are_turned_to_it_once(server: None, tmp_path: Path) -> None:
    api = PREFECT_API_URL.value()
    flow = call(f"{api}/flows/", {"name": "retrain"})
    for name, folder in (("moved", "/old/project"), ("here", str(tmp_path))):
        about = {"flow_id": flow["id"], "name": name, "pull_steps": [{STEP: {"directory": folder}}]}
        call(f"{api}/deployments/", about)
    assert bring_deployments_home(api, tmp_path) == ["moved"]
    found = call(f"{api}/deployments/filter", {"deployments": {"name": {"any_": ["moved", "here"]}}})
    assert [each["pull_steps"] for each in found] == [[{STEP: {"directory": str(tmp_path)}}]] * 2
    assert bring_deployments_home(api, tmp_path) == []
