"""What a version says of itself: the card, its front matter, its lineage."""

import subprocess
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from tasks.artifacts import read_json, write_json
from tasks.release.answers import Answer, Road
from tasks.release.card import write_card
from tasks.release.decide import Decision
from tasks.release.lineage import Lineage, data_md5s, read_lineage
from tests.release.conftest import LOCK, with_section

DECISION = Decision("promote", ("every floor holds and no version serves yet", "CER: 3.00% ≤ 4.00%"))
ROAD = Road(
    tuple(
        Answer(split, f"{n}", "v", "불 켜", float(n < wrong), 1)
        for split, wrong in (("test_sentences", 1), ("test_voices", 2))
        for n in range(10)
    )
)
LINEAGE = Lineage("c0ffee", True, "d1", "d2", "d3", {"build/corpus": "md5-1"}, "team/xlsr@c0ffee")


def card(line, params, **changes):
    metrics = read_json(Path(f"build/{line}/evaluation/metrics.json"))
    options = {
        "decision": DECISION,
        "metrics": metrics,
        "lineage": LINEAGE,
        "artifact": "a1",
        "road": ROAD,
    }
    options |= {"unseen_voices": frozenset({"ko+m9"}), "served": "malgil-llm-Q8_0.gguf"}
    return write_card(line, params, **options | changes)


def test_the_recogniser_card_is_one_the_hub_reads(project, params):
    text = card("asr", params)
    data = ModelCard(text).data
    assert (data.language, data.license, data.pipeline_tag) == (
        "ko",
        "apache-2.0",
        "automatic-speech-recognition",
    )
    rates = {r.metric_name: r.metric_value for r in data.eval_results}
    assert rates["CER, unseen sentences and voices"] == 0.04
    assert data.base_model is None  # a local folder is nothing the Hub can link to
    assert "**Synthetic speech only.**" in text
    assert "| ko+m9 | unseen | 4.00% |" in text and "| ko+f1 | known | 3.00% |" in text
    assert "| fine-tuned from | `team/xlsr@c0ffee` |" in text
    assert "git `c0ffee` with uncommitted changes" in text and "| `build/corpus` | md5 `md5-1` |" in text
    assert "80.00%" in text and "espeak-ng" in text


def test_the_card_shows_the_out_of_domain_slice_or_says_that_there_is_none(project, params):
    assert "No out-of-domain slice" in card("asr", params)
    metrics = read_json(Path("build/asr/evaluation/metrics.json"))
    row = {"group": "out of domain", "slice": "babble", "utterances": 18, "speakers": 12, "cer": 0.625}
    row |= {"cer_interval": [0.55, 0.7], "cer_greedy": 0.5}
    alone = row | {"slice": "hum", "cer_interval": None}
    for system in ("checkpoint", "onnx_int8"):
        metrics[system] |= {"cer_ood": 0.6, "cer_ood_greedy": 0.5, "n_ood": 36, "slices": [row, alone]}
    text = card("asr", params, metrics=metrics)
    assert "No out-of-domain slice" not in text
    assert "| babble | 18 | 12 | 62.50% | 55.00% to 70.00% | 50.00% |" in text
    assert "| hum | 18 | 12 | 62.50% | – | 50.00% |" in text
    assert {r.metric_name: r.metric_value for r in ModelCard(text).data.eval_results}[
        "CER, out of domain"
    ] == 0.6


def test_the_language_model_card_names_its_base_and_every_file(project, params):
    text = card("llm", params)
    data = ModelCard(text).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct" and data.pipeline_tag == "text-generation"
    assert "| Q8_0 (serves) | 97.00% | 300 | 10 |" in text and "Apache-2.0" in text


@pytest.mark.parametrize("line", ["asr", "llm"])
def test_own_data_is_neither_called_synthetic_nor_given_a_licence(project, params, line):
    own = with_section(params, "corpus", source="manifest", manifest="mine.parquet")
    text = card(line, own)
    data = ModelCard(text).data
    assert data.license == "other" and "synthetic-data" not in data.tags
    assert "Synthetic" not in text.partition("## Limits")[0]


