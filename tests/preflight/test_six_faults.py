"""All faults at once, each with its remedy, before anything is started; and the remedies work."""

import json
import shutil
import socket
import sqlite3
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tasks.params import load
from tasks.preflight.stores import newest_schema
from tasks.release.registry import Registry
from tests import tiny_llm
from tests.hub_server import Hub, start

SIX = (
    "-S", "train_asr.encoder=models/none",
    "-S", "base_llm.model=base", "-S", "train_llm.initial=''", "-S", "train_llm.blocks=0",
    "-S", "corpus.source=manifest",
    "-S", "corpus.manifest=rows.csv",
    "-S", "publish.target=hub",
    "-S", "publish.namespace=mal gil",
    "-S", "registry.tracking_uri=http://127.0.0.1:9",
)  # fmt: skip


def test_six_faults_are_six_lines_before_any_stage(project: Path, checked: Any, malgil: Any) -> None:
    tiny_llm.write_model(project / "base")
    (project / "base/chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + tiny_llm.TEMPLATE
    )
    (project / "rows.csv").write_text("clip,said\na.wav,불 켜 줘\n")
    found = [one for one in checked(*SIX[1::2]) if one.state == "fault"]
    places = {"data source", "encoder", "base model", "publishing", "MLflow"}
    assert len(found) == 6 and {one.check for one in found} == places
    assert all(one.what and one.rule and one.next_step for one in found)
    run = malgil("run", *SIX)
    assert run.returncode == 2 and "6 faults" in run.stderr and "Traceback" not in run.stderr
    for says in (
        "has no column path, transcript",
        "checkpoint 'models/none' cannot be loaded",
        "refuses a system message and a question (System role not supported)",
        "HF_TOKEN is not set",
        "'mal gil/malgil-asr",
        "127.0.0.1:9 cannot be reached",
    ):
        assert says in run.stderr, says
    assert not (project / "build").exists() and not (project / "store").exists()


def test_wrong_settings_hide_no_other_fault(project: Path, malgil: Any) -> None:
    ended = malgil("check", "-S", "corpus.seed=seven", "-S", "train_asr.encoder=models/none")
    assert ended.returncode == 2
    assert "corpus.seed" in ended.stdout and "models/none" in ended.stdout and "2 faults" in ended.stdout


def test_a_wrong_setting_hides_no_fault_of_its_own_section(refused: Any) -> None:
    said = refused(
        *("train_asr.steps=-1", "train_asr.encoder=models/none", "train_asr.colour=red"),
        *("corpus.source=manifest", "corpus.manifest=none.csv"),
        *("train_llm.blocks=99", "train_llm.initial=none", "train_llm.seed=x"),
    )
    for fault in ("train_asr.steps", "train_asr.colour", "models/none", "none.csv", "train_llm.seed"):
        assert fault in said, fault
    assert "train_llm.blocks: 99, but the model has 30" in said and "the adapter in none" in said
    assert "AttributeError" not in said and "Unknown" not in said


def test_the_built_in_example_is_checked_in_seconds_and_again_in_less(project: Path, malgil: Any) -> None:
    first = json.loads(malgil("check", "--json").stdout)
    assert first["ok"] and first["seconds"] < 30
    assert (project / "build/work/preflight.json").is_file()
    again = json.loads(malgil("check", "--json").stdout)
    said = [{(one["check"], one["state"]) for one in found["findings"]} for found in (first, again)]
    assert said[0] == said[1] and again["seconds"] < 10


def test_what_has_changed_is_looked_at_again(project: Path, refused: Any) -> None:
    """The record is of one encoder; its file replaced under the same name is another."""
    (project / "models").unlink()
    shutil.copytree(Path(__file__).parents[2] / "models", project / "models")
    assert refused() == ""
    weights = project / "models/malgil-xlsr-mini/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "model.safetensors is no whole safetensors file" in refused()
    weights.write_bytes(whole)
    assert refused() == ""


# --- each fault, and that doing what Next says mends it


def test_an_encoder_that_is_not_there_and_the_advice_works(refused: Any) -> None:
    said = refused("train_asr.encoder=models/none")
    assert "correct the setting" in said
    assert refused("train_asr.encoder=models/malgil-xlsr-mini") == ""


