"""One small run for the whole room: a real corpus, validated and prepared, and evaluations in the stages' own form."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest

from tasks.artifacts import write_json, write_parquet
from tasks.asr.quality.metrics import edit_counts
from tasks.asr.quality.rates import jamo_confusions, jamo_counts, rates
from tasks.asr.quality.slices import slices
from tasks.data import prepare_asr, prepare_llm
from tasks.data.text import inverse_normalise
from tasks.data.validate import validate
from tasks.params import load
from tasks.release.bounds import Estimate, Trials
from tasks.release.floors import at_most, stated
from tasks.tracking import JsonlTracker
from tests import corpora

PARAMS = load(Path("params.yaml"), quick=True)
STAGES = {
    name: {"seconds": seconds, "peak_rss_mb": 400.0 + seconds, "cached": seconds == 0.0}
    for name, seconds in {
        "corpus": 0.0,
        "embed_asr": 45.0,
        "validate": 9.5,
        "prepare": 2.25,
        "train_asr": 300.0,
        "language_model_asr": 3.0,
        "export_asr": 6.0,
        "evaluate_asr": 40.0,
        "train_llm": 200.0,
        "quantise_llm": 4.0,
        "verify_llm": 12.0,
        "evaluate_llm": 60.0,
        "evaluate_road": 50.0,
    }.items()
}
RELEASE = {
    "asr": {
        "verdict": "promote",
        "reasons": ["every floor is met", "no version serves yet"],
        "floors": [
            at_most("CER", Estimate(Trials(0.03, 900.0), None, 300, 6, 0.95), 0.04, "max_cer").as_dict(),
            stated("road", "not measured, so not judged").as_dict(),
        ],
        "version": 1,
        "alias": "staging",
        "published": "store/published/malgil-asr/v1",
        "run_id": "r1",
        "already": False,
    },
    "llm": {
        "verdict": "reject",
        "reasons": ["exact match 0.62 is below the floor 0.95 <b>"],
        "version": None,
        "alias": None,
        "published": None,
        "run_id": "r2",
        "already": False,
    },
}


def mishear(text: str, chance: random.Random) -> str:
    """The text with a few characters replaced, dropped or doubled."""
    heard = []
    for character in text:
        draw = chance.random()
        if character == " " or draw > 0.12:
            heard.append(character)
        elif draw < 0.06:
            heard.append("거")
        elif draw < 0.09:
            heard.append(character + "아")
    return "".join(heard)


def asr_tables(utterances: pd.DataFrame) -> pd.DataFrame:
    chance = random.Random(5)
    rows = []
    for system in ("checkpoint", "onnx_int8"):
        for condition in ("plain", "silence", "joined"):
            for row in utterances[utterances["split"].str.startswith("test")].itertuples():
                if row.split == "test_ood" and condition != "plain":
                    continue
                heard = mishear(row.text, chance)
                counts = edit_counts(row.text.replace(" ", ""), heard.replace(" ", ""))
                rows.append(
                    {
                        "system": system,
                        "condition": condition,
                        "split": row.split,
                        "utterance_id": row.utterance_id,
                        "speaker": row.speaker,
                        "reference": row.text,
                        "hypothesis": heard,
                        "greedy": mishear(heard, chance),
                        "edits": counts.edits,
                        "characters": counts.reference,
                        "duration_s": row.samples / 16_000,
                        "snr_db": row.snr_db,
                        "ood_kind": row.ood_kind,
                        "sha256": "ab" * 32,
                    }
                )
    return pd.DataFrame(rows)


def llm_samples(commands: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for system in ("base", "merged", "Q8_0", "Q4_K_M"):
        for number, row in enumerate(commands[commands["split"] == "test"].itertuples()):
            call = json.loads(row.tool_call)
            answer, exact = row.tool_call, True
            if system == "base" or number % 9 == 0:
                answer, exact = "I am sorry </script>", False
            elif number % 7 == 0:
                answer, exact = (
                    json.dumps({"name": call["name"], "arguments": {**call["arguments"], "extra": 1}}),
                    False,
                )
            rows.append(
                {
                    "system": system,
                    "id": row.sentence_id,
                    "written": inverse_normalise(row.text),
                    "intent": row.intent,
                    "reference": row.tool_call,
                    "hypothesis": answer,
                    "exact": exact,
                }
            )
    return pd.DataFrame(rows)


def road_samples(utterances: pd.DataFrame) -> pd.DataFrame:
    rows = []
    commands = utterances[utterances["split"].isin(["test_sentences", "test_voices"])]
    for number, row in enumerate(commands.itertuples()):
        heard = row.text if number % 3 else row.text[1:]
        rows.append(
            {
                "split": row.split,
                "utterance_id": row.utterance_id,
                "speaker": row.speaker,
                "transcript_reference": row.text,
                "transcript_hypothesis": heard,
                "written": heard,
                "hypothesis": row.tool_call,
                "reference": row.tool_call,
                "exact": number % 4 != 0,
            }
        )
    return pd.DataFrame(rows)


def write_histories(build: Path) -> None:
    asr = JsonlTracker(build / "asr/training/history.jsonl")
    llm = JsonlTracker(build / "llm/training/history.jsonl")
    for step in range(10, 610, 10):
        asr.log(step, loss=40.0 / step + 0.1, learning_rate=1e-3)
        llm.log(step, loss=3.0 / step**0.5, learning_rate=1e-3, gradient_norm=1.0)
        if step % 100 == 0:
            asr.log(
                step,
                seconds=step * 0.2,
                validation_cer=12.0 / step,
                validation_cer_with_spaces=15.0 / step,
                validation_wer=30.0 / step,
            )
            llm.log(
                step, validation_loss=3.5 / step**0.5, validation_exact=1 - 40.0 / step if step > 40 else 0.0
            )
    write_json(
        build / "asr/training/result.json",
        {"steps": 600, "best_validation_cer": 0.02, "device": "cpu", "threads": 1},
    )
    write_json(build / "llm/training/result.json", {"steps": 600, "tokens": 120_000, "tokens_per_s": 190.5})


@pytest.fixture(scope="session")
def stages() -> dict:
    """What the stages of the run cost."""
    return STAGES


@pytest.fixture(scope="session")
def release() -> dict:
    """What became of its two lines."""
    return RELEASE


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder of a whole run; tests that change it work on a copy."""
    build = tmp_path_factory.mktemp("run") / "build"
    corpora.make(
        PARAMS.corpus.model_copy(
            update={
                "train_utterances": 30,
                "train_sentences": 40,
                "test_utterances": 14,
                "validation_sentences": 6,
                "voices": 5,
            }
        ),
        out_dir=build / "corpus",
    )
    validate(PARAMS.validate_, corpus=build / "corpus", out=build / "validated")
    prepare_asr.prepare(
        PARAMS.prepare,
        corpus=build / "corpus",
        validated=build / "validated",
        out_dir=build / "prepared/asr",
    )
    prepare_llm.prepare(PARAMS.prepare, commands=build / "commands", out_dir=build / "prepared/llm")
    utterances = pd.read_parquet(build / "prepared/asr/utterances.parquet")
    tables = asr_tables(utterances)
    write_parquet(build / "asr/evaluation/utterances.parquet", tables)
    metrics = {
        name: rates(own, PARAMS.evaluate_asr)
        | {"slices": slices(own, PARAMS.evaluate_asr), "confusions": jamo_confusions(own)}
        | {"jamo_counts": jamo_counts(own)}
        | {"sha256": "ab" * 32}
        for name, own in tables.groupby("system")
    }
    write_json(build / "asr/evaluation/metrics.json", {**metrics, "normaliser": "ko-1", "synthetic": True})
    samples = llm_samples(pd.read_parquet(build / "corpus/commands.parquet"))
    write_parquet(build / "llm/evaluation/samples.parquet", samples)
    exact = {
        str(name): float(rate) for name, rate in samples.groupby("system", sort=False)["exact"].mean().items()
    }
    write_json(
        build / "llm/evaluation/metrics.json",
        {
            "exact_match": exact,
            "bytes": {"merged": 269_000_000, "Q8_0": 145_000_000, "Q4_K_M": 105_000_000},
            "tokens_per_s": {"merged": 20.0, "Q8_0": 120.0, "Q4_K_M": 100.0},
            "n": 24,
        },
    )
    write_json(
        build / "llm/verification.json",
        {
            "ok": True,
            "checks": [
                {
                    "name": "tokens",
                    "ok": True,
                    "detail": "same ids for 16 prompts",
                    "file": "malgil-llm-Q8_0.gguf",
                }
            ],
        },
    )
    (build / "llm/gguf").mkdir()
    (build / "llm/gguf/malgil-llm-Q8_0.gguf").write_bytes(b"GGUF for its hash alone")
    road = road_samples(utterances)
    write_parquet(build / "road/samples.parquet", road)
    by_split = road.groupby("split")["exact"].mean()
    write_json(
        build / "road/metrics.json",
        {
            "exact_match_unseen_sentences": float(by_split["test_sentences"]),
            "exact_match_unseen_voices": float(by_split["test_voices"]),
            "quantisation": "Q8_0",
            "asr": "ab" * 32,
            "llm": "cd" * 32,
        },
    )
    write_histories(build)
    (build / "params.yaml").write_text("corpus: {}\n")
    return build
