"""Decisions are the places where a command leaves a choice; a training that weighs them gets them right sooner."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from tasks.inference.loading import load_tokenizer
from tasks.llm.adapters import adapted_model
from tasks.llm.attention import packed_logits
from tasks.llm.chat import load_tools
from tasks.llm.decisions import decisions, with_decisions
from tasks.llm.packing import Example, encode, pack, shared_prefix
from tasks.llm.rows import read_rows
from tasks.llm.train import train
from tasks.settings import TrainLlm
from tests.llm.test_train import PARAMS


@pytest.mark.parametrize(
    ("completion", "places"),
    [
        ((7, 1, 2, 9), (1, 2)),
        ((7, 4, 2, 9), (1,)),
        ((8, 1, 2, 9), (0,)),  # not among the possible answers: it counts as one more
    ],
)
def test_decisions_are_where_the_possible_answers_part(
    completion: tuple[int, ...], places: tuple[int, ...]
) -> None:
    assert decisions(completion, [(7, 1, 2, 9), (7, 1, 3, 9), (7, 4, 2, 9)]) == places
    assert decisions(completion, [completion]) == ()


def test_a_packed_row_knows_the_decisions_of_each_of_its_examples() -> None:
    examples = [
        Example((0, 1, 2), (10, 11, 12), decisions=(1,)),
        Example((0, 1, 3, 4), (13, 14)),
        Example((0, 1, 5), (15, 16, 17), decisions=(0, 2)),
    ]
    (row,) = pack(examples, 100, 2)
    assert row.targets[row.deciding].tolist() == [11, 15, 17]


def test_what_a_verb_means_is_decided_and_the_device_that_was_named_is_not(
    base: Path, prepared: Path
) -> None:
    call = {"name": "control_appliance", "arguments": {"device": "로봇청소기", "power": "on"}}
    rows = [{"written": "로봇청소기를 켜라", "tool_call": call}]
    tokenizer = load_tokenizer(base)
    examples = encode(tokenizer, rows)
    (found,) = with_decisions(examples, rows, load_tools(prepared / "tools.json"), tokenizer)
    assert found == replace(examples[0], decisions=found.decisions)
    before = [tokenizer.decode(found.completion[:place]) for place in found.decisions]
    assert any('"power"' in said for said in before)
    assert not any('"device"' in said and '"power"' not in said for said in before)


def test_a_weight_on_decisions_goes_to_them_alone(base: Path, prepared: Path, tmp_path: Path) -> None:
    """The same few steps: what is decided is learned further, what is written out is still learned."""
    plain, heavy = (losses(base, prepared, tmp_path / f"{weight}", weight) for weight in (1.0, 20.0))
    untrained = losses(base, prepared, None, 1.0)
    assert heavy["decided"] < 0.9 * plain["decided"]
    assert heavy["written"] < 0.8 * untrained["written"]


def losses(base: Path, prepared: Path, out: Path | None, weight: float) -> dict[str, float]:
    """Mean loss of the training examples' tokens after a short training (None: before it)."""
    params = TrainLlm(**{**PARAMS, "max_tokens": 6_000, "dropout": 0.0, "decision_weight": weight})
    if out is not None:
        places = {name: out / name for name in ("adapter", "training", "work")}
        train(params, base=base, prepared=prepared, **places)
    initial = str(out / "adapter") if out is not None else ""
    model, _ = adapted_model(base, params, torch.device("cpu"), initial=initial)
    tokenizer, tools = load_tokenizer(base), load_tools(prepared / "tools.json")
    rows = read_rows(prepared / "train.jsonl", tools)
    examples = with_decisions(encode(tokenizer, rows), rows, tools, tokenizer)
    found: dict[str, list[torch.Tensor]] = {"decided": [], "written": []}
    with torch.inference_mode():
        for row in pack(examples, 400, shared_prefix(examples)):
            each = cross_entropy(packed_logits(model.get_base_model(), row), row.targets, reduction="none")
            found["decided"].append(each[row.deciding])
            found["written"].append(each[~row.deciding])
    return {name: torch.cat(parts).mean().item() for name, parts in found.items()}
