"""A user's recordings with marks in their transcripts, from the manifest through the public commands."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from ruamel.yaml import YAML

from tasks.data.manifest import read_manifest
from tasks.data.source import take_commands
from tasks.data.transcripts.rows import SET_ASIDE, WRITTEN, set_aside, with_marks
from tasks.settings import Corpus
from tests import children

ROOT = Path(__file__).parents[2]
GOOD = {  # as written: as trained under ko-3
    "b/ 창문 닫아 줘 n/": "창문 닫아 줘",
    "사과 (3개)/(세 개) 줘": "사과 세 개 줘",
    "(TV)/(티비)를 켜 줘": "티비를 켜 줘",
    "어/ 그+ 그 문* 열어 줘": "어 그 그 문 열어 줘",
    "{laughing} 불 꺼 줘 (웃음)": "불 꺼 줘",
    "(FP:음) 노래 틀어 줘 [noise]": "음 노래 틀어 줘",
}
BAD = {
    "&name1& 불러 줘": ("anonymised_name", "&name1&"),
    "[번역투] 불 켜 줘": ("unknown_mark", "[번역투]"),
    "u/ 보일러 꺼 줘": ("unclear_speech", "u/"),
    "((거실)) 불 꺼 줘": ("uncertain_transcription", "((거실))"),
}
SPLITS = ("train", "validation", "test_sentences", "test_voices")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A project folder with params.yaml and a TSV of recordings: all of GOOD and BAD, and enough plain rows."""
    plain = [f"{number} 번 방 불 켜 줘" for number in range(11, 11 + 36)]
    texts = [*GOOD, *BAD, *plain]
    lines = ["path\ttranscript\tspeaker\tsplit"]
    for number, text in enumerate(texts):
        split = "train" if number < len(GOOD) + len(BAD) else SPLITS[number % 4]
        speaker = "unseen" if split == "test_voices" else "known"
        noise = 0.1 * np.random.default_rng(number).standard_normal(40_000)
        soundfile.write(tmp_path / f"{number}.wav", noise, 16_000)
        lines.append(f"{number}.wav\t{text}\t{speaker}\t{split}")
    (tmp_path / "mine.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text("utf-8"))
    params["corpus"] |= {"source": "manifest", "manifest": str(tmp_path / "mine.tsv")}
    params["validate"] |= {"max_bad_share": 0.2}
    params["prepare"]["normaliser"] = "ko-3"
    params["train_asr"]["encoder"] = str(ROOT / params["train_asr"]["encoder"])
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)
    return tmp_path


def stage(folder: Path, module: str, *options: str, code: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))}
    command = [sys.executable, "-m", f"tasks.data.{module}", "--params", "params.yaml", *options]
    done = children.run(command, cwd=folder, env=environment)
    assert done.returncode == code, done.stderr.decode()
    return str(done.stderr.decode())


def test_what_is_said_is_trained_on_and_what_is_not_clear_is_quarantined_by_name(mine: Path) -> None:
    stage(mine, "commands", "--out-dir", "commands")
    told = stage(mine, "corpus", "--commands", "commands", "--out-dir", "corpus")
    duplicates = pd.DataFrame(columns=["row", "utterance_id", "other_row", "other_utterance_id"])
    duplicates.to_parquet(mine / "none.parquet")
    stage(mine, "validate", "--corpus", "corpus", "--duplicates", "none.parquet", "--out", "validated")
    stage(mine, "prepare_asr", "--corpus", "corpus", "--validated", "validated", "--out-dir", "prepared")

    assert "4 rows are set aside for marks that are not read as words" in told
    assert "11 marks of 10 kinds were taken out of 6 transcripts (marks-1)" in told
    assert "11 marks of 10 kinds" in (mine / "corpus" / "card.md").read_text("utf-8")
    manifest = read_manifest(mine / "corpus" / "manifest.parquet")
    assert len(manifest) == len(GOOD) + len(BAD) + 36
    assert manifest[WRITTEN].tolist()[: len(GOOD)] == list(GOOD)

    trained = pd.read_parquet(mine / "prepared" / "utterances.parquet").set_index(WRITTEN)["text"]
    assert {written: trained[written] for written in GOOD} == GOOD
    assert len(trained) == len(GOOD) + 36
    quarantine = pd.read_parquet(mine / "validated" / "quarantine.parquet").set_index("transcript")
    assert set(quarantine.index) == set(BAD)
    for written, (reason, mark) in BAD.items():
        assert reason in quarantine.loc[written, "reasons"].split(", ")
        assert f"{reason}: {mark}" in quarantine.loc[written, "details"]
    result = json.loads((mine / "validated" / "result.json").read_text("utf-8"))
    assert {reason: result["reasons"][reason] for reason, _ in BAD.values()} == {
        r: 1 for r, _ in BAD.values()
    }
    assert result["rows"] == result["good"] + result["quarantined"]
    assert result["unread_words"] == {}  # the words of rows set aside are not asked to be read out


