"""States of a training: the newest whole one of the same settings is found, with its random generators."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.resume import ResumableState


@pytest.fixture
def saved(tmp_path: Path) -> ResumableState:
    """States of steps 5, 10 and 15."""
    state = ResumableState(tmp_path / "checkpoints", "key")
    for step in (5, 10, 15):
        state.save(step, {"weight": torch.full((3,), float(step))})
    return state


def test_the_newest_is_taken_and_the_two_newest_are_kept(saved: ResumableState) -> None:
    found = saved.load()
    assert found is not None and found[0] == 15 and found[1]["weight"].tolist() == [15.0] * 3
    assert sorted(path.name for path in saved.folder.glob("*.pt")) == ["step-00000010.pt", "step-00000015.pt"]
    assert len(list(saved.folder.iterdir())) == 4, "a note beside each, and nothing else"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("damage", [cut, Path.unlink], ids=["cut", "gone"])
@pytest.mark.parametrize("suffix", [".pt", ".json"])
def test_a_damaged_state_falls_back_to_the_one_before(
    saved: ResumableState, suffix: str, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    damage(saved.folder / f"step-00000015{suffix}")  # type: ignore[operator]
    found = saved.load()
    assert found is not None and found[0] == 10 and found[1]["weight"].tolist() == [10.0] * 3
    if damage is cut or suffix == ".json":
        assert "step-00000015" in caplog.text and "the one before" in caplog.text


def test_states_of_other_settings_are_not_taken(saved: ResumableState) -> None:
    assert ResumableState(saved.folder, "other settings").load() is None


def test_what_an_unfinished_training_of_other_settings_left_is_in_nobodys_way(saved: ResumableState) -> None:
    """It was further on than the new one is: its states must not count as the newest."""
    other = ResumableState(saved.folder, "other settings")
    other.save(3, {})
    other.save(4, {})
    found = other.load()
    assert found is not None and found[0] == 4
    assert sorted(path.name for path in saved.folder.glob("*.pt")) == ["step-00000003.pt", "step-00000004.pt"]


def test_all_damaged_starts_afresh(saved: ResumableState, caplog: pytest.LogCaptureFixture) -> None:
    for path in saved.folder.glob("*.pt"):
        cut(path)
    assert saved.load() is None
    assert "starting afresh" in caplog.text


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    state = ResumableState(tmp_path, "key")
    state.save(1, {})
    after = [random.random(), float(np.random.rand()), torch.rand(2).tolist()]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert state.load() == (1, {})
    assert [random.random(), float(np.random.rand()), torch.rand(2).tolist()] == after


def test_clear_leaves_nothing(saved: ResumableState) -> None:
    saved.clear()
    assert not saved.folder.exists() and saved.load() is None