def test_a_checkpoint_without_vocabulary_and_the_advice_works(project: Path, refused: Any) -> None:
    folder = shutil.copytree(project / "models/malgil-xlsr-mini", project / "own")
    (folder / "vocab.json").unlink()
    said = refused("train_asr.encoder=own", "train_asr.vocabulary=checkpoint")
    assert "own has no vocab.json" in said and "set train_asr.vocabulary to jamo" in said
    assert refused("train_asr.encoder=own", "train_asr.vocabulary=jamo") == ""


def test_an_encoder_of_another_type_and_the_advice_works(project: Path, refused: Any) -> None:
    tiny_llm.write_model(project / "llm")
    said = refused("train_asr.encoder=llm")
    assert "llm is a checkpoint of type 'llama'" in said and "choose a checkpoint of one of these" in said
    assert refused("train_asr.encoder=models/malgil-xlsr-mini") == ""


def test_layers_that_are_not_there_and_the_advice_works(refused: Any) -> None:
    said = refused("train_asr.trainable=top_layers", "train_asr.top_layers=9", "embed_asr.layer=7")
    assert "the encoder has 4 layers" in said and "embed_asr.layer = 7" in said
    assert refused("train_asr.trainable=top_layers", "train_asr.top_layers=4", "embed_asr.layer=4") == ""


def test_an_adapter_of_another_rank_or_model_and_the_advice_works(project: Path, refused: Any) -> None:
    said = refused("train_llm.rank=8")
    assert "has rank 16 and alpha 32" in said and "set train_llm.rank" in said
    assert refused("train_llm.rank=16") == ""
    tiny_llm.write_model(project / "base")
    said = refused("base_llm.model=base", "train_llm.blocks=0")
    assert "does not fit the model: 392 are unexpected" in said and "or leave it empty" in said
    assert refused("base_llm.model=base", "train_llm.blocks=0", "train_llm.initial=''") == ""
    said = refused("base_llm.model=base", "train_llm.initial=''", "train_llm.blocks=3")
    assert "train_llm.blocks: 3, but the model has 2" in said
    assert refused("base_llm.model=base", "train_llm.initial=''", "train_llm.blocks=2") == ""


