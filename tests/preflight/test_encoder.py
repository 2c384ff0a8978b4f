"""An encoder of the Hub before a run: its small files tell its type, nothing else is fetched."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import Hub, Repo, files_of, redirect, start

MINI = Path(__file__).parents[2] / "models/malgil-xlsr-mini"


@pytest.fixture
def hub(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()
    server, address = start(state)
    redirect(monkeypatch, address, tmp_path / "cache")
    monkeypatch.setenv("HF_ENDPOINT", address)
    yield state
    server.should_exit = True


def put(hub: Hub, name: str, folder: Path) -> None:
    repo = hub.repos[name] = Repo()
    repo.branches["main"] = repo.commit(files_of(folder), "")


def test_an_encoder_of_the_hub_is_asked_for_and_not_fetched(
    hub: Hub, checked: Any, refused: Any, tmp_path: Path
) -> None:
    put(hub, "team/mini", MINI)
    assert refused("train_asr.encoder=team/mini", line="asr") == ""
    said = [one.what for one in checked("train_asr.encoder=team/mini", line="asr") if one.check == "encoder"]
    assert "team/mini is on the Hub in safetensors; the run fetches it" in said
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert "checkpoint 'team/none' cannot be loaded" in refused("train_asr.encoder=team/none", line="asr")
    assert "check the network, name, revision and HF_TOKEN" in refused(
        "train_asr.encoder=team/none", line="asr"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "whisper"}, "is a checkpoint of type 'whisper'"),
        ({"malgil_streaming": {"chunk_frames": 4}}, "is a streaming one, and train_asr.chunk_frames is 0"),
    ],
)
def test_an_encoder_that_cannot_be_fine_tuned_is_known_before(
    change: dict[str, Any], says: str, hub: Hub, refused: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(MINI, tmp_path / "other")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    put(hub, "team/other", folder)
    assert says in refused("train_asr.encoder=team/other", line="asr")
    put(hub, "team/mini", MINI)
    assert refused("train_asr.encoder=team/mini", line="asr") == "", "the advice works: another checkpoint"


def test_a_repository_without_weights_is_said(hub: Hub, refused: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(MINI, tmp_path / "none")
    (folder / "model.safetensors").unlink()
    put(hub, "team/none", folder)
    assert "team/none has no weights" in refused("train_asr.encoder=team/none", line="asr")


def test_streaming_of_an_encoder_that_cannot_and_the_advice_works(project: Path, refused: Any) -> None:
    folder = shutil.copytree(MINI, project / "own")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "feat_extract_norm": "group"}))
    asked = ("train_asr.encoder=own", "train_asr.chunk_frames=8")
    said = refused(*asked, line="asr")
    assert "needs wav2vec2 or HuBERT with layer norm" in said and "set train_asr.chunk_frames to 0" in said
    assert refused(asked[0], "train_asr.chunk_frames=0", line="asr") == ""
