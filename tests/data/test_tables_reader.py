"""The reader of tables, case by case: what other programs write, and what goes wrong in it."""

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.asr.decoding.search import read_hot_words
from tasks.data.own.gathered import rows_of_table
from tasks.data.own.reader import Table, read
from tasks.data.tables import read_table
from tasks.errors import DataError

CASES = Path(__file__).parent / "cases"
TEXTS = ["거실 불 켜 줘", "부엌 불 꺼 줘", "창문 닫아 줘", "소리 줄여 줘", "문 열어 줘"]


def table(tmp_path: Path, data: bytes | str, name: str = "a.csv") -> Table:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read(path)


def named(found: Table) -> list[tuple[int, str]]:
    """Lines that are no row but blank ones and headers: (number, reason)."""
    return [(one.line, one.reason) for one in found.aside if one.reason not in ("header", "blank_line")]


def run_advice(error: DataError) -> Path:
    """Runs the command that a message prints; the file that it writes."""
    command = re.search(r"`(iconv .* > (.*))`", error.next_step)
    assert command, error.next_step
    subprocess.run(command[1], shell=True, check=True, executable="/bin/sh")
    return Path(command[2].strip("'"))


ENCODINGS = {
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "utf-32": "UTF-32",
    "utf-32-be": "UTF-32BE",
    "cp949": "CP949",
    "euc-kr": "CP949",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["내 표.csv", "a.tsv", "a.jsonl"])
def test_another_encoding_is_named_and_the_advice_works(tmp_path: Path, encoding: str, name: str) -> None:
    frame = pd.DataFrame({"path": [f"a{n}.wav" for n in range(5)], "transcript": TEXTS})
    if name.endswith("jsonl"):
        text = frame.to_json(orient="records", lines=True, force_ascii=False)
    else:
        text = frame.to_csv(index=False, sep="\t" if name.endswith("tsv") else ",")
    with pytest.raises(DataError) as caught:
        table(tmp_path, text.encode(encoding), name)
    assert ENCODINGS[encoding] in caught.value.what
    assert read(run_advice(caught.value)).frame["transcript"].tolist() == TEXTS


@pytest.mark.parametrize("encoding", ["shift_jis", "iso-8859-1", "gb18030"])
def test_an_encoding_that_is_not_korean_is_not_called_korean(tmp_path: Path, encoding: str) -> None:
    says = {
        "shift_jis": "リビングの電気をつけてください。窓を閉めて、音を小さくして",
        "iso-8859-1": "Schließ bitte das Fenster; es wird spät und kühl; wir müssen heizen",
        "gb18030": "请打开客厅的灯，然后把窗户关上，声音小一点，谢谢你的帮助",
    }[encoding]
    data = ("path,transcript\n" + "".join(f"a{n}.wav,{says}\n" for n in range(20))).encode(encoding)
    with pytest.raises(DataError) as caught:
        table(tmp_path, data)
    assert "not UTF-8 (line 2)" in caught.value.what and "CP949" not in str(caught.value)
    if "iconv" in caught.value.next_step:
        assert len(read(run_advice(caught.value)).frame) == 20


def test_the_case_in_utf_16_is_named_and_the_advice_works(tmp_path: Path) -> None:
    copy = tmp_path / "c03.csv"
    copy.write_bytes((CASES / "c03_utf16.csv").read_bytes())
    with pytest.raises(DataError, match=r"is UTF-16: .*iconv -f UTF-16 -t UTF-8") as caught:
        read(copy)
    assert read(run_advice(caught.value)).frame["transcript"].tolist() == TEXTS


def test_one_line_of_many_that_is_not_utf_8_costs_itself_alone(tmp_path: Path) -> None:
    lines = ["path,transcript", *(f"a{n}.wav,{text}" for n, text in enumerate(TEXTS))]
    data = "\n".join(lines).encode() + b"\nb.wav," + "불 켜".encode("cp949") + b"\nc.wav,\0\0\n"
    found = table(tmp_path, data)
    assert found.frame["transcript"].tolist() == TEXTS
    assert named(found) == [(7, "unreadable_line"), (8, "unreadable_line")]


