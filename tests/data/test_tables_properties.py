"""Any table in: every line is a row or named, and no text is changed. MALGIL_FUZZ_EXAMPLES raises the number."""

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.data.own.gathered import rows_of_table
from tasks.data.own.lines import split_lines
from tasks.data.own.paths import Finder
from tasks.data.own.reader import read
from tasks.data.source import ingest, take_commands
from tasks.errors import MalgilError
from tasks.settings import Corpus

EXAMPLES = int(os.environ.get("MALGIL_FUZZ_EXAMPLES", "200"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
ODD = st.sampled_from(
    ['"', '""', ",", ";", "|", "'", "\\", "\ufeff", " ", "가", "줘", "\r", "{", "}", *SEPARATORS]
)
LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0\n")
TEXTS = st.lists(st.one_of(ODD, LETTERS), max_size=12).map("".join)
ROWS = st.lists(TEXTS, min_size=1, max_size=8)


def as_frame(texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"a{number}.wav" for number in range(len(texts))],
            "transcript": texts,
            "speaker": [f"s{number % 3}" for number in range(len(texts))],
        }
    )


def read_back(name: str, data: bytes) -> list[str]:
    """The transcripts that a table of these bytes gives, its count checked: every line a row or named."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        table = read(path)
        gathered = rows_of_table(table, None, name)
    assert table.count.entered == len(table.lines) + len(table.aside)
    assert len(set(table.lines)) == len(table.lines)
    system = [
        one.line for one in gathered.aside if one.reason == "operating_system_file"
    ]  # a row names ".wav"
    assert sorted([*gathered.frame["origin_line"], *system]) == sorted(table.lines)
    return [str(text) for text in gathered.frame["transcript"]]


@fuzz
@given(ROWS)
@example(["\u2028", "a\u0085b"])
def test_texts_come_back_from_json_lines_as_they_were_written(texts: list[str]) -> None:
    rows = as_frame(texts).to_dict("records")
    for is_ascii in (True, False):
        data = "".join(json.dumps(row, ensure_ascii=is_ascii) + "\n" for row in rows).encode()
        assert read_back("a.jsonl", data) == texts
    assert read_back("a.json", json.dumps(rows, ensure_ascii=False, indent=1).encode()) == texts


@fuzz
@given(ROWS)
def test_texts_come_back_from_parquet_as_they_were_written(texts: list[str]) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(as_frame(texts)), stream)
    assert read_back("a.parquet", stream.getvalue()) == texts


@fuzz
@given(ROWS, st.sampled_from(",;"), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_texts_come_back_from_a_csv_as_they_were_written(
    texts: list[str], separator: str, end: str, all_quoted: bool, mark: bool
) -> None:
    stream = io.StringIO()
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting)
    frame = as_frame(texts)
    writer.writerows([frame.columns, *frame.itertuples(index=False)])
    data = stream.getvalue().encode("utf-8-sig" if mark else "utf-8")
    assert read_back("a.csv", data) == texts


@fuzz
@given(ROWS)
@example(['"부엌 불 꺼 줘', '소리 줄여 줘"'])
@example(['"', '"'])
def test_every_line_of_a_tsv_is_a_row_with_its_quotes_as_written(texts: list[str]) -> None:
    texts = [text.replace("\t", " ") for text in texts]
    lines = ["path\ttranscript\tspeaker"]
    lines += [f"a{number}.wav\t{text}\ts{number % 3}" for number, text in enumerate(texts)]
    found = read_back("a.tsv", ("\n".join(lines) + "\n").encode())
    # text that looks to the letter as a program quotes cannot be told from it
    quoted = [text[1:-1].replace('""', '"') for text in texts]
    assert len(found) == len(texts)
    assert all(one in (text, plain) for one, text, plain in zip(found, texts, quoted, strict=True))


@fuzz
@given(ROWS)
def test_texts_come_back_from_a_tsv_that_pandas_wrote(texts: list[str]) -> None:
    texts = [text.replace("\r", " ") for text in texts]  # pandas leaves these bare
    found = read_back("a.tsv", as_frame(texts).to_csv(sep="\t", index=False).encode())
    assert found == texts


@fuzz
@given(ROWS, st.integers(0, 40), st.sampled_from([b'"', b"\xff", b"\0", b"\n", b"\r", b",", b""]))
def test_a_damaged_table_loses_no_line_in_silence(texts: list[str], at: int, put: bytes) -> None:
    data = as_frame(texts).to_csv(index=False).encode()
    data = data[:at] + put + data[at + 1 :]
    try:
        read_back("a.csv", data)
    except MalgilError as error:
        assert error.next_step


PIECES = rb"""path transcript , {TAB} " {LF} {CR} {NUL} a.wav { } [ ] : "path" NaN 1e999 \ud800 PAR1""".split(
    b" "
)
PIECES = [
    {b"{TAB}": b"\t", b"{LF}": b"\n", b"{CR}": b"\r", b"{NUL}": b"\0"}.get(piece, piece) for piece in PIECES
]
PIECES += [b"\xed\xa0\x80", b"\xff\xfe", b"\xef\xbb\xbf"]
TABLE_BYTES = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join))


