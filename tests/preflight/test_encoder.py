"""An encoder of the Hub before a run: its small files tell its type, nothing else is fetched."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

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
    config = json.loads((MINI / "config.json").read_text())
    Wav2Vec2ForCTC(Wav2Vec2Config(**{**config, "feat_extract_norm": "group"})).save_pretrained("own")
    asked = ("train_asr.encoder=own", "train_asr.chunk_frames=8")
    said = refused(*asked, line="asr")
    assert "needs wav2vec2 or HuBERT with layer norm" in said and "set train_asr.chunk_frames to 0" in said
    assert refused(asked[0], "train_asr.chunk_frames=0", line="asr") == ""


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if ".layers.2." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 512}))


def of_integers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("k_proj.weight"))
    save_file({**weights, name: weights[name].to(torch.int8)}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("fault", [without_a_layer, wider, of_integers])
def test_weights_that_are_not_the_encoders_are_known_before_and_the_advice_works(
    fault: Any, project: Path, refused: Any
) -> None:
    folder = shutil.copytree(MINI, project / "own", ignore=shutil.ignore_patterns("PROVENANCE.json"))
    asked = ("train_asr.encoder=own", "embed_asr.model=own")
    assert refused(*asked, line="asr") == ""
    fault(folder)
    said = refused(*asked, line="asr")
    assert "encoder: own" in said and "embedding model: own" in said and "Next: " in said
    shutil.copy(MINI / "config.json", folder)
    shutil.copy(MINI / "model.safetensors", folder)
    assert refused(*asked, line="asr") == "", "copied again"


def test_an_encoder_of_pickled_weights_is_converted_before_the_run_or_refused(
    project: Path, refused: Any
) -> None:
    folder = shutil.copytree(MINI, project / "own", ignore=shutil.ignore_patterns("PROVENANCE.json"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    asked = ("train_asr.encoder=own", "embed_asr.model=own")
    assert refused(*asked, line="asr") == ""
    torch.save({**weights, "step": Path("a")}, folder / "pytorch_model.bin")
    said = refused(*asked, line="asr")
    assert "encoder: own/pytorch_model.bin asks for pathlib" in said and "name a checkpoint with safe" in said
    (folder / "pytorch_model.bin").unlink()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert refused(*asked, line="asr") == "", "safetensors"


def test_a_shape_that_no_model_has_is_known_before_a_training_from_scratch(
    project: Path, refused: Any
) -> None:
    folder = shutil.copytree(MINI, project / "own")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "conv_kernel": [10, 3]}))
    asked = ("train_asr.encoder=own", "train_asr.from_scratch=true")
    assert "own cannot be loaded" in refused(*asked, line="asr")
    shutil.copy(MINI / "config.json", folder)
    assert refused(*asked, line="asr") == ""