@pytest.mark.parametrize("case", ["c04_quote_over_rows.tsv", "c05_quote_in_middle_column.tsv"])
def test_a_quote_in_a_tsv_belongs_to_its_text(case: str) -> None:
    found = read(CASES / case)
    assert [text.strip('"') for text in found.frame["transcript"]] == TEXTS
    assert sum('"' in text for text in found.frame["transcript"]) == (2 if "c04" in case else 1)
    assert list(found.lines) == [2, 3, 4, 5, 6] and not named(found)


LJ = '<id>|"부엌" 불|부엌 불\n'
VERBATIM = {
    "whole utterances in quotes": ['"거실 불 켜 줘"', '"창문 닫아 줘"'],
    "one at the end and one at the start": ['그는 "안녕', '"안녕" 이라고', '줘"'],
    "only quotes": ['"', '"'],
    "the first opens and the last closes": ['"거실 불', *TEXTS, '줘"'],
}


@pytest.mark.parametrize("texts", VERBATIM.values(), ids=VERBATIM)
@pytest.mark.parametrize("separator", ["\t", "|"])
@pytest.mark.parametrize("order", ["last", "middle", "first"])
def test_every_line_is_a_row_where_nothing_declares_quotes(
    tmp_path: Path, texts: list[str], separator: str, order: str
) -> None:
    columns = {"last": "ist", "middle": "its", "first": "tis"}[order]
    lines = [separator.join({"i": "path", "s": "speaker", "t": "transcript"}[c] for c in columns)]
    for number, text in enumerate(texts):
        lines.append(separator.join({"i": f"a{number}.wav", "s": "s1", "t": text}[c] for c in columns))
    found = table(tmp_path, "\n".join(lines) + "\n", "a.tsv" if separator == "\t" else "a.csv")
    assert found.frame["transcript"].tolist() == texts and not named(found)


@pytest.mark.parametrize("header", ['"path"\t"transcript"', "path\ttranscript"])
def test_quotes_of_a_tsv_count_where_its_header_or_every_field_declares_them(
    tmp_path: Path, header: str
) -> None:
    rows = '"a.wav"\t"그는 ""안녕"" 했다"\n' if header.startswith('"') else 'a.wav\t"그는 ""안녕"" 했다"\n'
    assert table(tmp_path, f"{header}\n{rows}", "a.tsv").frame["transcript"].tolist() == ['그는 "안녕" 했다']


def test_a_quote_in_a_csv_that_would_swallow_rows_costs_its_own_line(tmp_path: Path) -> None:
    """The fault of c04 as a CSV: the line where the quote begins is named, all others are rows."""
    rows = [f"a{n}.wav,s{n},{text}" for n, text in enumerate(TEXTS)]
    rows[1], rows[3] = 'a1.wav,s1,"부엌 불 꺼 줘', 'a3.wav,s3,소리 줄여 줘"'
    found = table(tmp_path, "\n".join(["path,speaker,transcript", *rows]) + "\n")
    assert named(found) == [(3, "unclosed_quote")]
    assert "line 4" in next(one.why for one in found.aside if one.reason == "unclosed_quote")
    assert found.frame["path"].tolist() == ["a0.wav", "a2.wav", "a3.wav", "a4.wav"]
    assert list(found.lines) == [2, 4, 5, 6]


SWALLOWING = {
    "in the middle column": ["a1.wav,부엌,s1", 'a2.wav,"창문,s2', 'a3.wav,소리",s3', "a4.wav,문,s4"],
    "never closed": ["a1.wav,부엌,s1", 'a2.wav,"창문,s2', "a3.wav,소리,s3", "a4.wav,문,s4"],
    "in the last line": ["a1.wav,부엌,s1", "a2.wav,창문,s2", 'a3.wav,"소리,s3'],
    "where a later field is quoted": ["a1.wav,부엌,s1", 'a2.wav,"창문,s2', 'a3.wav,"소리, 둘",s3'],
    "in a line that is short": ["a1.wav,부엌,s1", 'a2.wav,"창문', 'a3.wav,소리",s3', "a4.wav,문,s4"],
}


