"""The benchmark at real size: what it counts, whom it refuses, and that it runs end to end on a tiny model."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from tasks.artifacts import read_json, write_json
from tasks.asr.engines.channels_last import multiply_out

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import asr_arithmetic
import asr_real_size as real_size
import asr_systems as systems


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tiny model, exports and files, as the command prepares them."""
    return real_size.prepare(real_size.QUICK, tmp_path_factory.mktemp("real-size") / "tiny")


def job(place: Any, name: str) -> dict[str, Any]:
    system = next(system for system in real_size.systems() if system.name == name)
    return place.job(system, 1) | {"rounds": 1, "variants": []}


def answer(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    write_json(folder / "job.json", asked)
    assert systems.main(folder / "job.json", folder / "result.json") == 0
    return read_json(folder / "result.json")


def test_the_arithmetic_is_what_torch_counts() -> None:
    config = Wav2Vec2Config(vocab_size=40, **real_size.QUICK.config)
    model = Wav2Vec2ForCTC(config).eval()
    multiply_out(model)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.randn(1, 12_345))
    assert sum(asr_arithmetic.products(config, 12_345).values()) == pytest.approx(counter.get_total_flops())


def test_files_have_the_lengths_of_the_geometry(place: Any) -> None:
    import soundfile

    seconds = sorted(soundfile.info(name).duration for name in place.files)
    assert seconds == pytest.approx([0.3, 0.448, 0.669, 1.0], abs=0.001)
    assert all(np.abs(systems.read(Path(name))).max() > 0.1 for name in place.files)


def test_a_model_that_says_something_else_gets_no_speed(place: Any, tmp_path: Path) -> None:
    asked = job(place, "ours, torch")
    assert answer(asked, tmp_path)["wall_s"] > 0
    with np.load(asked["reference"]) as reference:
        other = {name: rows[:, ::-1] for name, rows in reference.items()}
    np.savez(tmp_path / "other.npz", **other)
    refused = answer(asked | {"reference": str(tmp_path / "other.npz")}, tmp_path)
    assert "differ" in refused["refused"] and "wall_s" not in refused


@pytest.mark.parametrize("precision", ("fp32", "int8"))
def test_bounds_tell_rounding_from_another_model(place: Any, precision: str) -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((50, 20)).astype(np.float32)
    file = Path(place.files[0])
    bound = systems.MOST_DIFFERENT[precision]
    for scale, passes in ((0.5, True), (1.5, False)):
        off = expected + scale * bound * rng.standard_normal(expected.shape).astype(np.float32)
        relative, _ = systems.difference(lambda _, off=off: off, {file: expected})
        assert (relative <= bound) is passes
    assert systems.difference(lambda _: expected[1:], {file: expected})[0] == float("inf")


def test_a_batch_that_says_something_else_is_timed_and_not_taken() -> None:
    import time

    def slow() -> list[str]:
        time.sleep(0.05)
        return ["불 켜", "문 닫아"]

    runs = {"alone": slow, "padded": lambda: ["불 켜", "문"]}
    found = systems.measured(runs, 2, [], ["불 켜", "문 닫아"], exact=True)
    assert found["variant"] == "alone" and found["same_texts"] == 2
    assert len(found["passes"]["alone"]) == 2 and len(found["passes"]["padded"]) == 1
    assert systems.measured(runs, 1, [], ["불 켜", "문 닫아"], exact=False)["variant"] == "padded"
    beaten = systems.measured(runs, 3, ["alone"], ["불 켜", "문 닫아"], exact=True, to_beat_s=0.01)
    assert len(beaten["passes"]["alone"]) == 1


def row(system: str, precision: str, wall_s: float, ours: bool = False, threads: int = 2) -> dict[str, Any]:
    return {
        "system": system,
        "precision": precision,
        "wall_s": wall_s,
        "cpu_s": 2 * wall_s,
        "ours": ours,
        "threads": threads,
    }


def test_ours_stand_beside_peers_of_their_precision_and_threads() -> None:
    rows = [
        row("ours, torch", "fp32", 10.0, ours=True),
        row("transformers.pipeline", "fp32", 15.0),
        row("CTranslate2 float32, MKL", "fp32", 12.0),
        row("CTranslate2 int8, MKL", "int8", 5.0),
        row("transformers.pipeline", "fp32", 9.0, threads=1),
        {
            "system": "CTranslate2 float32, oneDNN",
            "precision": "fp32",
            "threads": 2,
            "ours": False,
            "refused": "",
        },
    ]
    found = {r["peer"]: (r["wall"], r["cpu"], r["fastest"]) for r in real_size.ratios(rows)}
    assert found == {
        "transformers.pipeline": (1.5, 1.5, False),
        "CTranslate2 float32, MKL": (1.2, 1.2, True),
    }


def test_with_one_thread_the_faster_of_two_products_runs() -> None:
    rows = [
        row("ours, torch", "fp32", 10.0, ours=True),
        row("transformers.pipeline", "fp32", 15.0),
        row("CTranslate2 float32, oneDNN", "fp32", 14.0),
        row("CTranslate2 float32, MKL", "fp32", 12.0),
        row("CTranslate2 int8, oneDNN", "int8", 5.0),
        row("CTranslate2 int8, MKL", "int8", 6.0),
    ]
    assert [system.name for system in real_size._due(rows)] == [
        "ours, torch",
        "transformers.pipeline",
        "CTranslate2 float32, MKL",
        "CTranslate2 int8, oneDNN",
    ]


def test_the_command_measures_every_system_and_names_those_that_are_missing(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks/asr.py"), "--geometry", "xlsr-large", "--quick"]
    ended = subprocess.run(
        [*command, "--rounds", "1", "--out", str(out)], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    found = read_json(out)
    assert found["synthetic"] and found["quick"] and len(found["commit"]) == 40 and found["versions"]["torch"]
    assert found["arithmetic"]["least_fp32_s_of_processors"] > 0
    rows = {row["system"]: row for row in found["rows"]}
    assert len(rows) == 7
    for name in ("ours, torch", "transformers.pipeline"):
        assert rows[name]["relative_difference"] < 1e-4 and rows[name]["same_texts"] == 4
        assert rows[name]["cpu_s"] > 0
    assert "wall_s" in rows["ours, ONNX int8"]
    for name in (name for name in rows if name.startswith("CTranslate2")):
        assert "wall_s" in rows[name] or f"{name}: CTranslate2 is not installed" in ended.stdout
    assert "| 1 | ours, torch | transformers.pipeline" in ended.stdout
