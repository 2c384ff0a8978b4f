"""The quick road end to end through the command line, in the order a user would meet it.

Everything is real: Prefect, DVC, MLflow, training, quantisation, publishing. The tests share one project and
each leaves it as a finished quick run.
"""

import contextlib
import json
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from jsonschema import Draft202012Validator

from tests.killed import STOP, at_rename

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STAGES = {
    *(
        "commands",
        "corpus",
        "embed_asr",
        "validate",
        "prepare_asr",
        "prepare_llm",
        "train_asr",
        "language_model_asr",
        "export_asr",
        "evaluate_asr",
        "base_llm",
        "evaluate_base_llm",
        "train_llm",
    ),
    *("merge_llm", "convert_llm", "quantise_llm", "verify_llm", "evaluate_llm", "evaluate_road"),
}

BAD_ROWS = ("broken [train]", "100% silent", "clipped [train]", "at full scale", "duration_out_of_range")


def test_the_first_run_finishes_and_says_what_it_found(project: Any, first: Any) -> None:
    summary = project.summary()
    schema = json.loads((ROOT / "docs/reference/summary.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(summary)
    assert set(summary["stages"]) == STAGES
    assert not any(stage["cached"] for stage in summary["stages"].values())
    assert all(0 < stage["peak_rss_mb"] < 8000 for stage in summary["stages"].values())
    assert summary["data"]["synthetic"] and summary["data"]["voices"] == 12
    assert set(summary["llm"]["exact_match"]) == {"base", "merged", "Q8_0"}
    for line in ("asr", "llm"):
        result = summary["release"][line]
        assert (result["verdict"], result["version"], result["alias"]) == ("promote", 1, "staging"), result
        assert (project.path / result["published"]).is_dir()
    assert (project.path / summary["report"]).stat().st_size > 50_000
    for part in (
        "synthetic speech",
        "CER per voice",
        "Q8_0",
        "promote",
        "build/report.html",
        "evaluate_road",
    ):
        assert part in first.out
    assert "Traceback" not in first.err
    assert not (project.path / "mlflow.db").exists(), "MLflow wrote outside store/"


def test_the_second_run_does_nothing(project: Any, first: Any) -> None:
    published, report = project.listing("store/published"), project.listing("build/report.html")
    versions = registered(project)
    ended = project.malgil("run", "--quick")
    assert ended.code == 0, ended.err
    assert ended.made == {"settings"}
    summary = project.summary()
    assert all(stage["cached"] for stage in summary["stages"].values()), summary["stages"]
    assert [summary["release"][line]["version"] for line in ("asr", "llm")] == [1, 1]
    assert project.listing("store/published") == published and project.listing("build/report.html") == report
    assert registered(project) == versions, "a run without news registered something"
    # 30 s of wall time on two idle cores; CPU time is what a busy machine can measure.
    assert ended.cpu_s < 45, f"{ended.cpu_s:.0f} CPU-seconds, {ended.wall_s:.0f} s of wall time to do nothing"


def test_an_override_makes_only_what_depends_on_it(project: Any, first: Any) -> None:
    ended = project.malgil("run", "--quick", "-S", "evaluate_llm.examples=8")
    assert ended.code == 0, ended.err
    # the road takes answers of evaluate_llm; how many the base model gives is another setting
    asked_anew = {"evaluate_llm", "evaluate_road"}
    assert ended.made == {"settings", *asked_anew}
    assert project.summary()["llm"]["examples"] == 8
    back = project.malgil("run", "--quick")
    assert back.code == 0, back.err
    assert back.made == {"settings", *asked_anew} and project.summary()["stages"]["evaluate_llm"]["cached"]


def test_a_damaged_artifact_is_restored_not_trained_again(project: Any, first: Any) -> None:
    weights = project.path / "build/asr/checkpoint/model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()  # not written in place: DVC's cache may share the file
    weights.write_bytes(whole[: len(whole) // 2])
    ended = project.malgil("run", "--quick", "--line", "asr")
    assert ended.code == 0, ended.err
    assert weights.read_bytes() == whole
    assert "language_model_asr" in ended.made
    assert project.summary()["stages"]["language_model_asr"]["cached"]


def test_a_run_killed_in_training_goes_on_from_its_checkpoint(project: Any, first: Any) -> None:
    command = ("run", "--quick", "--line", "asr", "-S", "train_asr.seed=2")
    err = project.path / "killed.log"
    with err.open("w") as stream:
        # it must not end before it is killed, however long the next lines take
        stops = at_rename("step-00000012.json", STOP, project.path.parent, project.environment)
        killed = project.start(*command, stderr=stream, environment=stops)
        wait_for_training(killed, err)
        second = project.malgil("run", "--quick")
        assert second.code == 3, second.err
        assert f"pid {killed.pid}" in second.err
        assert killed.poll() is None, "the second run was to be told at once, not to wait for the first"
        family = psutil.Process(killed.pid).children(recursive=True)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    _, alive = psutil.wait_procs(family, timeout=600)
    assert alive == [], f"left behind: {alive}"
    ended = project.malgil(*command)
    assert ended.code == 0, ended.err
    assert "resum" in (project.path / "build/logs/train_asr.log").read_text("utf-8")
    assert ended.made == {
        "settings",
        "train_asr",
        "language_model_asr",
        "export_asr",
        "evaluate_asr",
        "evaluate_road",
    }
    assert not project.summary()["stages"]["train_asr"]["cached"]
    assert states(project).count("RUNNING") == 0 and "CRASHED" in states(project)


def test_a_failing_stage_releases_nothing_and_leaves_what_was_there(project: Any, first: Any) -> None:
    manifest = bad_manifest(project.path)
    summary, published = (
        (project.path / "build/summary.json").read_bytes(),
        project.listing("store/published"),
    )
    options = ("-S", "corpus.source=manifest", "-S", f"corpus.manifest={manifest}")
    ended = project.malgil("run", "--quick", "--line", "asr", *options)
    assert ended.code == 2, ended.err
    for part in ("stage validate failed", "DataError", "build/logs/validate.log", *BAD_ROWS):
        assert part in ended.err, part
    assert "Traceback" not in ended.err.split("malgil: ")[-1]
    assert (project.path / "build/summary.json").read_bytes() == summary
    assert project.listing("store/published") == published
    back = project.malgil("run", "--quick", "--line", "asr")
    assert back.code == 0, back.err
    assert all(stage["cached"] for stage in project.summary()["stages"].values())


def wait_for_training(malgil: Any, err: Path) -> None:
    """Waits until the training has stopped itself in the middle, with a checkpoint to resume from."""
    while True:
        assert malgil.poll() is None, err.read_text()
        for one in psutil.Process(malgil.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if one.status() == psutil.STATUS_STOPPED:
                    return
        time.sleep(0.1)


def registered(project: Any) -> list[tuple[object, ...]]:
    """Runs, versions and aliases in MLflow's store."""
    tables = ("runs", "model_versions", "registered_model_aliases")
    with sqlite3.connect(project.path / "store/mlflow.db") as store:
        return [store.execute(f"select count(*) from {table}").fetchone() for table in tables]


def states(project: Any) -> list[str]:
    """States of the flow runs in Prefect's books."""
    with sqlite3.connect(project.path / "store/prefect/prefect.db") as store:
        return [row[0] for row in store.execute("select state_type from flow_run")]


def bad_manifest(folder: Path) -> str:
    """A user's manifest of twenty recordings, three of them bad in a way that only validation finds: silent (at
    44.1 kHz), clipped, too short."""
    import numpy as np
    import pandas as pd
    import soundfile

    home = folder / "mine"
    home.mkdir()
    splits = ["train"] * 8 + ["validation"] * 4 + ["test_sentences"] * 4 + ["test_voices"] * 4
    words = [
        "거실",
        "침실",
        "주방",
        "욕실",
        "안방",
        "서재",
        "현관",
        "베란다",
        "창고",
        "차고",
        "마당",
        "복도",
        "다락",
        "거울",
        "의자",
        "책상",
        "침대",
        "소파",
        "화분",
        "시계",
    ]
    noise = np.random.default_rng(0).normal(0, 0.1, (20, 24_000))
    for number in range(20):
        soundfile.write(home / f"{number}.wav", noise[number], 16_000)
    soundfile.write(home / "broken.wav", np.zeros((44_100, 2)), 44_100)
    soundfile.write(home / "clipped.wav", np.sign(noise[0]), 16_000)
    soundfile.write(home / "2.wav", noise[2][:1_600], 16_000)
    names = ["broken.wav", "clipped.wav", *(f"{number}.wav" for number in range(2, 20))]
    speakers = ["a"] * 16 + ["b"] * 4
    texts = [f"{word} 불 켜 줘" for word in words]
    frame = pd.DataFrame({"path": names, "transcript": texts, "speaker": speakers, "split": splits})
    frame.insert(0, "utterance_id", [Path(name).stem for name in names])
    frame.to_parquet(home / "manifest.parquet")
    return "mine/manifest.parquet"