@pytest.mark.parametrize("rows", SWALLOWING.values(), ids=SWALLOWING)
@pytest.mark.parametrize("separator", [",", ";"])
def test_an_open_quote_of_a_csv_is_named_where_it_begins(
    tmp_path: Path, rows: list[str], separator: str
) -> None:
    lines = [line.replace(",", separator) for line in ["path,transcript,speaker", *rows]]
    found = table(tmp_path, "\n".join(lines) + "\n")
    opens = next(number for number, line in enumerate(lines, 1) if f'{separator}"' in line)
    assert named(found) == [(opens, "unclosed_quote")]
    assert set(found.lines) == set(range(2, len(lines) + 1)) - {opens}


def test_a_quoted_field_of_several_lines_is_one_row(tmp_path: Path) -> None:
    data = (
        'path,transcript,speaker\na.wav,"거실 불\n켜, 줘",s1\nb.wav,"하나\r\n\r\n둘",s2\n"셋,\n넷",c.wav,s3\n'
    )
    found = table(tmp_path, data)
    assert found.frame["transcript"].tolist() == ["거실 불 켜, 줘", "하나  둘", "c.wav"]
    assert list(found.lines) == [2, 4, 7]
    assert found.count.set_aside == {"continued_line": 4, "header": 1}


def test_words_in_quotes_before_other_text_are_read_as_they_are_written(tmp_path: Path) -> None:
    found = table(tmp_path, 'path,transcript\na.wav,"안녕"이라고 했다\nb.wav,그는 "안녕" 했다\n')
    assert found.frame["transcript"].tolist() == ['"안녕"이라고 했다', '그는 "안녕" 했다']
    assert "1 lines" in found.notes[0]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_separators_of_unicode_inside_a_text_belong_to_it(tmp_path: Path, mark: str, name: str) -> None:
    texts = [f"불{mark}켜 줘", f"{mark}문", f"창문{mark}"]
    frame = pd.DataFrame({"path": ["a.wav", "b.wav", "c.wav"], "transcript": texts})
    if name.startswith("a.js"):
        rows = frame.to_dict("records")
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        data = lines if name == "a.jsonl" else json.dumps(rows, ensure_ascii=False)
    else:
        data = frame.to_csv(index=False, sep="\t" if name == "a.tsv" else ",")
    assert table(tmp_path, data, name).frame["transcript"].tolist() == texts


def test_the_case_of_a_line_separator_is_five_rows() -> None:
    assert len(read(CASES / "c06_line_separator.jsonl").frame) == 5


