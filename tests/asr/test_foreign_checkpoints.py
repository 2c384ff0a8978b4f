"""Checkpoints that Malgil did not write: other types, other files, torn ones, and those of a Hub."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCTC

from tasks.asr.checkpoints.checkpoint import MODEL_TYPES, Vocabulary, load_checkpoint, load_encoder
from tasks.asr.checkpoints.layout import pinned
from tasks.asr.engines.torch_model import TorchRecogniser
from tasks.asr.train import train
from tasks.errors import ModelError
from tasks.settings import TrainAsr
from tests.asr.test_model_types import clips
from tests.asr.tiny_models import foreign_checkpoint, tiny_model
from tests.hub_server import Hub, Repo, files_of, redirect, start

JAMO = Vocabulary.of_jamo()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_checkpoint(tmp_path_factory.mktemp("theirs"))


@pytest.fixture
def copy(theirs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(theirs, tmp_path / "copy"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), encoding="utf-8")


def without_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("lm_head")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def lose_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if ".layers.1." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def only_pickled(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save({"model": weights, "epoch": 3}, folder / "checkpoint_best.pt")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("kind", ["whisper", "bert", "llama", "wav2vec2-bert", "sew", "sew-d"])
def test_another_type_is_named_before_its_weights_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"never looked at")
    for load in (lambda: load_encoder(str(tmp_path), JAMO, seed=0), lambda: load_checkpoint(tmp_path)):
        with pytest.raises(ModelError, match=f"type '{kind}'") as caught:
            load()
        assert all(allowed in caught.value.rule for allowed in MODEL_TYPES)
        assert "choose a checkpoint" in caught.value.next_step


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "half of the weights": (cut, "cannot be loaded"),
    "a layer is missing": (lose_a_layer, r"tensors are missing.*layers\.1\."),
    "other shape": (lambda f: change(f / "config.json", intermediate_size=80), "of another shape"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors"),
    "pickled": (only_pickled, r"no model\.safetensors.*checkpoint_best\.pt"),
    "config cut": (lambda f: (f / "config.json").write_text('{"model_ty'), r"config\.json"),
    "8 kHz": (lambda f: change(f / "preprocessor_config.json", sampling_rate=8_000), "8000 Hz"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_broken_checkpoints_are_named(broken: str, copy: Path) -> None:
    spoil, says = BREAKS[broken]
    spoil(copy)
    for load in (lambda: load_encoder(str(copy), JAMO, seed=0), lambda: load_checkpoint(copy)):
        with pytest.raises(Exception, match=says) as caught:
            load()
        assert type(caught.value).__module__ == "tasks.errors"


def test_a_pre_trained_checkpoint_gets_a_head_and_does_not_transcribe(copy: Path) -> None:
    without_head(copy)
    source = AutoModel.from_pretrained(copy).state_dict()
    tuned = load_encoder(str(copy), JAMO, seed=0)
    assert tuned.lm_head.weight.shape[0] == len(JAMO.symbols)
    assert all(torch.equal(tuned.wav2vec2.state_dict()[name], value) for name, value in source.items())
    with pytest.raises(ModelError, match="no CTC head") as caught:
        load_checkpoint(copy)
    assert "train_asr.encoder" in caught.value.next_step


def test_sharded_weights_load(copy: Path) -> None:
    expected = load_checkpoint(copy).model
    (copy / "model.safetensors").unlink()
    expected.save_pretrained(copy, max_shard_size="40KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 1
    again = load_checkpoint(copy).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in expected.state_dict().items())


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Hub, str]]:
    state = Hub()
    running, address = start(state)
    yield state, address
    running.should_exit = True


@pytest.fixture
def hub(server: tuple[Hub, str], theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub with one checkpoint, and an empty cache before it."""
    state, address = server
    files = {**files_of(theirs), "pytorch_model.bin": (b"never fetched", False)}
    whisper = {"config.json": (b'{"model_type": "whisper"}', False), "model.safetensors": (b"0" * 99, True)}
    for name, content in (("team/korean", files), ("team/whisper", whisper)):
        state.repos[name] = repo = Repo()
        repo.branches["main"] = repo.commit(content, "")
    state.log.clear()
    redirect(monkeypatch, address, tmp_path / "cache")
    return state


