"""What a run says before it trains: floors that this test set can prove for no model."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from tasks.artifacts import write_json, write_parquet, write_text
from tasks.params import load
from tasks.release.provable import unprovable
from tests.release.conftest import with_section

ROOT = Path(__file__).parents[2]
TOOL = {
    "name": "set_light", "description": "light",
    "parameters": {"type": "object", "properties": {"power": {"type": "string"}}, "required": ["power"]},
}  # fmt: skip


@pytest.fixture
def prepared(tmp_path):
    """Prepared data of a chosen size: prepared(utterances of a split, unseen voices, commands)."""

    def make(utterances=300, voices=6, commands=600, outside=126):
        splits = {"train": (9, 3), "test_sentences": (utterances, 40), "test_voices": (utterances, voices)}
        splits["test_ood"] = (outside, 46)
        rows = [
            {
                "split": split,
                "utterance_id": f"{split}-{n}",
                "speaker": f"{split}-v{n % v}",
                "text": f"거실 불 {n} 켜 줘",
            }
            for split, (size, v) in splits.items()
            for n in range(size)
        ]
        write_parquet(tmp_path / "asr/utterances.parquet", pd.DataFrame(rows))
        call = {"name": "set_light", "arguments": {"power": "on"}}
        lines = [
            {"id": f"s{n}", "written": f"불 {n}번 켜", "intent": "light", "tool_call": call}
            for n in range(commands)
        ]
        write_text(tmp_path / "llm/test.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        write_json(tmp_path / "llm/tools.json", [{"type": "function", "function": TOOL}])
        return tmp_path

    return make


def settings(said):
    return {sentence.partition(":")[0].removeprefix("decide.") for sentence in said}


def test_the_built_in_test_sets_can_prove_every_floor(prepared, params):
    assert unprovable(["asr", "llm"], params, prepared()) == []


def test_the_quick_road_asks_for_no_proof(prepared):
    quick = load(ROOT / "params.yaml", quick=True)
    assert unprovable(["asr", "llm"], quick, prepared(24, 4, 48, 14)) == []


def test_a_small_test_set_is_told_with_the_number_that_is_needed(prepared, params):
    """58 answers that are all right show 94.97%: one too few for 95%."""
    params = with_section(params, "decide", max_quantisation_loss=0.03)
    few = with_section(params, "evaluate_llm", examples=58, examples_beside=58)
    (exact, lost) = unprovable(["llm"], few, prepared())
    assert "decide.min_exact_match: ≥ 95.00% cannot be proven with n = 58:" in exact
    assert "at least 94.97%" in exact and "about 59 are needed: raise evaluate_llm.examples" in exact
    needed = math.ceil(math.log(0.05) / math.log(0.97))
    assert "decide.max_quantisation_loss: ≤ 3.00%" in lost and f"about {needed} are needed" in lost
    enough = with_section(params, "evaluate_llm", examples=59, examples_beside=needed)
    assert settings(unprovable(["llm"], enough, prepared())) == {
        "max_quantisation_loss"
    }  # no more than 59 ran
    enough = with_section(params, "evaluate_llm", examples=needed, examples_beside=needed)
    assert unprovable(["llm"], enough, prepared()) == []


def test_the_commands_that_there_are_count_and_not_those_asked_for(prepared, params):
    assert "n = 40:" in unprovable(["llm"], params, prepared(commands=40))[0]


def test_speech_is_told_by_split_and_the_road_only_where_both_lines_run(prepared, params):
    small = prepared(utterances=12, voices=4, outside=0)
    speech = {
        "max_cer_unseen_sentences",
        "max_cer_unseen_voices",
        "max_cer_rise_silence",
        "max_cer_rise_joined",
    }
    assert settings(unprovable(["asr"], params, small)) == speech
    both = unprovable(["asr", "llm"], params, small)
    assert settings(both) == {*speech, "min_exact_match_road"} and len(both) == 5
    assert any("n = 12 by 4 voices" in sentence for sentence in both)


def test_what_is_joined_is_what_the_evaluation_joins(prepared, params):
    """A voice with four utterances has three in one recording, and the fourth in none."""
    few = prepared(utterances=44, voices=11)
    table = pd.read_parquet(few / "asr/utterances.parquet")
    table["speaker"] = table["split"] + (table.index % 11).astype(str)
    write_parquet(few / "asr/utterances.parquet", table)
    limit = {"max_cer_rise_silence": 0.5, "max_cer_rise_joined": 0.02}
    (said,) = unprovable(["asr"], with_section(params, "decide", **limit), few)
    assert "decide.max_cer_rise_joined: ≤ 2.00% cannot be proven with n = 11 by 11 voices" in said


def test_a_floor_of_everything_is_proven_by_no_number(prepared, params):
    (said,) = unprovable(["llm"], with_section(params, "decide", min_exact_match=1.0), prepared())
    assert "no number of them is enough" in said
