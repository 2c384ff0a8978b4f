"""Encoders of the Hub that are gone on from: one commit throughout, and what was made says which."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
from safetensors.torch import load_file, save_file

from tasks.artifacts import read_json, sha256_file
from tasks.asr import provenance
from tasks.asr.checkpoints.checkpoint import load_checkpoint
from tasks.asr.prepared import read_prepared
from tasks.asr.pretrain import pretrain
from tasks.asr.transfer.study import study
from tasks.errors import ModelError
from tasks.params import load
from tasks.settings import Pretrain, StudyAsr
from tests.hub_server import Hub, Repo, files_of, redirect, start
from tests.tiny_asr import tiny_settings

PROJECTION = "wav2vec2.encoder.layers.0.attention.q_proj.weight"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Hub, str]]:
    state = Hub()
    running, address = start(state)
    yield state, address
    running.should_exit = True


@dataclass
class Team:
    """`team/encoder` on a Hub: two commits, the first with the tag `v1`, and their weights."""

    hub: Hub
    first: str
    second: str
    weights: dict[str, Path]


@pytest.fixture
def team(server: tuple[Hub, str], encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    state, address = server
    state.repos["team/encoder"] = repo = Repo()
    (other := tmp_path / "other").mkdir()
    for file in encoder.iterdir():
        if file.name != "PROVENANCE.json":  # its hash would be another
            shutil.copyfile(file, other / file.name)
    changed = {name: value + 0.1 for name, value in load_file(other / "model.safetensors").items()}
    save_file(changed, other / "model.safetensors", {"format": "pt"})
    repo.tags["v1"] = first = repo.commit(files_of(encoder), "")
    repo.branches["main"] = second = repo.commit(files_of(other), first)
    whisper = {"config.json": (b'{"model_type": "whisper"}', False), "model.safetensors": (b"0" * 99, True)}
    state.repos["team/whisper"] = odd = Repo()
    odd.branches["main"] = odd.commit(whisper, "")
    state.log.clear()
    redirect(monkeypatch, address, tmp_path / "cache")
    weights = {first: encoder / "model.safetensors", second: other / "model.safetensors"}
    return Team(state, first, second, weights)


@pytest.fixture
def audio(prepared: Path, tmp_path: Path) -> Path:
    """A folder of sixteen recordings."""
    (folder := tmp_path / "audio").mkdir()
    _, store = read_prepared(prepared).split("train")
    for number in range(16):
        soundfile.write(folder / f"{number}.wav", store.clip(number), 16_000)
    return folder


def few_steps(**changes: object) -> Pretrain:
    few = {"utterances": 16, "steps": 1, "checkpoint_every": 1, "batch_seconds": 2.0, "learning_rate": 1e-9}
    shipped: Pretrain = load().pretrain
    return shipped.model_copy(update={**few, "languages": ("es",), **changes})


@pytest.mark.parametrize("source", ["espeak", "audio"])
def test_pretraining_goes_on_from_the_commit_that_was_asked_for(
    source: str, team: Team, audio: Path, tmp_path: Path
) -> None:
    for asked, commit in (("@v1", team.first), ("", team.second), (f"@{team.first}", team.first)):
        settings = few_steps(source=source, corpus=str(audio), initial=f"team/encoder{asked}")
        made = pretrain(settings, out_dir=tmp_path / "made", work_dir=tmp_path / "work")
        found, expected = (
            load_file(path)[PROJECTION] for path in (made / "model.safetensors", team.weights[commit])
        )
        assert (found - expected).abs().max() < 1e-6, "the step is too small to be seen"
        about = read_json(made / "PROVENANCE.json")
        assert about["initial"] == {
            "name": f"team/encoder@{commit}",
            "sha256": sha256_file(team.weights[commit]),
        }
        assert about["params"]["initial"] == f"team/encoder@{commit}"


def test_a_branch_that_moves_while_the_speech_is_made_changes_nothing(
    team: Team, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.asr import pretrain as module

    inner = module.read_speech

    def slow(*arguments: Any) -> Any:
        team.hub.repos["team/encoder"].branches["main"] = team.first
        return inner(*arguments)

    monkeypatch.setattr(module, "read_speech", slow)
    settings = few_steps(source="audio", corpus=str(audio), initial="team/encoder")
    made = pretrain(settings, out_dir=tmp_path / "made", work_dir=tmp_path / "work")
    assert read_json(made / "PROVENANCE.json")["initial"]["name"] == f"team/encoder@{team.second}"


@pytest.mark.parametrize("source", ["espeak", "audio"])
@pytest.mark.parametrize(
    ("initial", "says"),
    [
        ("team/encoder@v2", "'team/encoder@v2' cannot be loaded"),
        ("team/nobody", "'team/nobody' cannot be loaded"),
        ("team/whisper", "type 'whisper'"),
        ("/no/encoder", "'/no/encoder' cannot be loaded"),
    ],
)
def test_what_cannot_be_gone_on_from_is_said_before_any_speech_is_made(
    source: str, initial: str, says: str, team: Team, audio: Path, tmp_path: Path
) -> None:
    settings = few_steps(source=source, corpus=str(audio), initial=initial)
    with pytest.raises(ModelError, match=says) as caught:
        pretrain(settings, out_dir=tmp_path / "made", work_dir=tmp_path / "work")
    assert "pretrain.initial" in caught.value.next_step
    assert not (tmp_path / "work").exists() and not (tmp_path / "made").exists()
    assert not [line for line in team.hub.log if "/resolve/" in line and "safetensors" in line]


def test_the_weights_of_a_hub_encoder_are_those_that_its_provenance_names(
    team: Team, audio: Path, tmp_path: Path
) -> None:
    repo = team.hub.repos["team/encoder"]
    wrong = {
        **repo.commits[team.second],
        "PROVENANCE.json": (json.dumps({"sha256": "0" * 64}).encode(), False),
    }
    repo.branches["main"] = repo.commit(wrong, team.second)
    for source in ("espeak", "audio"):
        with pytest.raises(Exception, match="PROVENANCE") as caught:
            pretrain(
                few_steps(source=source, corpus=str(audio), initial="team/encoder"),
                out_dir=tmp_path / "made",
                work_dir=tmp_path / source,
            )
        assert type(caught.value).__name__ == "ArtifactError"


def test_a_study_names_the_commit_and_does_not_mix_it_with_another(
    team: Team, prepared: Path, tmp_path: Path
) -> None:
    small = StudyAsr(sizes=(3,), steps=(1,), seeds=(1,), batch_seconds=3.0, test_utterances=3)
    repo = team.hub.repos["team/encoder"]
    training = tiny_settings(Path("unused")).model_copy(update={"encoder": "team/encoder@main"})
    places = {"prepared": prepared, "out_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
    repo.branches["main"] = team.first
    study(small, training, **places)
    written = read_json(tmp_path / "out" / "asr_transfer.json")
    assert written["encoder"] == {
        "asked": "team/encoder@main",
        "name": f"team/encoder@{team.first}",
        "sha256": sha256_file(team.weights[team.first]),
    }
    assert study(small, training, **places, so_far=True)["runs_done"] == written["runs_planned"]
    repo.branches["main"] = team.second
    with pytest.raises(Exception, match="no finished run"):  # those that are there are of the other weights
        study(small, training, **places, so_far=True)


def test_a_checkpoint_is_named_without_its_path_and_by_all_its_weights(encoder: Path, tmp_path: Path) -> None:
    assert provenance.checkpoint(str(encoder)) == {
        "name": encoder.name,
        "sha256": sha256_file(encoder / "model.safetensors"),
    }
    (folder := tmp_path / "shards").mkdir()
    shutil.copyfile(encoder / "config.json", folder / "config.json")
    load_checkpoint(encoder).model.save_pretrained(folder, max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    whole = provenance.checkpoint(str(folder))
    assert whole["name"] == "shards"
    weights = load_file(shards[-1])
    save_file({name: value + 0.1 for name, value in weights.items()}, shards[-1], {"format": "pt"})
    assert provenance.checkpoint(str(folder)) != whole
