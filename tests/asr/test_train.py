"""Fine-tuning: learns, resumes to the same bytes after SIGKILL, survives damaged checkpoints, names what is wrong."""

import json
import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tasks.artifacts import sha256_file
from tasks.asr.checkpoints.checkpoint import load_checkpoint
from tasks.asr.prepared import read_prepared
from tasks.asr.train import train
from tasks.errors import ArtifactError, DataError
from tasks.settings import TrainAsr
from tasks.tracking import read_history
from tests.children import run as run_child
from tests.killed import run_until
from tests.tiny_asr import tiny_settings

ROOT = Path(__file__).parents[2]


def run(settings: TrainAsr, prepared: Path, folder: Path) -> dict[str, object]:
    return train(
        settings,
        prepared=prepared,
        out_dir=folder / "checkpoint",
        training_dir=folder / "training",
        work_dir=folder / "work",
    )


def with_dropout(encoder: Path, folder: Path, **changes: float) -> Path:
    """The encoder with dropout and layer drop."""
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout": 0.1, "attention_dropout": 0.1, "layerdrop": 0.2, **changes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(
    prepared: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainAsr, dict[str, object]]:
    """One uninterrupted fine-tuning, with everything on that a resume has to bring back."""
    folder = tmp_path_factory.mktemp("finished")
    settings = tiny_settings(
        with_dropout(encoder, folder / "encoder"),
        steps=60,
        learning_rate=0.01,
        warmup_share=0.1,
        head_factor=5.0,
        batch_seconds=2.0,
        accumulation=2,
        mask_time_prob=0.1,
        mask_time_length=2,
        mask_feature_prob=0.1,
        mask_feature_length=2,
        unfreeze_share=0.3,
        early_stopping_patience=5,
        evaluate_every=30,
        checkpoint_every=4,
    )
    return folder, settings, run(settings, prepared, folder)