def test_hot_words_are_lines_whatever_separators_they_hold(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("거실\u2028불\r\n\n부엌\x85\n", encoding="utf-8-sig")
    assert read_hot_words(tmp_path / "words.txt") == ["거실\u2028불", "부엌"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_lines_end_as_any_system_ends_them(tmp_path: Path, end: str, mark: str, name: str) -> None:
    separator = "\t" if name == "a.tsv" else ","
    lines = [separator.join(("path", "transcript")), *(f"{n}.wav{separator}{t}" for n, t in enumerate(TEXTS))]
    if name == "a.jsonl":
        lines = [json.dumps({"path": f"{n}.wav", "transcript": text}) for n, text in enumerate(TEXTS)]
    found = table(tmp_path, mark + end.join(lines), name)
    assert found.frame["transcript"].tolist() == TEXTS
    assert list(found.frame.columns) == ["path", "transcript"]


def test_blank_rows_nameless_columns_and_separators_at_the_end_lose_nothing(tmp_path: Path) -> None:
    data = ",path,transcript,\n0,a.wav,하나,\n\n1,b.wav,둘\n ,,,\n2,c.wav,셋,,\n\n"
    found = table(tmp_path, data)
    assert found.frame.to_dict("list") == {
        "path": ["a.wav", "b.wav", "c.wav"],
        "transcript": ["하나", "둘", "셋"],
    }
    assert list(found.lines) == [2, 4, 6]
    assert found.count.set_aside == {"blank_line": 3, "header": 1}
    assert "2 columns of a.csv have no name" in found.notes[0]
    pd.DataFrame({"path": ["a"], "text": ["b"]}).reset_index().rename(columns={"index": "Unnamed: 0"}).to_csv(
        tmp_path / "b.csv", index=False
    )
    assert list(read(tmp_path / "b.csv").frame.columns) == ["path", "text"]


TWICE = {
    "a.csv": b"path,text,text\na,b,c\n",
    "b.csv": b"path, text ,text\na,b,c\n",
    "a.tsv": b"path\ttext\tpath\na\tb\tc\n",
}


@pytest.mark.parametrize("name", TWICE)
def test_a_column_that_stands_twice_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"has column (text|path) twice"):
        table(tmp_path, TWICE[name], name)
    with pytest.raises(DataError, match="has column transcript twice"):
        read(CASES / "c18_duplicate_header.csv")


def test_a_column_that_stands_twice_in_parquet_or_json_is_named(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"])] * 3, ["path", "text", "text"]), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match="has column text twice"):
        read(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"line 1 .key 'text' stands twice"):
        table(tmp_path, '{"path": "a", "text": "b", "text": "c"}\n', "a.jsonl")


def test_two_columns_that_could_be_one_are_named_and_the_advice_works(tmp_path: Path) -> None:
    found = table(tmp_path, "path,audio,text\nx.wav,y.wav,하나\n")
    with pytest.raises(DataError, match=r"'path' and 'audio'.*corpus\.audio_column=audio"):
        rows_of_table(found, None, "a.csv")
    assert rows_of_table(found, {"path": "audio"}, "a.csv").frame["path"].tolist() == ["y.wav"]
    same = table(tmp_path, "path,audio,text\nx.wav,x.wav,하나\n")
    assert rows_of_table(same, None, "a.csv").frame["path"].tolist() == ["x.wav"]
    bare = table(tmp_path, "filename,path,text\nx.wav,rec/x.wav,하나\n")
    assert rows_of_table(bare, None, "a.csv").frame["path"].tolist() == ["rec/x.wav"]
    alike = table(tmp_path, "path,Text,text\nx.wav,하나,둘\n")
    with pytest.raises(DataError, match=r"'text' and 'Text'.*corpus\.transcript_column=Text"):
        rows_of_table(alike, None, "a.csv")
    assert rows_of_table(alike, {"transcript": "Text"}, "a.csv").frame["transcript"].tolist() == ["하나"]


def test_a_second_column_of_texts_refuses_no_table_and_is_said(tmp_path: Path) -> None:
    for first, second in (("text", "normalized_text"), ("transcript", "text"), ("text", "sentence")):
        found = rows_of_table(table(tmp_path, f"path,{second},{first}\nx.wav,둘,하나\n"), None, "a.csv")
        assert found.frame["transcript"].tolist() == ["하나"]
        assert found.notes == [
            f"transcript is column {first!r}, not {second!r}, which differs; corpus.transcript_column takes another"
        ]


KNOWN = {
    "NeMo": ("audio_filepath", "text"),
    "Common Voice": ("path", "sentence"),
    "Hugging Face": ("file_name", "transcription"),
    "in another case": ("Audio_FilePath", "TEXT"),
    "with spaces": (" File Name ", "transcript\u200b"),
}


@pytest.mark.parametrize("columns", KNOWN.values(), ids=KNOWN)
def test_columns_of_common_tools_are_known(tmp_path: Path, columns: tuple[str, str]) -> None:
    rows = rows_of_table(table(tmp_path, f"{columns[0]},{columns[1]}\na.wav,하나\n"), None, "a.csv")
    assert rows.frame[["path", "transcript"]].values.tolist() == [["a.wav", "하나"]]
    assert len(rows.notes) == (2 if columns[0][0] in "A " else 0)


def test_the_case_of_nemo_has_its_durations_in_seconds() -> None:
    frame = rows_of_table(read(CASES / "c16_nemo.jsonl"), None, "a.jsonl").frame
    assert frame["duration_s"].tolist() == [1.0] * 5 and frame["transcript"].tolist() == TEXTS


def test_columns_that_nobody_knows_are_listed_and_the_advice_works(tmp_path: Path) -> None:
    found = table(tmp_path, "clip,words\na.wav,하나\n")
    with pytest.raises(DataError) as caught:
        rows_of_table(found, None, "a.csv")
    message = str(caught.value)
    assert "no column path, transcript" in message and "its columns are clip, words" in message
    settings = dict(re.findall(r"-S corpus\.(audio|transcript)_column=(\S)", caught.value.next_step))
    assert set(settings) == {"audio", "transcript"}
    frame = rows_of_table(found, {"path": "clip", "transcript": "words"}, "a.csv").frame
    assert frame["transcript"].tolist() == ["하나"]


BAD_LINES = [
    ("a.csv", "path,text\na.wav,x\nb.wav,x,y\nc.wav\nd.wav,z\n", [3, 4]),
    ("a.tsv", "path\ttext\na.wav\tx\nb.wav x\nd.wav\tz\n", [3]),
    (
        "a.jsonl",
        '{"path": "a.wav", "text": "x"}\n{"path":\n[1]\n3\n{"path": "d.wav", "text": "z"}\n',
        [2, 3, 4],
    ),
    (
        "a.jsonl",
        '{"path": "a.wav", "text": "x"}\n{"path": "b", "text": "\\ud800"}\n{"path": "d.wav", "text": "z"}',
        [2],
    ),
]


@pytest.mark.parametrize(("name", "data", "bad"), BAD_LINES)
def test_a_line_that_cannot_be_read_is_set_aside_by_its_number(
    tmp_path: Path, name: str, data: str, bad: list[int]
) -> None:
    found = table(tmp_path, data, name)
    assert found.frame["path"].tolist() == ["a.wav", "d.wav"]
    assert named(found) == [(line, "unreadable_line") for line in bad]
    assert found.count.entered == len(data.strip("\n").split("\n"))
    with pytest.raises(DataError, match=f"line {bad[0]} of"):
        read_table(tmp_path / name)  # a table of readings needs every line


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", "path,text\na\nb\n", r"no line of .* can be read: line 2 \(it has 1 fields, not 2"),
        ("a.jsonl", "{\n{\n", r"no line of .* can be read: line 1 \("),
        ("a.csv", "path,text\n", "has no rows"),
        ("a.csv", "\n\n", "has no rows"),
        ("a.json", '[{"path": "a"},\n 3]', "line 2 of a.json"),
    ],
)
def test_a_table_without_a_line_that_can_be_read_is_refused(
    tmp_path: Path, name: str, data: str, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        table(tmp_path, data, name)


def test_the_separator_is_told_outside_of_quotes_and_from_excels_own_line(tmp_path: Path) -> None:
    quoted = '"path";"text, in Korean; as said";speaker\na.wav;"하나; 둘";s1\n'
    assert list(table(tmp_path, quoted).frame.iloc[0]) == ["a.wav", "하나; 둘", "s1"]
    excel = "sep=;\npath;text\na.wav;하나, 둘\n"
    assert list(table(tmp_path, excel).frame.iloc[0]) == ["a.wav", "하나, 둘"]


def test_joined_files_repeat_their_header_and_mark(tmp_path: Path) -> None:
    part = "\ufeffpath,text\na.wav,하나\n"
    found = table(tmp_path, part + part.replace("a.wav", "b.wav"))
    assert found.frame["path"].tolist() == ["a.wav", "b.wav"]
    assert found.count.set_aside == {"header": 2}


def test_texts_that_spark_wrote_as_bytes_are_texts(tmp_path: Path) -> None:
    columns = {"path": pa.array([b"a.wav"], pa.binary()), "text": pa.array(["불 켜".encode()], pa.binary())}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet").frame.iloc[0]) == ["a.wav", "불 켜"]


def test_quotes_behind_a_space_hold_a_field_together(tmp_path: Path) -> None:
    found = table(tmp_path, 'path, transcript, speaker\na.wav, "하나, 둘", s1\nb.wav, 셋, s2\n')
    assert [text.strip() for text in found.frame["transcript"]] == ["하나, 둘", "셋"] and not named(found)


@pytest.mark.parametrize("row", ['"a1.wav","창문,"s1"', '"a1.wav","창문","s1', '"a1.wav","창문","s1\n'])
def test_a_lost_quote_among_quoted_fields_costs_its_own_line(tmp_path: Path, row: str) -> None:
    rows = [
        '"path","transcript","speaker"',
        '"a0.wav","거실","s0"',
        row.strip("\n"),
        '"a2.wav","문, 열어","s2"',
    ]
    found = table(tmp_path, "\n".join(rows) + "\n")
    assert named(found) == [(3, "unclosed_quote")] and list(found.lines) == [2, 4]
