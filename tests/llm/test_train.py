"""Training learns, resumes to the same weights after SIGKILL, and says what is wrong."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.artifacts import read_json
from tasks.errors import DataError, ModelError, SettingsError
from tasks.inference.loading import load_model
from tasks.llm.hardware import choose_kernels
from tasks.llm.merge import merge
from tasks.llm.train import train
from tasks.llm.training import learning_rate
from tasks.settings import TrainLlm
from tasks.tracking import read_history
from tests.killed import run_until

ROOT = Path(__file__).parents[2]
PARAMS: dict[str, Any] = {
    "initial": "",
    "from_champion": False,
    "order": "random",
    "decision_weight": 1.0,
    "blocks": 0,
    "seed": 1,
    "rank": 8,
    "alpha": 16.0,
    "dropout": 0.1,
    "learning_rate": 0.02,
    "warmup_share": 0.1,
    "pack_length": 400,
    "max_tokens": 24_000,
    "validation_examples": 8,
    "kernels": "auto",
    "evaluate_every": 30,
    "checkpoint_every": 5,
}


def run(base: Path, prepared: Path, out: Path, **changes: Any) -> Any:
    places = {name: out / name for name in ("adapter", "training", "work")}
    return train(TrainLlm(**{**PARAMS, **changes}), base=base, prepared=prepared, **places)


@pytest.fixture(scope="module")
def trained(base: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    run(base, prepared, out)
    return out


def test_it_learns_and_reports(trained: Path, prepared: Path) -> None:
    result = read_json(trained / "training/result.json")
    history = read_history(trained / "training/history.jsonl")
    losses = [row["loss"] for row in history if "loss" in row]
    looks = [row["validation_loss"] for row in history if "validation_loss" in row]
    assert len(losses) == result["steps"] and len(looks) >= 2
    assert losses[-1] < 0.7 * losses[0]
    assert looks[-1] < looks[0]
    assert result["tokens"] >= PARAMS["max_tokens"]
    assert result["epochs"] > 1  # the budget is more than one pass
    assert not (trained / "work/checkpoints").exists()
    if not torch.cuda.is_available():
        assert result["device"] == "cpu"
        assert result["kernels"] == "off (auto: training runs on cpu)"
        assert result["kernels_used"] == {}


def test_a_killed_run_ends_with_the_same_weights(
    base: Path, prepared: Path, trained: Path, tmp_path: Path
) -> None:
    script = tmp_path / "killed.py"
    places = {name: str(tmp_path / name) for name in ("adapter", "training", "work")}
    script.write_text(
        "from pathlib import Path\n"
        "from tasks.llm.train import train\n"
        "from tasks.settings import TrainLlm\n"
        f"places = {{name: Path(place) for name, place in {places!r}.items()}}\n"
        f"train(TrainLlm(**{PARAMS!r}), base=Path({str(base)!r}), prepared=Path({str(prepared)!r}), **places)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run_until("step-00000010.json", [sys.executable, str(script)], tmp_path, environment)
    assert not (tmp_path / "adapter").exists()
    (saved,) = (read_json(note)["step"] for note in (tmp_path / "work/checkpoints").glob("step-*.json"))
    assert 0 < saved < read_json(trained / "training/result.json")["steps"]
    run(base, prepared, tmp_path)
    once = load_file(trained / "adapter/adapter_model.safetensors")
    twice = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert once.keys() == twice.keys() and all(torch.equal(once[name], twice[name]) for name in once)
    steps = [row["step"] for row in read_history(tmp_path / "training/history.jsonl") if "loss" in row]
    assert steps == list(range(1, len(steps) + 1))


def test_the_hardest_first_learns_and_resumes_to_the_same_weights(
    base: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "order": "hardest",
        "decision_weight": 2.0,
        "dropout": 0.0,
        "max_tokens": 6_000,
        "kernels": "off",
    }
    run(base, prepared, tmp_path / "once", **changes)
    losses = [row["loss"] for row in curve(tmp_path / "once") if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    step, done = torch.optim.AdamW.step, itertools.count(1)

    def stopped(self: Any, *args: Any) -> Any:
        if next(done) == 9:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(base, prepared, tmp_path / "twice", **changes)
    run(base, prepared, tmp_path / "twice", **changes)
    once, twice = (
        load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("once", "twice")
    )
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert curve(tmp_path / "once") == curve(tmp_path / "twice")


def test_merging_adds_the_adapter(base: Path, trained: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    merge(base=base, adapter=trained / "adapter", merged=tmp_path / "merged")
    adapted = PeftModel.from_pretrained(load_model(base), str(trained / "adapter")).eval()
    merged = load_model(tmp_path / "merged").eval()
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        one, other, plain = (model(input_ids=ids).logits for model in (adapted, merged, load_model(base)))
    assert (one - other).abs().max() < 0.02 * (one - plain).abs().max()
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "merged" / name).read_bytes() == (base / name).read_bytes()


def test_a_corrupted_adapter_or_base_is_a_model_error(base: Path, trained: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(trained / "adapter", adapter)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="adapter cannot be loaded"):
        merge(base=base, adapter=adapter, merged=tmp_path / "merged")
    broken = tmp_path / "base"
    shutil.copytree(base, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="base cannot be loaded"):
        merge(base=broken, adapter=trained / "adapter", merged=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_empty_split_is_said(base: Path, prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "prepared")
    (tmp_path / "prepared/train.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"train.jsonl is empty"):
        run(base, tmp_path / "prepared", tmp_path)


def test_learning_rate_rises_and_falls() -> None:
    params = TrainLlm(**{**PARAMS, "learning_rate": 1.0, "warmup_share": 0.2})
    rates = [learning_rate(step, 10, params) for step in range(10)]
    assert rates == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]


FEW: dict[str, Any] = {
    "dropout": 0.0,
    "pack_length": 160,
    "max_tokens": 400,
    "evaluate_every": 2,
    "checkpoint_every": 1,
    "validation_examples": 2,
}


def curve(out: Path) -> list[dict[str, float]]:
    return read_history(out / "training/history.jsonl")


@pytest.fixture(scope="module")
def with_kernels(base: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of few tokens on the kernels: on a GPU, or under Triton's interpreter."""
    pytest.importorskip("triton")
    out = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALGIL_KERNELS", "triton")
        run(base, prepared, out, **FEW, kernels="on")
    return out