def fetched(hub: Hub) -> set[str]:
    return {line.rpartition("/")[2] for line in hub.log if line.startswith("GET") and "/resolve/" in line}


def test_a_hub_id_is_what_its_folder_is(hub: Hub, theirs: Path) -> None:
    audio = clips()
    assert TorchRecogniser("team/korean").transcribe(audio) == TorchRecogniser(theirs).transcribe(audio)
    assert "model.safetensors" in fetched(hub) and "pytorch_model.bin" not in fetched(hub)
    here, there = (load_encoder(name, JAMO, seed=1).state_dict() for name in (str(theirs), "team/korean"))
    assert all(torch.equal(value, there[name]) for name, value in here.items())


def test_a_hub_id_can_be_pinned_to_a_tag_a_branch_or_a_commit(hub: Hub, tmp_path: Path) -> None:
    repo = hub.repos["team/korean"]
    old = repo.branches["main"]
    repo.tags["v1"] = old
    other = foreign_checkpoint(tmp_path / "other")
    changed = {name: value + 0.1 for name, value in load_file(other / "model.safetensors").items()}
    save_file(changed, other / "model.safetensors", {"format": "pt"})
    repo.branches["main"] = new = repo.commit(files_of(other), old)
    repo.branches["dev"] = old
    weights = {
        name: load_encoder(name, JAMO, seed=1).base_model.encoder.layers[0].attention.q_proj.weight
        for name in ("team/korean", "team/korean@v1", f"team/korean@{old}")
    }
    assert torch.equal(weights["team/korean@v1"], weights[f"team/korean@{old}"])
    assert not torch.equal(weights["team/korean"], weights["team/korean@v1"])
    assert pinned("team/korean") == f"team/korean@{new}"
    assert pinned("team/korean@v1") == pinned("team/korean@dev") == f"team/korean@{old}"
    assert pinned(str(other)) == str(other)
    with pytest.raises(ModelError, match="'team/korean@v2' cannot be loaded"):
        load_encoder("team/korean@v2", JAMO, seed=0)
    for wrong in ("team/korean@", "@v1"):
        with pytest.raises(ModelError, match="no such folder"):
            load_encoder(wrong, JAMO, seed=0)


def test_a_recogniser_says_from_which_commit_it_was_fine_tuned(
    hub: Hub, prepared: Path, settings: TrainAsr, tmp_path: Path
) -> None:
    repo = hub.repos["team/korean"]
    repo.tags["v1"] = commit = repo.branches["main"]
    few = settings.model_copy(update={"encoder": "team/korean@v1", "steps": 2, "batch_seconds": 1.0})
    places = {"training_dir": tmp_path / "training", "work_dir": tmp_path / "work"}
    result = train(few, prepared=prepared, out_dir=tmp_path / "trained", **places)
    assert result["encoder"] == f"team/korean@{commit}"
    assert load_checkpoint(tmp_path / "trained").about["encoder"] == f"team/korean@{commit}"


def test_weights_of_another_type_are_not_even_fetched(hub: Hub) -> None:
    with pytest.raises(ModelError, match="type 'whisper'"):
        load_encoder("team/whisper", JAMO, seed=0)
    assert fetched(hub) == {"config.json"}


def test_an_unknown_hub_id_is_named(hub: Hub) -> None:
    with pytest.raises(ModelError, match="team/nobody") as caught:
        load_encoder("team/nobody", JAMO, seed=0)
    assert "HF_TOKEN" in caught.value.next_step
    asked = len(hub.log)
    with pytest.raises(ModelError, match="no such folder"):
        load_encoder("./team/nobody", JAMO, seed=0)
    assert len(hub.log) == asked  # a path is not looked for on the network


def test_a_model_whose_head_has_more_outputs_than_symbols_transcribes(tmp_path: Path) -> None:
    folder = foreign_checkpoint(tmp_path / "theirs")
    wider = tiny_model("wav2vec2", outputs=40, blank_id=19)
    torch.nn.init.normal_(wider.lm_head.weight, std=3.0)
    wider.save_pretrained(folder)
    assert AutoModelForCTC.from_pretrained(folder).lm_head.out_features == 40
    assert any(TorchRecogniser(folder).transcribe(clips()))