def test_a_store_that_cannot_be_reached_and_the_advice_works(
    refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said = refused()
    assert "cannot be reached" in said and "correct MLFLOW_TRACKING_URI" in said
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert refused() == ""


def test_a_store_of_another_schema_a_damaged_one_and_a_deleted_experiment(
    project: Path, refused: Any
) -> None:
    store = project / "store/mlflow.db"
    store.parent.mkdir()
    with sqlite3.connect(store) as tables:
        tables.execute("CREATE TABLE alembic_version (version_num TEXT)")
        tables.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        tables.execute("INSERT INTO experiments VALUES (7, 'malgil-quick', 'active')")
        tables.execute("INSERT INTO alembic_version VALUES (?)", (newest_schema(),))
    assert refused() == ""

    def change(statement: str) -> None:
        with sqlite3.connect(store) as tables:
            tables.execute(statement)

    change("UPDATE experiments SET lifecycle_stage = 'deleted'")
    said = refused()
    assert "is deleted" in said and "mlflow experiments restore -x 7" in said
    change("UPDATE experiments SET lifecycle_stage = 'active'")
    assert refused() == "", "the advice works"
    change("UPDATE alembic_version SET version_num = '451aebb31d03'")
    assert "has the schema 451aebb31d03" in refused() and "mlflow db upgrade sqlite" in refused()
    store.write_bytes(b"not a database" * 1000)
    assert "is damaged" in refused() and "move it away to begin a new registry" in refused()
    store.rename(project / "away.db")
    assert refused() == "", "the advice works"


@pytest.mark.slow
def test_the_newest_schema_is_that_of_a_store_which_mlflow_makes(project: Path) -> None:
    registry = load(quick=True).registry
    Registry(registry).experiment("any")
    with sqlite3.connect(project / "store/mlflow.db") as tables:
        assert tables.execute("SELECT version_num FROM alembic_version").fetchone()[0] == newest_schema()


def test_names_that_mlflow_does_not_take_and_the_advice_works(refused: Any) -> None:
    said = refused("registry.environments=[staging, v2, latest]")
    assert "'v2', 'latest' cannot be the name of an alias" in said and "neither latest nor v1" in said
    assert refused("registry.environments=[staging, second]") == ""


def test_artifacts_in_a_store_without_its_client(refused: Any) -> None:
    said = refused("registry.artifacts=s3://bucket/path")
    assert "boto3" in said or "bucket" in said
    assert refused("registry.artifacts=store/elsewhere") == "", "the advice works"


def test_a_place_that_cannot_be_written_and_the_advice_works(project: Path, refused: Any) -> None:
    (project / "file").write_text("in the way")
    said = refused("publish.folder=file/published", "registry.artifacts=file/artifacts")
    assert said.count("Next:") == 2 and "file" in said
    (project / "file").unlink()
    assert refused("publish.folder=file/published", "registry.artifacts=file/artifacts") == ""


def test_a_disk_without_room_and_the_advice_works(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus larger than any disk; and the exit code is that of a full disk."""
    from tasks.preflight import capacity

    said = refused("corpus.train_utterances=2000000000", "corpus.train_sentences=120", line="asr")
    assert "no space left for this run" in said and "free some space" in said
    assert capacity.CapacityError.exit_code == 4
    assert refused(line="asr") == ""


def test_a_dvc_yaml_of_other_settings_is_said(project: Path, refused: Any) -> None:
    graph = project / "dvc.yaml"
    text = graph.read_text()
    graph.write_text(text.replace("corpus.seed", "corpus.sead"))
    assert "dvc.yaml reads corpus.sead" in refused() and "restore dvc.yaml from git" in refused()
    graph.write_text(text)
    assert refused() == "", "the advice works"


def test_a_port_in_use_is_said_and_stops_nothing(checked: Any) -> None:
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 4200))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        found = [one for one in checked() if one.check == "servers" and one.state == "warning"]
    assert found and "4200 (Prefect)" in found[0].what and "--prefect-port" in found[0].next_step


# --- the Hub as a target


@pytest.fixture
def hub(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    state = Hub()
    server, address = start(state)
    monkeypatch.setenv("HF_ENDPOINT", address)
    yield state
    server.should_exit = True


@pytest.mark.parametrize(
    ("token", "namespace", "says", "right"),
    [
        ("hf_wrong", "malgil", "answered 401", ("hf_writer", "malgil")),
        ("hf_reader", "malgil", "(role read) cannot write malgil/malgil-asr", ("hf_writer", "malgil")),
        ("hf_writer", "somebody", "cannot write somebody/malgil-asr", ("hf_writer", "speech-team")),
        ("hf_writer", "readers", "cannot write readers/malgil-asr", ("hf_writer", "malgil")),
        ("", "malgil", "HF_TOKEN is not set", ("hf_writer", "malgil")),
    ],
)
def test_token_right_and_namespace_are_known_before_and_the_advice_works(
    token: str, namespace: str, says: str, right: tuple[str, str], hub: Any, refused: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    said = refused("publish.target=hub", f"publish.namespace={namespace}")
    assert says in said and said.count("Next:") == 1 and (not token or token not in said)
    monkeypatch.setenv("HF_TOKEN", right[0])
    assert refused("publish.target=hub", f"publish.namespace={right[1]}") == ""
    assert not any("POST" in line for line in hub.log), "nothing is changed there"


def test_a_hub_that_is_not_there_and_a_name_it_does_not_take(
    refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    said = refused("publish.target=hub", "publish.asr_repo=malgil--asr")
    assert "cannot be reached" in said and "'malgil/malgil--asr' is no name" in said
    assert refused("publish.target=folder", "publish.asr_repo=malgil-asr") == "", "the advice works"


# --- what stops nothing


def test_a_checkout_of_another_user_is_said_with_the_command_that_mends_it(
    project: Path, checked: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to try this
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(project / "gitconfig"))
    said = [one for one in checked() if one.check == "project" and one.state == "warning"]
    assert len(said) == 1 and "another user owns" in said[0].what and refused() == ""
    subprocess.run(said[0].next_step.split(), check=True)
    assert not [one for one in checked() if "another user" in one.what], "it works"


def test_a_remote_that_cannot_be_used_is_said_and_stops_nothing(
    project: Path, checked: Any, refused: Any
) -> None:
    def remote(url: str) -> list[str]:
        (project / ".dvc/config").write_text(
            f"[core]\n    remote = ours\n['remote \"ours\"']\n    url = {url}\n"
        )
        assert refused() == ""
        return [one.what for one in checked() if one.check == "DVC remote" and one.state == "warning"]

    (project / "file").write_text("in the way")
    assert any("file" in what for what in remote(str(project / "file/remote")))
    assert remote(str(project / "remote")) == []
    if find_spec("dvc_s3") is None:
        assert remote("s3://bucket/path") == ["s3://bucket/path needs dvc-s3, which is not installed"]
