"""Two processes learn what one does, can be killed together, and say an error of theirs once."""

import json
import os
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file

from tasks.asr.train import train
from tasks.asr.training.processes import launch
from tasks.errors import SettingsError
from tasks.settings import TrainAsr
from tasks.tracking import read_history
from tests.asr.refusal import refuse
from tests.children import run as run_child
from tests.killed import run_until
from tests.tiny_asr import tiny_settings

ROOT = Path(__file__).parents[2]
TOLERANCE = (
    1e-5  # of losses and weights, between two gloo processes and one process with the same global batch
)


def command(settings: TrainAsr, prepared: Path, folder: Path) -> list[str]:
    """Arguments of the stage after `python`."""
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["train_asr"] = settings.model_dump()
    folder.mkdir(exist_ok=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(params, stream)
    words = ["-m", "tasks.asr.train", "--params", str(folder / "params.yaml"), "--prepared", str(prepared)]
    for name in ("out", "training", "work"):
        words += [f"--{name}-dir", str(folder / name)]
    return words


def test_two_processes_give_the_loss_curve_of_one_even_when_killed(
    encoder: Path, prepared: Path, tmp_path: Path
) -> None:
    both = {"steps": 40, "batch_seconds": 2.0, "evaluate_every": 40, "checkpoint_every": 5}
    both |= {"learning_rate": 0.002, "mask_time_prob": 0.1, "mask_time_length": 2, "unfreeze_share": 0.5}
    one = tiny_settings(encoder, accumulation=2, processes=1, **both)
    train(
        one,
        prepared=prepared,
        out_dir=tmp_path / "one" / "out",
        training_dir=tmp_path / "one" / "training",
        work_dir=tmp_path / "one" / "work",
    )
    folder = tmp_path / "two"
    words = command(tiny_settings(encoder, accumulation=1, processes=2, **both), prepared, folder)
    run_until("step-00000010.json", [sys.executable, *words], folder, os.environ)  # its second checkpoint
    assert not (folder / "out").exists()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    second = run_child([*torchrun, *words], cwd=ROOT, env=os.environ, text=True)
    assert second.returncode == 0, second.stderr
    result = json.loads((folder / "training" / "result.json").read_text(encoding="utf-8"))
    assert result["resumed_from_step"] == 5
    assert result["processes"] == 2
    alone, together = (
        read_history(tmp_path / name / "training" / "history.jsonl") for name in ("one", "two")
    )
    assert [row["step"] for row in together] == [row["step"] for row in alone]
    for mine, theirs in zip(alone, together, strict=True):
        assert theirs.get("loss", 0.0) == pytest.approx(mine.get("loss", 0.0), rel=TOLERANCE)
    last = [load_file(tmp_path / name / "training" / "last" / "model.safetensors") for name in ("one", "two")]
    for name, value in last[0].items():
        assert float((value - last[1][name]).abs().max()) < TOLERANCE, name


def test_an_error_in_the_processes_is_raised_once_where_they_were_started(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SettingsError) as raised:
        launch(2, refuse, "train_asr.top_layers")
    assert (
        raised.value.args
        == SettingsError("params.yaml", ["train_asr.top_layers = 9: too many"], "lower it").args
    )
    assert str(raised.value).count("train_asr.top_layers = 9: too many") == 1
    written = capfd.readouterr()
    assert "SettingsError" not in written.out + written.err  # the processes themselves say nothing
