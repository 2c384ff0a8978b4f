"""Tables and folders as people have them: lists without a header, labels in folders of their own, no texts."""

import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tasks.data.folders import rows_of_folder
from tasks.data.own.lines import read_lines
from tasks.data.own.manifests import rows_of_manifest
from tasks.data.own.paths import Finder
from tasks.data.own.reader import read
from tasks.data.source import open_door
from tasks.errors import DataError

NAMED = dict.fromkeys(("path", "transcript", "speaker", "split"), "")
TEXTS = ["거실 불 켜 줘", "부엌 불 꺼 줘", "창문: 닫아 줘", "소리 줄여 줘", "문 열어 줘", "불 꺼 줘"]


def wav(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    noise = 0.1 * np.random.default_rng(number).standard_normal(800)
    soundfile.write(stream, noise, 16_000, format="WAV", subtype="PCM_16")
    path.write_bytes(stream.getvalue())


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    for number in range(len(TEXTS)):
        wav(tmp_path / f"rec/{number}.wav", number)
    return tmp_path


LISTS = {"a.trn": " :: ", "a.txt": "\t", "a.tsv": "\t", "a.lst": "|", "b.txt": "::", "a.csv": "|"}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_without_column_names_is_read_from_its_first_line(rec: Path, name: str) -> None:
    lines = [f"rec/{n}.wav{LISTS[name]}{text}" for n, text in enumerate(TEXTS)]
    lines[2:2] = ["", "rec/1.wav", f"rec/._1.wav{LISTS[name]}x", "둘만"]
    (rec / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = open_door("manifest", str(rec / name), NAMED)
    assert source.frame["transcript"].tolist() == TEXTS
    assert source.frame["origin_line"].tolist() == [1, 2, 7, 8, 9, 10]
    assert [(one.line, one.reason) for one in source.aside] == [
        (3, "blank_line"),
        (4, "unreadable_line"),
        (5, "operating_system_file"),
        (6, "unreadable_line"),
    ]
    assert "has no column names" in source.notes[0]
    assert all(one.path for one in Finder(rec).find_all(source.frame["path"].tolist()))


def test_a_list_lies_in_a_folder_of_recordings(rec: Path) -> None:
    (rec / "train.trn").write_text("".join(f"rec/{n}.wav :: {text}\n" for n, text in enumerate(TEXTS)))
    found = rows_of_folder(rec)
    assert found.frame["transcript"].tolist() == TEXTS
    assert all(count.check() for count in found.counts)


def test_a_table_without_a_header_is_told_and_the_advice_works(rec: Path) -> None:
    rows = "".join(f"rec/{n}.wav,{text},{text}\n" for n, text in enumerate(TEXTS))
    (rec / "a.csv").write_text(rows)
    with pytest.raises(DataError, match="names a recording, no columns") as caught:
        rows_of_manifest(rec / "a.csv", None, "a.csv")
    assert "a name for each of its 3 fields" in caught.value.next_step
    (rec / "a.csv").write_text("path,transcript,more\n" + rows)
    assert rows_of_manifest(rec / "a.csv", None, "a.csv").frame["transcript"].tolist() == TEXTS


NO_TEXTS = {
    b"PK\x03\x04\x00\x00": "an Excel workbook or a ZIP archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1": "an old Excel workbook",
    gzip.compress(b"path,text\n"): "packed with gzip",
}


@pytest.mark.parametrize("data", NO_TEXTS, ids=NO_TEXTS.values())
def test_a_file_that_is_no_text_is_called_what_it_is(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(DataError, match=NO_TEXTS[data]):
        read_lines(tmp_path / "a.csv")


def test_a_parquet_file_under_another_name_is_told_and_the_advice_works(tmp_path: Path) -> None:
    pd.DataFrame({"path": ["a.wav"], "text": ["하나"]}).to_parquet(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"is a Parquet file.*give it the suffix \.parquet"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").rename(tmp_path / "a.parquet")
    assert len(read(tmp_path / "a.parquet").frame) == 1


def test_a_folder_for_a_manifest_is_told_and_the_advice_works(rec: Path) -> None:
    for number, text in enumerate(TEXTS):
        (rec / f"rec/{number}.txt").write_text(text)
    with pytest.raises(DataError, match="is a folder") as caught:
        open_door("manifest", str(rec), NAMED)
    found = re.search(r"corpus\.source=(\w+) -S corpus\.folder=(\S+)", caught.value.next_step)
    assert found and len(open_door(found[1], found[2], NAMED).frame) == len(TEXTS)


def test_transcripts_that_are_no_texts_are_set_aside_and_numbers_stay_as_they_are(tmp_path: Path) -> None:
    values = [["하나"], {"a": 1}, True, 3, None, "넷"]
    rows = [{"path": f"{n}.wav", "transcript": value} for n, value in enumerate(values)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_door("manifest", str(tmp_path / "a.jsonl"), NAMED)
    assert [str(text) for text in source.frame["transcript"]] == ["3", "None", "넷"]
    assert [(one.line, one.reason) for one in source.aside] == [(n, "unreadable_line") for n in (1, 2, 3)]
    assert "['하나'], no text" in source.aside[0].why


def test_a_list_of_objects_that_no_jsonl_is_says_how_to_write_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"path": "a.wav", "text": "하나"},\n' * 2)
    with pytest.raises(DataError, match=r"without a comma behind it.*jq -c"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('{"path": "a.wav", "text": "하나"}\n' * 2)
    assert len(read(tmp_path / "a.jsonl").frame) == 2


# ---- folders ----


def test_labels_in_a_folder_of_their_own_are_paired_where_one_name_is_meant(tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS):
        wav(tmp_path / f"원천데이터/{number}.wav", number)
        (tmp_path / f"라벨링데이터/{number}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / f"라벨링데이터/{number}.txt").write_text(text)
    wav(tmp_path / "원천데이터/b/5.wav", 9)  # two could be meant
    found = rows_of_folder(tmp_path)
    said = dict(zip(found.frame["path"], found.frame["transcript"], strict=True))
    assert [said[f"원천데이터/{n}.wav"] for n in range(5)] == TEXTS[:5]
    assert said["원천데이터/5.wav"] == said["원천데이터/b/5.wav"] == ""
    assert [one.file for one in found.aside] == ["라벨링데이터/5.txt"]
    assert "5 recordings have their transcript in another folder" in found.notes[0]


def test_a_transcript_of_another_speaker_is_not_taken_for_a_lost_one(tmp_path: Path) -> None:
    for speaker in "ab":
        wav(tmp_path / speaker / "1.wav")
        (tmp_path / speaker / "1.txt").write_text("하나")
        wav(tmp_path / speaker / "2.wav")
        (tmp_path / speaker / "2.txt").write_text("둘")
    (tmp_path / "a/2.wav").unlink()
    (tmp_path / "b/2.txt").unlink()
    found = rows_of_folder(tmp_path)
    assert dict(zip(found.frame["path"], found.frame["transcript"], strict=True))["b/2.wav"] == ""
    assert [(one.file, one.reason) for one in found.aside] == [("a/2.txt", "transcript_without_audio")]


def test_links_to_nowhere_cost_their_own_row_alone(rec: Path) -> None:
    for number, text in enumerate(TEXTS):
        (rec / f"rec/{number}.txt").write_text(text)
    (rec / "rec/1.txt").unlink()
    (rec / "rec/1.txt").symlink_to("nowhere.txt")
    (rec / "rec/2.wav").unlink()
    (rec / "rec/2.wav").symlink_to("nowhere.wav")
    found = rows_of_folder(rec)
    assert len(found.frame) == len(TEXTS) - 1
    assert [(one.file, one.reason) for one in found.aside] == [("rec/1.txt", "unreadable_line")]
    assert "a link to nowhere" in Finder(rec).find("rec/2.wav").how
    assert "a folder" in Finder(rec).find("rec").how


def test_two_tables_in_one_folder_are_refused_and_the_advice_works(rec: Path) -> None:
    rows = [{"file_name": f"rec/{n}.wav", "text": text} for n, text in enumerate(TEXTS)]
    pd.DataFrame(rows).to_csv(rec / "metadata.csv", index=False)
    pd.DataFrame(rows).to_json(rec / "metadata.jsonl", orient="records", lines=True)
    with pytest.raises(DataError, match=r"metadata\.jsonl and metadata\.csv") as caught:
        rows_of_folder(rec)
    table = re.search(r"corpus\.manifest=(\S+)", caught.value.next_step)
    assert table and open_door("manifest", table[1], NAMED).frame["transcript"].tolist() == TEXTS


def test_a_folder_whose_transcripts_stand_in_a_table_says_so_and_the_advice_works(rec: Path) -> None:
    lines = "".join(f"{n}.wav\t{text}\n" for n, text in enumerate(TEXTS))
    (rec / "train.tsv").write_text("path\tsentence\n" + lines)
    (rec / "labels.json").write_text("{}")
    with pytest.raises(DataError, match=r"though 1 \.json files") as caught:
        rows_of_folder(rec)
    table = re.search(r"corpus\.manifest=(\S+)", caught.value.next_step)
    assert table and open_door("manifest", table[1], NAMED).frame["transcript"].tolist() == TEXTS
