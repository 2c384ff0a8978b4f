"""The order of coverage meets every tool, value and word early, and leaves nothing out."""

import random
from typing import Any

from tasks.llm.coverage import covering_order, facets_of
from tests import tiny_llm


def row(written: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"written": written, "tool_call": {"name": name, "arguments": arguments}}


COMMON = [row(f"거실 불 {n}퍼센트로 낮춰 줘", "set_brightness", room="거실", percent=n) for n in range(1, 96)]
RARE = [
    row("대문 열어 줘", "lock_door", door="대문", action="unlock"),
    row("대문 잠가", "lock_door", door="대문", action="lock"),
]


def test_every_example_comes_once() -> None:
    order = covering_order([*COMMON, *RARE], random.Random(4))
    assert sorted(order) == list(range(len(COMMON) + len(RARE)))


def test_what_is_rare_comes_among_the_first() -> None:
    """By chance the two would stand among the first 40 of 97 once in six times; here always."""
    for seed in range(20):
        order = covering_order([*COMMON, *RARE], random.Random(seed))
        assert {95, 96} <= set(order[:40])


def test_a_short_budget_sees_more_of_the_values_than_chance_does() -> None:
    rows = tiny_llm.rows(600)
    everything = {facet for one in rows for facet in facets_of(one)}
    for seed in range(3):
        first = covering_order(rows, random.Random(seed))[:120]
        chance = random.Random(seed).sample(range(len(rows)), 120)
        met, by_chance = ({f for at in places for f in facets_of(rows[at])} for places in (first, chance))
        assert len(met) > len(by_chance) + 0.05 * len(everything)


def test_the_same_seed_gives_the_same_order() -> None:
    rows = tiny_llm.rows(100)
    assert covering_order(rows, random.Random(7)) == covering_order(rows, random.Random(7))


def test_numbers_are_no_facets_but_units_are() -> None:
    facets = facets_of(row("난방 21도로 바꿔", "set_temperature", device="난방", degrees=21))
    assert "set_temperature.device=난방" in facets and "set_temperature:도로" in facets
    assert not any("21" in facet for facet in facets)
