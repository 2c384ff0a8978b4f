"""The history of a training run survives a kill; progress says where a long job stands."""

import logging

import pytest

from tasks import progress
from tasks.errors import ArtifactError
from tasks.tracking import JsonlTracker, read_history


def test_resuming_drops_what_was_logged_after_the_checkpoint(tmp_path):
    path = tmp_path / "history.jsonl"
    tracker = JsonlTracker(path)
    for step in (10, 20, 30):
        tracker.log(step, loss=1 / step)
    with path.open("a") as stream:
        stream.write('{"step": 40, "lo')  # the kill came here
    JsonlTracker(path, resume_step=20).log(25, loss=0.5)
    assert [row["step"] for row in read_history(path)] == [10, 20, 25]


def test_a_fresh_run_forgets_the_old_history(tmp_path):
    path = tmp_path / "history.jsonl"
    JsonlTracker(path).log(1, loss=1.0)
    JsonlTracker(path)
    assert read_history(path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_stops_the_run_and_names_step_and_metric(tmp_path, value):
    with pytest.raises(ArtifactError, match=r"loss is not finite at step 7.*learning rate"):
        JsonlTracker(tmp_path / "h.jsonl").log(7, loss=value, rate=1.0)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_long_job_says_share_rate_and_time_left(clock, caplog):
    with (
        caplog.at_level(logging.INFO, logger="malgil.progress"),
        progress.Progress("train", 100, "steps") as bar,
    ):
        clock[0] = 10.0
        bar.advance(25, loss=0.5)
    assert caplog.messages[0] == "train: 25/100 steps, 25%, 30 s left, loss 0.5"


def test_a_resumed_job_reckons_its_rate_from_where_it_started(clock, caplog):
    with caplog.at_level(logging.INFO, logger="malgil.progress"):
        bar = progress.Progress("train", 100, "steps", start=80)
        clock[0] = 10.0
        bar.advance(10)
    assert "90/100 steps, 90%, 10 s left" in caplog.messages[0]


def test_a_short_job_says_nothing(clock, caplog):
    with caplog.at_level(logging.INFO, logger="malgil.progress"):
        assert list(progress.track([1, 2], "short")) == [1, 2]
    assert caplog.messages == []
