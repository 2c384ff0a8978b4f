"""A project that is moved or copied: what it makes lies in it, and what it had made is found."""

import logging
import shutil
import sqlite3
from pathlib import Path

import pytest

from tasks.release import moved
from tasks.release import release as steps
from tasks.release.champion_adapter import champion_adapter
from tasks.release.registry import Registry
from tests.release.conftest import with_section, write_asr, write_llm, write_road


def release(line, params):
    where = {"build_dir": Path("build"), "store_dir": Path("store")}
    judgement = steps.decide_line(line, params, **where)
    published = steps.publish_line(judgement, params, check=lambda folder: None, **where)
    return steps.register_line(judgement, published, params, **where)


def enter(folder, monkeypatch):
    """As a new process in `folder`: MLflow notes its store in the environment of this one."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def began(store, params, monkeypatch):
    """The project in the folder a/, its first version released; and the folder."""
    home = store / "a b"  # a space is written %20 in a URI
    home.mkdir()
    for name in ("build", "store", "dvc.lock", "constraints.txt"):
        (store / name).rename(home / name)
    enter(home, monkeypatch)
    return release("asr", params), home


def better():
    write_asr(Path("build"), weights=b"onnx v2", cer=0.02, edits=lambda n: 0)
    write_road(Path("build"))


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_the_next_version_lies_in_the_project_and_the_champion_is_found(
    began, params, monkeypatch, caplog, how
):
    first, old = began
    new = old.with_name("b")
    (shutil.move if how == "moved" else shutil.copytree)(old, new)
    before = {path: path.read_bytes() for path in sorted(old.rglob("*")) if path.is_file()}
    enter(new, monkeypatch)
    better()
    with caplog.at_level(logging.INFO):
        second = release("asr", params)
    assert (second["verdict"], second["version"]) == ("promote", 2)
    assert "better than the champion" in second["reasons"][0]
    assert caplog.text.count("this project was moved or copied here") == 1
    after = {path: path.read_bytes() for path in sorted(old.rglob("*")) if path.is_file()}
    assert after == before and old.exists() == (how == "copied"), "the folder that it came from is left alone"
    registry = Registry(params.registry)
    for result in (first, second):
        run = registry.client.get_run(result["run_id"])
        assert run.info.artifact_uri.startswith((new / "store/mlflow-artifacts").as_uri())
        assert "dvc.lock" in {each.path for each in registry.client.list_artifacts(result["run_id"])}
        (model,) = [
            each
            for each in registry.client.search_logged_models([run.info.experiment_id])
            if each.source_run_id == result["run_id"]
        ]
        assert Path(moved._local(model.artifact_location)).is_dir()
        assert model.artifact_location.startswith(new.as_uri())
    assert str(old) not in dump(new) and "a%20b/" not in dump(new)
    assert registry.by_alias("malgil-asr", "previous-staging").number == 1
    steps.attach_report({"asr": second}, Path("constraints.txt"), params)
    assert old.exists() == (how == "copied")


def dump(project):
    """All that MLflow keeps of places, as text."""
    with sqlite3.connect(project / "store/mlflow.db") as store:
        tables = ("experiments", "runs", "logged_models", "model_versions")
        return "\n".join(str(row) for table in tables for row in store.execute(f"SELECT * FROM {table}"))


def test_the_adapter_to_go_on_from_lies_in_the_moved_project(began, params, monkeypatch):
    write_llm(Path("build"), right=lambda n: True)
    assert release("llm", params)["verdict"] == "promote"
    _, old = began
    new = old.with_name("b")
    old.rename(new)
    enter(new, monkeypatch)
    assert champion_adapter(params, Path("store")).resolve().is_relative_to(new)
    assert not old.exists()


def test_a_project_that_stays_is_not_spoken_of(began, params, caplog):
    before = dump(Path.cwd())
    with caplog.at_level(logging.INFO):
        release("asr", params)
    assert "moved" not in caplog.text and dump(Path.cwd()) == before


def test_another_folder_for_artifacts_does_not_keep_a_moved_project_from_its_own(began, params, monkeypatch):
    _, old = began
    new = old.with_name("b")
    old.rename(new)
    enter(new, monkeypatch)
    better()
    result = release("asr", with_section(params, "registry", artifacts="store/elsewhere"))
    assert result["version"] == 2 and not old.exists()
    assert "store/mlflow-artifacts" in dump(new) and str(old) not in dump(new)


def test_a_place_that_somebody_chose_stays(began, params, tmp_path, monkeypatch, caplog):
    chosen = tmp_path / "disk/artifacts"
    registry = Registry(with_section(params, "registry", artifacts=str(chosen)).registry)
    made = registry.experiment("on a disk")
    chosen.mkdir(parents=True)
    for where in ("store/mlflow-artifacts", str(chosen)):
        again = Registry(with_section(params, "registry", artifacts=where).registry)
        assert again.client.get_experiment(made).artifact_location == (chosen / "on a disk").as_uri()
    assert "artifacts of the MLflow experiment on a disk lie outside this project" in caplog.text


def test_a_store_that_projects_share_is_left_as_it_is(began, params, tmp_path, monkeypatch):
    _, old = began
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old}/store/mlflow.db")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    before = dump(old)
    Registry(params.registry)
    assert dump(old) == before