def test_too_many_rows_set_aside_stop_the_run_and_the_advice_works(mine: Path) -> None:
    yaml = YAML()
    params = yaml.load((mine / "params.yaml").read_text("utf-8"))
    params["validate"]["max_bad_share"] = 0.02
    with (mine / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)
    columns = ["row", "utterance_id", "other_row", "other_utterance_id"]
    pd.DataFrame(columns=columns).to_parquet(mine / "none.parquet")
    validation = ("validate", "--corpus", "corpus", "--duplicates", "none.parquet", "--out", "validated")
    stage(mine, "commands", "--out-dir", "commands")
    stage(mine, "corpus", "--commands", "commands", "--out-dir", "corpus")
    told = stage(mine, *validation, code=2)
    assert "4 of 46 rows (8.7%) are bad" in told
    for reason, mark in BAD.values():
        assert f"1 {reason}" in told
        assert f"{reason}: {mark}" in told
    assert "Mend or remove them and start the same command again" in told

    table = (mine / "mine.tsv").read_text("utf-8")
    for written, said in zip(
        BAD, ("지민아 불러 줘", "불 좀 켜 줘", "보일러 좀 꺼 줘", "거실 불 꺼 줘"), strict=True
    ):
        table = table.replace(written, said)
    (mine / "mine.tsv").write_text(table, "utf-8")
    stage(mine, "corpus", "--commands", "commands", "--out-dir", "corpus")
    stage(mine, *validation)
    assert len(read_manifest(mine / "validated" / "manifest.parquet")) == 46


# ---- the table of rows ----


def read(texts: list[object], **changes: str) -> tuple[pd.DataFrame, list[str]]:
    how = {"version": "marks-1", "side": "spoken", "fillers": "keep", **changes}
    return with_marks(pd.DataFrame({"transcript": texts}), **how)  # type: ignore[arg-type]


def test_rows_without_marks_pass_untouched() -> None:
    frame, notes = read(["불 켜 줘", None, "3시 30분!"])
    assert list(frame.columns) == ["transcript"]
    assert frame["transcript"].tolist()[::2] == ["불 켜 줘", "3시 30분!"]
    assert notes == []


def test_no_version_leaves_the_marks_where_they_are() -> None:
    frame, notes = read(["b/ 네", "[zzz]"], version="none")
    assert (frame["transcript"].tolist(), list(frame.columns), notes) == (
        ["b/ 네", "[zzz]"],
        ["transcript"],
        [],
    )


def test_decomposed_text_is_composed_before_its_marks_are_read() -> None:
    frame, _ = read(["\u110b\u1165/ \u1102\u1166", "(\u110b\u116e\u11ba\u110b\u1173\u11b7) 네"])
    assert frame["transcript"].tolist() == ["어 네", "네"]


def test_the_second_time_nothing_is_left_to_do_and_the_first_transcripts_stay() -> None:
    once, _ = read(["b/ 네", "[zzz] 네", "네"])
    again, notes = with_marks(once, version="marks-1", side="spoken", fillers="keep")
    pd.testing.assert_frame_equal(again, once)
    assert notes == ["1 row is set aside for marks that are not read as words: unknown_mark ([zzz] 1)"]
    assert again[WRITTEN].tolist() == ["b/ 네", "[zzz] 네", "네"]


def test_a_column_of_another_hand_is_not_passed_over() -> None:
    for value in (
        "something",
        "[1]",
        '"x"',
        "3",
        "{}",
        '{"unknown_mark": 7}',
        '{"anonymised_name": {"a": 1}}',
    ):
        found = set_aside(pd.DataFrame({SET_ASIDE: [value, ""]}))
        assert [marks for marks in found.values() if marks[0]] != [], value
        assert all(marks[1] is None for marks in found.values())


def test_a_command_of_a_row_set_aside_is_not_learned(mine: Path, corpus_params: Corpus) -> None:
    table = pd.read_csv(mine / "mine.tsv", sep="\t", quoting=3)
    call = '{"name": "set_light", "arguments": {"power": "on"}}'
    table.assign(tool_call=call).to_parquet(mine / "mine.parquet")
    params = corpus_params.model_copy(update={"source": "manifest", "manifest": str(mine / "mine.parquet")})
    commands, _ = take_commands(params, "ko-3")
    texts = set(commands["text"])
    assert set(GOOD.values()) <= texts
    assert not any("불러" in text or "번역" in text for text in texts)
    assert len(commands) == len(GOOD) + 36