def test_the_kernels_give_the_same_curve_and_say_so(
    base: Path, prepared: Path, with_kernels: Path, tmp_path: Path
) -> None:
    run(base, prepared, tmp_path, **FEW, kernels="off")
    plain, ours = curve(tmp_path), curve(with_kernels)
    assert len(plain) == len(ours) >= 5
    for wanted, found in zip(plain, ours, strict=True):
        # from step 2 on the weights differ: Adam's first updates have the size of the rate, whatever the gradient's
        assert found == pytest.approx(wanted, rel=2e-5 if found["step"] == 1 else 1e-3)
    result = read_json(with_kernels / "training/result.json")
    assert result["kernels"].startswith("on (train_llm.kernels = on")
    for op in ("rms_norm", "add_rms_norm", "glu", "rope", "linear_cross_entropy"):
        assert "triton" in result["kernels_used"][op]
    assert result["kernels_used"]["lora_linear"] != ["reference"]
    off = read_json(tmp_path / "training/result.json")
    assert off["kernels"] == "off (train_llm.kernels = off)" and off["kernels_used"] == {}


def test_a_run_on_the_kernels_resumes_to_the_same_weights(
    base: Path, prepared: Path, with_kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALGIL_KERNELS", "triton")
    step = torch.optim.AdamW.step
    done = 0

    def killed(self: Any, *args: Any) -> Any:
        nonlocal done
        done += 1
        if done == 3:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(base, prepared, tmp_path, **FEW, kernels="on")
    assert list((tmp_path / "work/checkpoints").glob("step-*2.json"))
    run(base, prepared, tmp_path, **FEW, kernels="on")
    once = load_file(with_kernels / "adapter/adapter_model.safetensors")
    twice = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert once.keys() == twice.keys() and all(torch.equal(once[name], twice[name]) for name in once)
    assert curve(tmp_path) == curve(with_kernels)


def test_on_where_no_kernel_can_run_is_refused(
    base: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALGIL_KERNELS", "reference")
    with pytest.raises(SettingsError, match=r"(?s)train_llm.kernels: 'on' needs a CUDA GPU.*auto or off"):
        run(base, prepared, tmp_path, kernels="on")
    assert not (tmp_path / "training").exists()


@pytest.mark.parametrize(
    ("setting", "place", "wish", "family", "on", "why"),
    [
        ("off", "cuda", "", "llama", False, "train_llm.kernels = off"),
        ("auto", "cpu", "triton", "llama", False, "auto: training runs on cpu"),
        ("auto", "cuda", "", "llama", True, "train_llm.kernels = auto, cuda"),
        ("auto", "cuda", "", "gpt2", False, "auto: model_type 'gpt2' is none of llama"),
        ("auto", "cuda", "reference", "llama", False, "auto: MALGIL_KERNELS=reference"),
        ("on", "cuda", "", "llama", True, "train_llm.kernels = on, cuda"),
    ],
)
def test_where_the_kernels_are_on(
    setting: Any,
    place: str,
    wish: str,
    family: str,
    on: bool,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr("malgil_kernels.dispatch.capability", lambda _: 90)  # there may be no GPU to ask
    monkeypatch.setenv("MALGIL_KERNELS", wish)
    found = choose_kernels(setting, model_type=family, place=torch.device(place), dtype=torch.float32)
    assert found.on == on and found.reason.startswith(why)


def test_without_triton_auto_trains_as_before_and_nothing_of_the_kernels_is_imported() -> None:
    script = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "import torch, tasks.llm.train\n"
        "from tasks.llm.hardware import choose_kernels\n"
        "where = {'model_type': 'llama', 'dtype': torch.float32}\n"
        "assert not choose_kernels('auto', place=torch.device('cpu'), **where).on\n"
        "assert not any(name.startswith('malgil_kernels') for name in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)
