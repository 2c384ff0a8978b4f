"""The summary of a run, against its documented schema, and the table made of it."""

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from jsonschema import Draft202012Validator, ValidationError

from flows import summary as summaries
from flows.steps import StageRun
from flows.table import as_markdown, print_table, sections
from tasks.params import load
from tasks.release.bounds import Estimate, Trials
from tasks.release.floors import at_most, stated

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/reference/summary.schema.json").read_text("utf-8"))
RATES = {
    "cer_unseen_sentences": 0.0312,
    "cer_unseen_voices": 0.0633,
    "wer_unseen_sentences": 0.11,
    "wer_unseen_voices": 0.17,
    "cer_by_voice": {"ko+f2": 0.03, "ko+max": 0.07},
    "cer_with_silence": 0.033,
    "cer_joined": 0.035,
    "cer_unseen_sentences_greedy": 0.123,
    "cer_unseen_voices_greedy": 0.145,
    "n_unseen_sentences": 300,
    "cer_ood": 0.6836,
    "cer_ood_greedy": 0.7632,
    "cer_ood_interval": [0.6501, 0.7225],
    "cer_ood_by_kind": {"hum": 0.6287},
}
LLM = {
    "exact_match": {"base": 0.0, "merged": 0.97, "Q8_0": 0.9667, "Q4_K_M": 0.91},
    "bytes": {"base": 269_000_000, "merged": 269_000_000, "Q8_0": 145_000_000, "Q4_K_M": 105_000_000},
    "tokens_per_s": {"base": 30.0, "merged": 31.0, "Q8_0": 120.4, "Q4_K_M": 99.0},
    "n": 300,
    "answered": {"base": 200, "merged": 200, "Q8_0": 300, "Q4_K_M": 200},
}
RESULT = {
    "verdict": "promote",
    "reasons": ["every floor is met", "no version serves yet"],
    "floors": [
        at_most("CER", Estimate(Trials(0.03, 900.0), None, 300, 6, 0.95), 0.04, "max_cer").as_dict(),
        stated("road", "not measured, so not judged").as_dict(),
    ],
    "version": 3,
    "alias": "staging",
    "published": "store/published/malgil-asr/3",
    "repository": "malgil-asr",
    "revision": "3",
    "run_id": "abc",
    "already": False,
}

SHOWN = (
    *(
        "synthetic speech",
        "3.12%",
        "6.33%",
        "12.30%",
        "68.36% (65.01% to 72.25%)",
        "76.32%",
        "14.50%",
        "ko+max",
        "96.67%",
        "145.0",
        "120",
        "88.00%",
        "12.5",
        "cached",
    ),
    *(
        "promote",
        "reject",
        "every floor is met",
        "store/published/malgil-asr/3",
        "staging",
        "build/report.html",
    ),
)


RECONCILED = [
    {"step": "read", "unit": "line", "in": 8, "out": 5, "set_aside": {"header": 1, "unreadable_line": 2}},
    {"step": "validate", "unit": "row", "in": 5, "out": 3, "set_aside": {"missing_file": 2}},
]


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """The files of a finished run that a summary is made of."""
    frame = pd.DataFrame({"duration_s": [1800.0, 900.0, 900.0], "speaker": ["a", "a", "b"]})
    for folder in ("validated", "asr/evaluation", "llm/evaluation", "road"):
        (tmp_path / folder).mkdir(parents=True)
    frame.to_parquet(tmp_path / "validated/manifest.parquet")
    frame.head(2).to_parquet(tmp_path / "validated/quarantine.parquet")
    (tmp_path / "validated/result.json").write_text(
        json.dumps({"synthetic": True, "reconciliation": RECONCILED})
    )
    plain = RATES | {"cer_with_silence": None, "cer_joined": None}  # the checkpoint hears plain speech only
    asr = {"checkpoint": plain, "onnx_int8": RATES, "normaliser": "ko-1"}
    road = {"exact_match_unseen_sentences": 0.93, "exact_match_unseen_voices": 0.88, "asr": "x", "llm": "y"}
    for name, value in {"asr/evaluation": asr, "llm/evaluation": LLM, "road": road}.items():
        (tmp_path / name / "metrics.json").write_text(json.dumps(value))
    return tmp_path