def test_it_learns_and_writes_what_it_says(finished: tuple[Path, TrainAsr, dict[str, object]]) -> None:
    folder, settings, result = finished
    history = read_history(folder / "training" / "history.jsonl")
    losses = [row["loss"] for row in history if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    assert [row["step"] for row in history if "validation_cer" in row] == [30, 60]
    assert result["steps"] == settings.steps
    assert result == json.loads((folder / "training" / "result.json").read_text(encoding="utf-8"))
    best, last = load_checkpoint(folder / "checkpoint"), load_checkpoint(folder / "training" / "last")
    assert best.about["normaliser"] == "ko-1"
    assert best.about["normaliser_steps"] == ["nfc-1", "punctuation-1"]
    assert best.about["step"] == result["best_step"]
    assert last.about["step"] == 60
    assert not (folder / "work" / "checkpoints").exists()


def test_killed_by_sigkill_it_ends_in_the_same_bytes(
    finished: tuple[Path, TrainAsr, dict[str, object]], prepared: Path, tmp_path: Path
) -> None:
    folder, settings, _ = finished
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["train_asr"] = settings.model_dump()
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(params, stream)
    command = [sys.executable, "-m", "tasks.asr.train", "--params", str(tmp_path / "params.yaml")]
    for name in ("out", "training", "work"):
        command += [f"--{name}-dir", str(tmp_path / name)]
    command += ["--prepared", str(prepared)]
    # Two checkpoints are whole on the disk, the third has no note yet: the run is in the middle of its steps.
    run_until("step-00000012.json", command, tmp_path, os.environ)
    assert not (tmp_path / "out").exists()
    second = run_child(command, cwd=ROOT, env=os.environ, text=True)
    assert second.returncode == 0, second.stderr
    result = json.loads((tmp_path / "training" / "result.json").read_text(encoding="utf-8"))
    assert result["resumed_from_step"] == 8
    for name in ("model.safetensors", "config.json", "vocab.json"):
        assert sha256_file(tmp_path / "out" / name) == sha256_file(folder / "checkpoint" / name)
    steps = [
        row["step"]
        for row in read_history(tmp_path / "training" / "history.jsonl")
        if "validation_cer" in row
    ]
    assert steps == [30, 60]


def test_it_stops_early_when_validation_gets_no_better_and_a_resume_remembers(
    settings: TrainAsr, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = settings.model_copy(
        update={"steps": 40, "learning_rate": 1e-12, "evaluate_every": 3, "early_stopping_patience": 3}
    )
    result = run(still, prepared, tmp_path / "whole")
    assert (result["steps"], result["stopped_early"]) == (12, True)  # the first look is the best one
    interrupted(still, prepared, tmp_path / "cut", monkeypatch, at=11)
    again = run(still, prepared, tmp_path / "cut")
    assert again["resumed_from_step"] == 10
    assert (again["steps"], again["stopped_early"]) == (12, True)
    for folder in ("whole", "cut"):
        assert load_checkpoint(tmp_path / folder / "training" / "last").about["step"] == 12
    assert not (tmp_path / "cut" / "work" / "checkpoints").exists()


class _Killed(BaseException):
    """Stands for the end of the process in the middle of a step."""


def interrupted(
    settings: TrainAsr, prepared: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Runs until step `at`, leaving the checkpoints as a kill would."""
    from tasks.asr.training import loop

    original, steps = loop.ctc_loss, []

    def stop(*arguments: object) -> object:
        steps.append(1)
        if len(steps) > at:
            raise _Killed
        return original(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "ctc_loss", stop)
        with pytest.raises(_Killed):
            run(settings, prepared, folder)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    settings: TrainAsr,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    interrupted(settings, prepared, tmp_path, monkeypatch, at=7)
    newest = tmp_path / "work" / "checkpoints" / "step-00000006.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    with caplog.at_level(logging.INFO):
        result = run(settings, prepared, tmp_path)
    assert result["resumed_from_step"] == 4
    assert "damaged" in caplog.text


def test_all_checkpoints_damaged_means_a_fresh_start(
    settings: TrainAsr,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    interrupted(settings, prepared, tmp_path, monkeypatch, at=7)
    for path in (tmp_path / "work" / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    result = run(settings, prepared, tmp_path)
    assert result["resumed_from_step"] == 0
    assert "starting afresh" in caplog.text


def test_checkpoints_of_other_settings_are_not_continued(
    settings: TrainAsr, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(settings, prepared, tmp_path, monkeypatch, at=5)
    other = settings.model_copy(update={"learning_rate": 0.001})
    assert run(other, prepared, tmp_path)["resumed_from_step"] == 0


def changed(prepared: Path, folder: Path, change: object) -> Path:
    """A copy of the prepared speech with other rows."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    rows = pd.read_parquet(folder / "utterances.parquet")
    change(rows).to_parquet(folder / "utterances.parquet", index=False)  # type: ignore[operator]
    return folder


def test_foreign_characters_are_named_with_their_utterance(
    settings: TrainAsr, prepared: Path, tmp_path: Path
) -> None:
    def spoil(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[rows["utterance_id"] == "train-ko+f1-2", "text"] = "TV 켜 줘"
        return rows

    with pytest.raises(DataError, match=r"train-ko\+f1-2.*'T'.*'V'"):
        run(settings, changed(prepared, tmp_path / "data", spoil), tmp_path)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_named(settings: TrainAsr, prepared: Path, tmp_path: Path, split: str) -> None:
    data = changed(prepared, tmp_path / "data", lambda rows: rows[rows["split"] != split])
    with pytest.raises(DataError, match=f"no utterance in split '{split}'"):
        run(settings, data, tmp_path)


def test_broken_prepared_folders_get_a_message(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        read_prepared(tmp_path)
    data = changed(prepared, tmp_path / "column", lambda rows: rows.drop(columns="text"))
    with pytest.raises(DataError, match="no column text"):
        read_prepared(data)
    shutil.copytree(prepared, tmp_path / "cut")
    audio = np.load(tmp_path / "cut" / "audio.npy")
    np.save(tmp_path / "cut" / "audio.npy", audio[:-1])
    with pytest.raises(DataError, match="shorter than its rows say"):
        read_prepared(tmp_path / "cut")
    (tmp_path / "cut" / "audio.npy").write_bytes(b"")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_prepared(tmp_path / "cut")


def test_a_diverging_run_says_so_and_leaves_earlier_results(
    settings: TrainAsr, prepared: Path, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "earlier").touch()
    wild = settings.model_copy(update={"learning_rate": 1e30, "steps": 20, "warmup_share": 0.0})
    with pytest.raises(ArtifactError, match="diverged"):
        run(wild, prepared, tmp_path)
    assert (tmp_path / "checkpoint" / "earlier").exists()