def test_a_base_model_of_the_hub_is_linked(project, params):
    other = with_section(params, "base_llm", model="Qwen/Qwen2.5-0.5B")
    data = ModelCard(card("llm", other)).data
    assert data.base_model == "Qwen/Qwen2.5-0.5B" and data.license == "other"
    at_a_tag = with_section(params, "base_llm", model="Qwen/Qwen2.5-0.5B@v1.0")
    assert ModelCard(card("llm", at_a_tag)).data.base_model == "Qwen/Qwen2.5-0.5B"


@pytest.mark.parametrize("line", ["asr", "llm"])
def test_the_same_release_gives_the_same_card(project, params, line):
    assert card(line, params) == card(line, params)
    assert card(line, params, road=None) != card(line, params)


def test_lineage_follows_the_line_upwards_through_data_alone():
    lock = YAML(typ="safe").load(LOCK)
    assert list(data_md5s(lock, "build/asr/")) == ["build/asr/shipped", "build/corpus", "build/prepared/asr"]
    assert list(data_md5s(lock, "build/llm/")) == ["build/corpus", "build/llm/gguf", "build/prepared/llm"]
    assert data_md5s({"stages": {}}, "build/asr/") == {}


def test_a_commit_that_git_cannot_tell_is_unknown_with_a_reason_and_never_clean(project, params, tmp_path):
    lineage = read_lineage("asr", tmp_path / "build", tmp_path)
    tags, told = lineage.tags(), lineage.as_dict()
    assert tags["malgil.git_commit"] == tags["malgil.git_dirty"] == told["git_dirty"] == "unknown"
    why = "the project is not in a git repository"
    assert tags["malgil.git_trouble"] == told["git_trouble"] == why
    assert f"git `unknown` ({why}; whether it was changed is unknown)" in card("asr", params, lineage=lineage)


def test_a_commit_that_git_tells_is_published_under_the_keys_of_before(project, params, tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    lineage = read_lineage("asr", tmp_path / "build", tmp_path)
    assert (lineage.git_dirty, lineage.tags()["malgil.git_dirty"]) == (False, "false")
    assert "git_trouble" not in lineage.as_dict() and "malgil.git_trouble" not in lineage.tags()
    (tmp_path / "dvc.lock").write_text("stages: {}")
    changed = read_lineage("asr", tmp_path / "build", tmp_path)
    assert changed.as_dict()["git_dirty"] is True and changed.tags()["malgil.git_dirty"] == "true"


def test_what_is_not_there_is_unknown(tmp_path):
    lineage = read_lineage("asr", tmp_path / "build", tmp_path)
    assert (lineage.dvc_lock, lineage.params, lineage.constraints, lineage.data) == (*["unknown"] * 3, {})
    assert lineage.base == "unknown"


def test_lineage_names_what_was_fine_tuned_with_its_commit(tmp_path):
    said = {"asr/checkpoint": {"encoder": "team/xlsr@c0ffee"}, "llm/base": {"model": "team/llm@decade"}}
    for folder, about in said.items():
        write_json(tmp_path / "build" / folder / "malgil.json", about)
    assert read_lineage("asr", tmp_path / "build", tmp_path).base == "team/xlsr@c0ffee"
    lineage = read_lineage("llm", tmp_path / "build", tmp_path)
    assert lineage.base == lineage.as_dict()["base"] == lineage.tags()["malgil.base"] == "team/llm@decade"


@pytest.mark.parametrize("line", ["asr", "llm"])
def test_lineage_says_on_which_cpu_the_shipped_files_were_measured(project, params, tmp_path, line):
    assert read_lineage(line, tmp_path / "own", tmp_path).measured_on == "unknown"
    metrics = {"measured_on": {"cpu": "AMD EPYC", "instruction_sets": "AVX2"}}
    write_json(tmp_path / f"own/{line}/evaluation/metrics.json", metrics)
    lineage = read_lineage(line, tmp_path / "own", tmp_path)
    assert lineage.measured_on == lineage.as_dict()["measured_on"] == "AMD EPYC (AVX2)"
    assert lineage.tags()["malgil.measured_on"] == "AMD EPYC (AVX2)"
    assert "| measured on | AMD EPYC (AVX2) |" in card(line, params, lineage=lineage)
