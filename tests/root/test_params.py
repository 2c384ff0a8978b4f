"""params.yaml: what is accepted, how mistakes are reported, how a run overrides values."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.errors import ArtifactError, SettingsError
from tasks.params import check, load, main, read_yaml, resolve


@pytest.fixture
def raw():
    return read_yaml(Path("params.yaml"))


def mistakes(values):
    with pytest.raises(SettingsError) as caught:
        check(values)
    return caught.value.problems


def test_the_shipped_file_and_its_quick_values_are_valid():
    full, quick = load(), load(quick=True)
    assert quick.corpus.train_utterances < full.corpus.train_utterances
    assert quick.registry.asr_model != full.registry.asr_model, (
        "a quick version must never replace a real one"
    )


def test_settings_cannot_be_changed_after_loading():
    with pytest.raises(ValueError, match="frozen"):
        load().corpus.seed = 3


def test_every_kind_of_mistake_is_reported_at_once_with_its_path(raw):
    values, _ = resolve(raw)
    values["corpus"]["sed"] = 1
    values["corpus"]["voices"] = 0
    values["train_asr"]["steps"] = "many"
    values["validate"]["min_duration_s"] = 99.0
    values["evaluate_road"]["quantisation"] = "Q5_K_M"
    values["extra"] = {}
    del values["train_llm"]["rank"]
    problems = mistakes(values)
    assert len(problems) == 7
    for path in (
        "corpus.sed:",
        "corpus.voices:",
        "train_asr.steps:",
        "validate.min_duration_s:",
        "evaluate_road.quantisation:",
        "extra:",
        "train_llm.rank:",
    ):
        assert sum(p.startswith(path) for p in problems) == 1, path


def test_a_mistyped_key_is_answered_with_the_nearest_one(raw):
    values, _ = resolve(raw)
    values["train_asr"]["learning_rat"] = 1.0
    assert "did you mean 'learning_rate'?" in mistakes(values)[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("corpus.seed", True),
        ("corpus.seed", 1.5),
        ("corpus.source", "cloud"),
        ("publish.private", "yes"),
        ("corpus.snr_db", []),
        ("corpus.snr_db", [10, "loud"]),
        ("corpus", None),
        ("registry.environments", ["staging", "staging"]),
        ("pretrain.languages", ["es", "ko"]),
        ("registry.llm_model", "malgil-asr"),
    ],
)
def test_wrong_values_are_refused_and_named(raw, key, value):
    values, _ = resolve(raw)
    section, _, name = key.partition(".")
    if name:
        values[section][name] = value
    else:
        values[section] = value
    assert any(section in problem for problem in mistakes(values))


def test_source_manifest_needs_a_path(raw):
    values, _ = resolve(raw, sets=["corpus.source=manifest"])
    assert any("needs corpus.manifest" in p for p in mistakes(values))


def test_overrides_win_over_quick_and_quick_over_the_file():
    params = load(quick=True, sets=["corpus.voices=5"])
    assert params.corpus.voices == 5
    assert params.corpus.train_utterances == read_yaml_quick()["corpus"]["train_utterances"]


def read_yaml_quick():
    return YAML(typ="safe", pure=True).load(Path("params.yaml"))["quick"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.0001", 0.0001), ("1e-4", 1e-4), ("3", 3.0)],
    ids=["decimal", "exponent", "integer"],
)
def test_an_override_is_read_as_yaml_1_2(text, value):
    assert load(sets=[f"train_asr.learning_rate={text}"]).train_asr.learning_rate == value


def test_wrong_overrides_are_reported_with_the_mistakes_of_the_file(raw):
    with pytest.raises(SettingsError) as caught:
        load(sets=["corpsu.seed=1", "seed=1", "corpus.seed", "corpus.voices=-1", "corpus.seed=[1"])
    assert len(caught.value.problems) == 5
    assert any("did you mean 'corpus'?" in p for p in caught.value.problems)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "a: 1\na: 2\n", "", "\x00"])
def test_a_file_that_is_no_mapping_is_a_settings_error(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"p\.yaml"):
        load(tmp_path / "p.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="nowhere"):
        load(tmp_path / "nowhere.yaml")


def test_the_settings_stage_writes_what_load_reads_back(tmp_path, monkeypatch):
    monkeypatch.setenv("MALGIL_QUICK", "1")
    monkeypatch.setenv("MALGIL_SET", json.dumps(["corpus.seed=11"]))
    out = tmp_path / "params.yaml"
    assert main(["--out", str(out), "--sources", str(tmp_path / "build/sources")]) == 0
    assert load(out) == load(quick=True, sets=["corpus.seed=11"])


def test_the_settings_stage_leaves_the_old_file_when_the_new_values_are_wrong(tmp_path, capsys):
    out = tmp_path / "params.yaml"
    out.write_text("old")
    assert main(["--out", str(out), "-S", "corpus.seed=x"]) == 2
    assert out.read_text() == "old"
    assert "corpus.seed" in capsys.readouterr().err


def test_a_changed_manifest_of_the_users_changes_its_source_digest(tmp_path):
    manifest = tmp_path / "mine.parquet"
    arguments = [
        "--out", str(tmp_path / "p.yaml"), "--sources", str(tmp_path / "build/sources"),
        "-S", "corpus.source=manifest", "-S", f"corpus.manifest={manifest}",
    ]  # fmt: skip
    digests = []
    for content in (b"one", b"two"):
        manifest.write_bytes(content)
        assert main(arguments) == 0
        digests.append(json.loads((tmp_path / "build/sources/corpus.json").read_text())["sha256"])
    assert digests[0] != digests[1]