def summarise(build: Path) -> dict[str, Any]:
    stages = {
        "corpus": StageRun(12.5, 210.0, False),
        "train_asr": StageRun(0.07, 0.0, True, fresh=True),
        "evaluate_road": StageRun(3.0, 300.0, False),
    }
    params = load(ROOT / "params.yaml")
    results: Any = {"asr": RESULT, "llm": {**RESULT, "verdict": "reject", "version": None, "alias": None}}
    made = summaries.build_summary(build, params, results, stages, Path("build/report.html"), wall_s=61.0)
    return dict(json.loads(json.dumps(made, allow_nan=False)))


def test_a_summary_has_what_its_schema_says(build: Path) -> None:
    made = summarise(build)
    Draft202012Validator(SCHEMA).validate(made)
    found = {"utterances": 3, "hours": 1.0, "voices": 2, "quarantined": 2, "synthetic": True}
    assert made["data"] == found | {"reconciliation": RECONCILED}
    assert made["asr"]["onnx_int8"]["cer_by_voice"] == {"ko+f2": 0.03, "ko+max": 0.07}
    assert made["llm"]["exact_match"]["Q8_0"] == 0.9667 and made["llm"]["serves"] == "Q8_0"
    assert made["stages"]["corpus"] == {"seconds": 12.5, "peak_rss_mb": 210.0, "cached": False}
    assert made["versions"]["prefect"] and made["versions"]["python"].startswith("3.")
    assert made["machine"]["cores"] >= 1


def test_every_key_of_a_summary_is_documented(build: Path) -> None:
    made = summarise(build)
    assert set(made) == set(SCHEMA["properties"])
    page = (ROOT / "docs/reference/summary.md").read_text("utf-8")
    for key in made:
        assert f"`{key}`" in page, f"docs/reference/summary.md does not say what `{key}` is"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data", "synthetic"), "yes"),
        (("asr", "checkpoint", "cer_unseen_voices"), "6%"),
        (("llm", "exact_match", "Q8_0"), 97),
        (("release", "asr", "verdict"), "maybe"),
        (("release", "asr", "floors", 0, "outcome"), "nearly"),
        (
            ("release", "asr", "floors", 0),
            {"name": "CER", "outcome": "kept", "says": "", "setting": "max_cer"},
        ),
        (("stages", "corpus", "cached"), None),
    ],
)
def test_the_schema_refuses(build: Path, path: tuple[Any, ...], value: Any) -> None:
    made = copy.deepcopy(summarise(build))
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(made)


def test_a_corpus_without_an_out_of_domain_slice_is_said_to_have_none(build: Path) -> None:
    path = build / "asr/evaluation/metrics.json"
    metrics = json.loads(path.read_text())
    for system in ("checkpoint", "onnx_int8"):
        metrics[system] |= {
            "cer_ood": None,
            "cer_ood_greedy": None,
            "cer_ood_interval": None,
            "cer_ood_by_kind": {},
        }
    path.write_text(json.dumps(metrics))
    made = summarise(build)
    Draft202012Validator(SCHEMA).validate(made)
    assert made["asr"]["onnx_int8"]["cer_ood"] is None
    assert "out of domain: no such slice" in as_markdown(made)


def test_a_line_that_never_ran_is_null(build: Path) -> None:
    (build / "llm/evaluation/metrics.json").unlink()
    (build / "road/metrics.json").unlink()
    made = summarise(build)
    Draft202012Validator(SCHEMA).validate(made)
    assert made["llm"] is None and made["end_to_end"] is None
    assert [section.title for section in sections(made) if "Language" in section.title] == []


def test_the_table_shows_every_figure_and_says_synthetic(
    build: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    made = summarise(build)
    print_table(made)
    printed, markdown = capsys.readouterr().out, as_markdown(made)
    assert [part for part in SHOWN if part not in printed] == []
    assert [part for part in SHOWN if part not in markdown] == []


def test_the_closing_table_says_what_went_in_and_what_became_of_it(build: Path) -> None:
    shown = as_markdown(summarise(build))
    assert "| read (lines) | 8 | 5 | 1 header, 2 unreadable_line |" in shown
    assert "| validate (rows) | 5 | 3 | 2 missing_file |" in shown
