"""The curriculum goes where the model is weak, meets everything early, and goes on after a kill as before."""

from typing import Any

import pytest
import torch

from tasks.llm.curriculum import Curriculum, kind_of, parts_of
from tasks.llm.packing import Example
from tests import tiny_llm


def example(number: int) -> Example:
    """Ten tokens, the first two shared by all; the third says which it is, the sixth decides the answer."""
    return Example((0, 1, 100 + number, 3, 4), (5, 6, 7, 8, 9), decisions=(0,))


def curriculum(rows: list[dict[str, Any]], **changes: Any) -> Curriculum:
    settings = {"prefix": 2, "length": 34, "max_tokens": 2_000, "seed": 1, **changes}
    return Curriculum([example(number) for number in range(len(rows))], rows, **settings)


def places(row: Any) -> list[int]:
    """The examples of a row, in order."""
    return [int(row.ids[start]) - 100 for start, _ in row.segments]


DECIDED, WRITTEN = [1.0, 0, 0, 0, 0], [0, 0.25, 0.25, 0.25, 0.25]


def train(
    feed: Curriculum,
    rows: list[dict[str, Any]],
    hard: str,
    steps: int = 10_000,
    loss: list[float] = DECIDED,
) -> list[int]:
    """The examples handed out, where only the answers with the tool `hard` have a loss."""
    seen: list[int] = []
    for _ in range(steps):
        row = feed.take()
        if row is None:
            break
        seen += places(row)
        names = [rows[at]["tool_call"]["name"] for at in places(row)]
        feed.tell(row, torch.tensor([loss if name == hard else [0.0] * 5 for name in names]).flatten())
    return seen


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return tiny_llm.rows(600)


def test_what_stays_hard_comes_far_more_often_than_by_chance(rows: list[dict[str, Any]]) -> None:
    hard = {at for at, row in enumerate(rows) if row["tool_call"]["name"] == "lock_door"}
    assert len(hard) < 0.05 * len(rows)
    quarter = len(rows) // 4
    early = hard & set(train(curriculum(rows), rows, "lock_door")[:quarter])
    assert len(early) > 0.6 * len(hard)  # by chance a quarter
    # where nothing is decided, an answer is only written out: not hard, however unlikely its letters were
    written = hard & set(train(curriculum(rows), rows, "lock_door", loss=WRITTEN)[:quarter])
    assert len(written) < 0.4 * len(hard)


def test_every_kind_is_met_among_the_first(rows: list[dict[str, Any]]) -> None:
    kinds = {kind_of(row["tool_call"]) for row in rows}
    seen = train(curriculum(rows), rows, "none is hard")
    assert {kind_of(rows[at]["tool_call"]) for at in seen[:100]} == kinds


def test_no_example_comes_twice_before_all_have_come(rows: list[dict[str, Any]]) -> None:
    seen = train(curriculum(rows[:50]), rows, "set_light")
    assert len(seen) > 100 and sorted(seen[:50]) == list(range(50))


def test_it_ends_with_the_budget_and_counts_what_it_gave(rows: list[dict[str, Any]]) -> None:
    feed = curriculum(rows, max_tokens=500)
    seen = train(feed, rows, "set_light")
    assert 500 <= feed.tokens < 534 and feed.place == (500, 500)
    assert feed.examples == len(seen) and feed.targets == 5 * len(seen)
    assert feed.take() is None


def test_a_restored_curriculum_goes_on_to_the_same_rows(rows: list[dict[str, Any]]) -> None:
    whole = train(curriculum(rows), rows, "set_alarm")
    first = curriculum(rows)
    before = train(first, rows, "set_alarm", steps=12)
    second = curriculum(rows)
    second.restore(first.state())
    assert before + train(second, rows, "set_alarm") == whole


def test_seeds_differ(rows: list[dict[str, Any]]) -> None:
    one, other = (train(curriculum(rows, seed=seed), rows, "set_alarm", steps=5) for seed in (1, 2))
    assert one != other


def test_an_example_longer_than_a_row_stands_alone(rows: list[dict[str, Any]]) -> None:
    feed = curriculum(rows, length=8)
    row = feed.take()
    assert row is not None and len(row.segments) == 1


def test_numbers_are_no_parts_but_units_are() -> None:
    call = {"name": "set_temperature", "arguments": {"device": "난방", "degrees": 21}}
    parts = parts_of({"written": "난방 21도로 바꿔", "tool_call": call})
    assert "set_temperature.device=난방" in parts and "set_temperature:도로" in parts
    assert not any("21" in part for part in parts)
    assert kind_of(call) == "set_temperature(degrees,device)"