@fuzz
@given(TABLE_BYTES, st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"]))
@example(b"[" * 100_000, "a.json")
@example(b'{"a":' * 100_000, "a.jsonl")
@example(b'path,transcript\na.wav,"\\ud800"\n', "a.csv")
@example(b'{"path": "a.wav", "text": "\\ud800"}\n', "a.jsonl")
@example(
    b'{"path": "a.wav", "text": 1}\n{"path": 3, "text": [1, {"a": 2}], "n": ' + b"9" * 5000 + b"}\n",
    "a.jsonl",
)
def test_any_bytes_are_a_table_or_a_refusal_that_says_what_to_do(data: bytes, name: str) -> None:
    try:
        read_back(name, data)
    except MalgilError as error:
        assert error.what and error.next_step


@fuzz
@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n\r")), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_lines_end_at_line_breaks_alone(lines: list[str], end: str) -> None:
    text = "".join(line + end for line in lines)
    assert split_lines(text) == lines


VALUES = st.one_of(
    TEXTS,
    st.sampled_from(
        ["a0.wav", "a1.wav", "../x", "/etc/passwd", "A0.WAV", "", "train", "dev", "test", "test_voices"]
    ),
    st.sampled_from(
        ["1", "0", "-1", "1.5", "abc", "inf", "nan", "1e400", "9" * 30, '{"name": "a", "arguments": {}}']
    ),
    st.sampled_from([None, 3, 2.5, True, [1], {"path": "a0.wav"}, 10**30, float("nan")]),
)
NAMES = st.sampled_from(
    [
        "path",
        "transcript",
        "speaker",
        "split",
        "utterance_id",
        "duration_s",
        "sample_rate_hz",
        "joined",
        "snr_db",
        "tool_call",
        "sentence_ids",
        "sha256",
        "origin_file",
        "origin_line",
        "origin_rate_hz",
        "text",
        "other",
        "",
        "Path",
    ]
)


@fuzz
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=8), min_size=1, max_size=12), st.booleans())
def test_any_rows_are_a_corpus_or_a_refusal_that_says_what_to_do(
    corpus_params: Corpus, rows: list[dict], is_whole: bool
) -> None:
    """With a row in every split so that something is left, or without."""
    for number, split in enumerate(
        ("train", "validation", "test_sentences", "test_voices") if is_whole else ()
    ):
        rows.append(
            {
                "path": f"a{number}.wav",
                "transcript": f"문장 {number}",
                "speaker": f"s{number}",
                "split": split,
            }
        )
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name, "out")
        (folder / "a0.wav").write_bytes(b"RIFF")
        out.mkdir()
        (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        params = corpus_params.model_copy(update={"source": "manifest", "manifest": str(folder / "t.jsonl")})
        try:
            take_commands(params, "ko-1")[0].to_parquet(out / "commands.parquet")
            ingest(params, out, "ko-1")
        except MalgilError as error:
            assert error.what and error.next_step
            return
        steps = json.loads((out / "reconciliation.json").read_text())["steps"]
        assert steps[0]["in"] == len(rows)
        assert len(pd.read_parquet(out / "manifest.parquet")) == steps[-1]["out"]
        aside = sum(sum(step["set_aside"].values()) for step in steps)
        assert (
            steps[-1]["out"] + aside == len(rows) and len(pd.read_parquet(out / "set_aside.parquet")) == aside
        )


@fuzz
@given(
    st.lists(
        st.one_of(
            TEXTS,
            st.text(),
            st.sampled_from(["../a", "/", "C:\\a", "file://", "file:///%00", "%", "a" * 300, "\ud800", "."]),
        ),
        max_size=4,
    )
)
def test_any_path_is_found_or_not(paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.wav").write_bytes(b"x")
        assert len(Finder(Path(folder)).find_all(paths)) == len(paths)
