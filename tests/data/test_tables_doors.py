"""Doors of the corpus: what goes in equals what comes out plus what is named, and where a row was written."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tasks.data.manifest import read_manifest
from tasks.data.own.paths import Finder, told
from tasks.data.own.reconciliation import BAD, Count
from tasks.data.validate import validate
from tasks.errors import DataError
from tasks.params import load
from tasks.settings import Corpus, Validate
from tests import corpora

Make = Callable[..., Path]
COUNT = 60


def sound(number: int) -> bytes:
    stream = io.BytesIO()
    wave = 0.1 * np.random.default_rng(number).standard_normal(16_000)
    soundfile.write(stream, wave, 16_000, format="WAV", subtype="PCM_16")
    return stream.getvalue()


SOUNDS = [sound(number) for number in range(COUNT)]
TEXTS = [
    f"문장 {'가나다라마바사아자차'[n // 10]}{'거너더러머버서어저처'[n % 10]} 켜 줘" for n in range(COUNT)
]


def rows(path: str = "{}.wav") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [path.format(n) for n in range(COUNT)],
            "transcript": TEXTS,
            "speaker": [f"s{n % 6}" for n in range(COUNT)],
        }
    )


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for n, data in enumerate(SOUNDS):
        (folder / f"{n}.wav").write_bytes(data)
    return folder


@pytest.fixture
def make(corpus_params: Corpus, tmp_path: Path) -> Make:
    def corpus(source: str, where: Path | str, **settings: str) -> Path:
        params = corpus_params.model_copy(update={"source": source, source: str(where), **settings})
        return corpora.make(params, out_dir=tmp_path / "corpus")

    return corpus


@pytest.fixture(scope="session")
def limits() -> Validate:
    return load(Path("params.yaml")).validate_.model_copy(
        update={"max_bad_share": 0.5, "min_rows_per_split": 1}
    )


def steps(corpus: Path) -> list[dict]:
    """The steps of a corpus, each checked, the last one's rows those of the manifest."""
    found = json.loads((corpus / "reconciliation.json").read_text())["steps"]
    for step in found:
        assert step["in"] == step["out"] + sum(step["set_aside"].values()), step
    assert found[-1]["out"] == len(pd.read_parquet(corpus / "manifest.parquet"))
    return found


def aside(corpus: Path, *reasons: str) -> list[tuple[str, int]]:
    table = pd.read_parquet(corpus / "set_aside.parquet")
    table = table[table["reason"].isin(reasons or BAD)]
    return list(zip(table["file"], table["line"], strict=True))


def test_a_count_that_does_not_agree_is_refused_with_its_numbers() -> None:
    Count("read", "line", 5, 3, {"header": 1, "blank_line": 1}).check()
    with pytest.raises(DataError, match="step read: 5 lines went in, 3 came out and 1 were set aside"):
        Count("read", "line", 5, 3, {"header": 1}).check()


def test_every_line_of_a_manifest_is_a_row_or_named_up_to_the_report(
    mine: Path, make: Make, tmp_path: Path, limits: Validate
) -> None:
    """Broken lines in the middle: the numbers of lines stay right, and the message, page and table name them."""
    lines = rows().to_csv(index=False).split("\n")
    lines[10] = '9.wav,"문장 나거 켜 줘,s3'
    lines[20] = "19.wav,문장"
    lines[30] = ""
    lines[40] = "gone.wav,없는 파일,s3"
    (mine / "mine.csv").write_text("\n".join(lines))
    corpus = make("manifest", mine / "mine.csv")
    read = steps(corpus)[0]
    assert (read["in"], read["out"]) == (61, 57)
    assert read["set_aside"] == {"header": 1, "unclosed_quote": 1, "unreadable_line": 1, "blank_line": 1}
    assert aside(corpus) == [("mine.csv", 11), ("mine.csv", 21)]
    manifest = read_manifest(corpus / "manifest.parquet")
    assert (manifest["origin_path"] == [lines[n - 1].split(",")[0] for n in manifest["origin_line"]]).all()

    result = validate(limits, corpus=corpus, out=tmp_path / "out")
    assert result["rows"] == result["good"] + result["quarantined"] and result["quarantined"] == 3
    assert result["reasons"] == {"unclosed_quote": 1, "unreadable_line": 1, "missing_file": 1}
    audio = result["audio"]
    assert (
        audio["in_s"] == pytest.approx(audio["out_s"] + audio["set_aside_s"])
        and audio["out_s"] == result["good"]
    )
    last = result["reconciliation"][-1]
    assert last["step"] == "validate" and last["set_aside"] == {"missing_file": 1}
    assert [step["step"] for step in result["reconciliation"]] == ["read", "corpus", "validate"]
    quarantine = pd.read_parquet(tmp_path / "out/quarantine.parquet")
    assert sorted(quarantine["origin_line"]) == [11, 21, 41]
    assert set(quarantine["origin_file"]) == {"mine.csv"}
    page = (tmp_path / "out/report.html").read_text()
    for says in (
        "line 11 of mine.csv",
        "line 21 of mine.csv",
        "line 41 of mine.csv",
        "gone.wav",
        "unclosed_quote",
    ):
        assert says in page
    with pytest.raises(DataError) as caught:
        validate(limits.model_copy(update={"max_bad_share": 0.0}), corpus=corpus, out=tmp_path / "out")
    for says in (
        "3 of 59 rows",
        "line 11 of mine.csv",
        "line 41 of mine.csv",
        "'gone.wav': there is no such file",
    ):
        assert says in str(caught.value)


def test_lines_that_cannot_be_read_count_into_the_share_of_bad_rows(
    mine: Path, make: Make, tmp_path: Path, limits: Validate
) -> None:
    lines = rows().to_json(orient="records", lines=True).strip().split("\n")
    lines[5:15] = ["{"] * 10
    (mine / "mine.jsonl").write_text("\n\n".join(lines))
    corpus = make("manifest", mine / "mine.jsonl")
    assert len(aside(corpus)) == 10
    with pytest.raises(DataError, match=r"10 of \d+ rows .* are bad: 10 unreadable_line"):
        validate(limits.model_copy(update={"max_bad_share": 0.1}), corpus=corpus, out=tmp_path / "out")
    mended = rows().to_json(orient="records", lines=True)
    (mine / "mine.jsonl").write_text(mended)  # the advice: mend them and start the same command again
    assert validate(limits, corpus=make("manifest", mine / "mine.jsonl"), out=tmp_path / "out")["ok"]


FORMS: dict[str, tuple[str, str]] = {
    "backslashes": ("rec\\{}.wav", "with / for \\"),
    "another case": ("REC/{}.WAV", "in another case or Unicode form"),
    "a leading ./": ("./rec/{}.wav", ""),
    "spaces and quotes": (" 'rec/{}.wav' ", "without spaces or quotes around the path"),
    "percent": ("%72ec/{}%2Ewav", "percent-decoded"),
    "file:// of another machine": (
        "file:///home/kim/mine/rec/{}.wav",
        "by the end of the path of another machine",
    ),
    "another machine": ("/data/kim/rec/{}.wav", "by the end of the path of another machine"),
    "another Windows machine": ("D:\\speech\\rec\\{}.wav", "by the end of the path of another machine"),
    "a leading slash": ("/rec/{}.wav", "by the end of the path of another machine"),
    "from the folder above": ("mine/rec/{}.wav", "without the name of the table's own folder"),
    "the folder's own name": ("mine/rec/{}.wav", "without the name of the table's own folder"),
    "no suffix": ("rec/{}", "in a folder of audio, or without its suffix"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_path_in_another_form_is_found_and_said(mine: Path, make: Make, form: str) -> None:
    written, how = FORMS[form]
    (mine / "rec").mkdir()
    for n in range(COUNT):
        (mine / f"{n}.wav").rename(mine / f"rec/{n}.wav")
    rows(written).to_json(mine / "mine.jsonl", orient="records", lines=True)
    corpus = make("manifest", mine / "mine.jsonl")
    manifest = read_manifest(corpus / "manifest.parquet")
    assert manifest["origin_path"].tolist()[0] == written.format(0)
    for path, text in zip(manifest["path"], manifest["transcript"], strict=True):
        assert (corpus / path).read_bytes() == SOUNDS[TEXTS.index(text)]
    card = " ".join((corpus / "card.md").read_text().split())
    assert not how or (f"{COUNT} recordings were found " in card and how in card)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_another_unicode_form_are_found_in_tables_and_listings(
    mine: Path, make: Make, form: str
) -> None:
    """As a zip file from macOS has them: decomposed on the disk, composed in the table, or the other way round."""
    other = "NFD" if form == "NFC" else "NFC"
    for n in range(COUNT):
        (mine / f"{n}.wav").rename(mine / unicodedata.normalize(other, f"s{n % 6}-녹음{n}.wav"))
    rows(unicodedata.normalize(form, "녹음{}.wav")).assign(
        path=[unicodedata.normalize(form, f"s{n % 6}-녹음{n}.wav") for n in range(COUNT)]
    ).to_csv(mine / "mine.csv", index=False)
    assert (
        not read_manifest(make("manifest", mine / "mine.csv") / "manifest.parquet")["duration_s"].eq(0).any()
    )
    ids = [unicodedata.normalize(form, f"s{n % 6}-녹음{n}") for n in range(COUNT)]
    (mine / "mine.csv").unlink()
    (mine / "a.trans.txt").write_text(
        "".join(f"{own} {text}\n" for own, text in zip(ids, TEXTS, strict=True))
    )
    manifest = read_manifest(make("folder", mine) / "manifest.parquet")
    assert len(manifest) == COUNT and not manifest["duration_s"].eq(0).any()


def test_a_path_that_could_be_two_files_or_none_is_not_guessed(tmp_path: Path) -> None:
    for name in ("clips/u21.wav", "clips/U22.wav", "Clips2/a.wav", "CLIPS2/a.wav", "x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    finder = Finder(tmp_path)
    two, near, tail, other, up = finder.find_all(
        [
            "clips2/a.wav",
            "clips/u21.flac",
            "/here/s1/x.wav",
            "/here/s2/x.wav",
            "../" + tmp_path.name + "x/x.wav",
        ]
    )
    assert two.path is None and "it could be" in two.how and "CLIPS2/a.wav" in two.how
    assert near.path is None and near.how.endswith("there is clips/u21.wav") and "looked for as" in near.how
    assert tail.path is other.path is None and "another row means it too" in tail.how
    assert up.path is None
    assert not told([two, near])
    (tmp_path / "y.wav").write_bytes(b"y")
    folders = [one.path for one in Finder(tmp_path).find_all(["/here/s1/x.wav", "/here/s2/y.wav"])]
    assert folders == [None, None]  # two speakers' folders in one: who knows whose recordings these are
    assert all(one.path for one in Finder(tmp_path).find_all(["/here/x.wav", "/here/y.wav"]))


@pytest.mark.parametrize(
    ("written", "near"),
    [("u00013.wav", "u000013.wav"), ("u000014.wav", ""), ("sepeech.wav", "speech.wav")],
)
def test_of_numbered_files_another_number_is_not_near(tmp_path: Path, written: str, near: str) -> None:
    for name in ("u000012.wav", "u000013.wav", "u000015.wav", "speech.wav"):
        (tmp_path / name).write_bytes(b"x")
    (found,) = Finder(tmp_path).find_all([written])
    assert found.path is None and found.how.partition("there is ")[2] == near


def test_a_missing_file_is_named_as_written_with_what_is_near(
    mine: Path, make: Make, tmp_path: Path, limits: Validate
) -> None:
    frame = rows()
    frame.loc[20, "path"] = "clip\\20.wave"
    frame.to_csv(mine / "mine.csv", index=False)
    corpus = make("manifest", mine / "mine.csv")
    validate(limits, corpus=corpus, out=tmp_path / "out")
    bad = pd.read_parquet(tmp_path / "out/quarantine.parquet").iloc[0]
    assert (bad["origin_file"], bad["origin_line"], bad["origin_path"]) == ("mine.csv", 22, "clip\\20.wave")
    assert repr("clip\\20.wave") in bad["details"] and "there is 20.wav" in bad["details"]


LEFT = (
    "._0.wav",
    "._0.txt",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "~$list.csv",
    "__MACOSX/0.wav",
    ".git/metadata.csv",
)
LEFT += ("._metadata.csv", "._a.trans.txt")


@pytest.mark.parametrize("layout", ["sidecar", "listing", "metadata", "manifest"])
def test_files_of_operating_systems_are_passed_over_by_every_door_and_counted(
    mine: Path, make: Make, layout: str
) -> None:
    junk = (Path(__file__).parent / "cases/c09_._a1.txt").read_bytes()
    for name in LEFT:
        (mine / name).parent.mkdir(exist_ok=True)
        (mine / name).write_bytes(junk)
    if layout == "sidecar":
        for n, text in enumerate(TEXTS):
            (mine / f"{n}.txt").write_text(text)
    elif layout == "listing":
        (mine / "a.trans.txt").write_text("".join(f"{n} {text}\n" for n, text in enumerate(TEXTS)))
    else:
        frame = rows().rename(columns={"path": "file_name"})
        extra = (
            pd.DataFrame({"file_name": ["._1.wav", "__MACOSX/1.wav", "Thumbs.db"]})
            if layout == "manifest"
            else None
        )
        pd.concat([frame, extra]).to_csv(mine / "metadata.csv", index=False)
    corpus = make("manifest", mine / "metadata.csv") if layout == "manifest" else make("folder", mine)
    assert sum(step["out"] for step in steps(corpus)[-1:]) == COUNT
    number = sum(step["set_aside"].get("operating_system_file", 0) for step in steps(corpus))
    assert number == (3 if layout == "manifest" else len(LEFT))
    assert not aside(corpus)


def test_what_lost_its_partner_in_a_folder_is_named(
    mine: Path, make: Make, tmp_path: Path, limits: Validate
) -> None:
    for n, text in enumerate(TEXTS):
        (mine / f"{n}.TXT" if n == 7 else mine / f"{n}.txt").write_text(text)
    (mine / "3.wav").unlink()
    (mine / "8.txt").rename(mine / "8.wav.txt")
    (mine / "README.txt").write_text("recorded in May")
    (mine / "notes.pdf").write_bytes(b"%PDF")
    (mine / "5.txt").write_bytes("불 켜 줘".encode("cp949"))
    corpus = make("folder", mine)
    first = steps(corpus)[0]
    assert first["unit"] == "file" and first["in"] == 59 + 60 + 2
    assert first["set_aside"] == {
        "transcript": 59,
        "unreadable_line": 1,
        "transcript_without_audio": 1,
        "other_file": 2,
    }
    assert sorted(aside(corpus)) == [("3.txt", 0), ("5.txt", 0)]
    assert sorted(aside(corpus, "other_file")) == [("README.txt", 0), ("notes.pdf", 0)]
    result = validate(limits, corpus=corpus, out=tmp_path / "out")
    assert result["reasons"]["transcript_without_audio"] == 1 and result["reasons"]["unreadable_line"] == 1


def test_transcripts_in_another_encoding_are_named_and_the_advice_works(mine: Path, make: Make) -> None:
    folder = mine.rename(mine.with_name("내 녹음"))
    for n, text in enumerate(TEXTS):
        (folder / f"{n}.txt").write_bytes(text.encode("utf-8" if n == 8 else "cp949"))
    with pytest.raises(DataError, match="CP949") as caught:
        make("folder", folder)
    command = re.search(r"`(find .*)`$", caught.value.next_step)
    assert command, caught.value.next_step
    subprocess.run(command[1], shell=True, check=True, executable="/bin/sh")
    assert sorted(read_manifest(make("folder", folder) / "manifest.parquet")["transcript"]) == sorted(TEXTS)


def test_lines_of_a_listing_are_rows_or_named(mine: Path, make: Make) -> None:
    lines = [f"{n} {text}" for n, text in enumerate(TEXTS)]
    lines[9] = lines[9].replace("9", "9.wav", 1)
    lines[4:6] = ["4", "", "5\t" + TEXTS[5]]
    (mine / "a.trans.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8", newline="")
    corpus = make("folder", mine)
    find, read = steps(corpus)[:2]
    assert (
        read["in"] == 61
        and read["out"] == 59
        and read["set_aside"] == {"unreadable_line": 1, "blank_line": 1}
    )
    assert find["set_aside"] == {"recording": 59, "audio_without_transcript": 1}
    assert aside(corpus) == [("a.trans.txt", 5), ("4.wav", 0)]
    manifest = read_manifest(corpus / "manifest.parquet").set_index("utterance_id")
    assert manifest.loc["5", "origin_line"] == 7 and manifest.loc["5", "transcript"] == TEXTS[5]


def test_a_folder_as_kaldi_and_espnet_write_it(mine: Path, make: Make) -> None:
    for split, numbers in (("train", range(50)), ("test", range(50, COUNT))):
        (mine / split).mkdir()
        ids = [f"s{n % 6}_{n:03d}" for n in numbers]
        (mine / split / "wav.scp").write_text(
            "".join(f"{own} {n}.wav\n" for own, n in zip(ids, numbers, strict=True))
        )
        (mine / split / "text").write_text(
            "".join(f"{own} {TEXTS[n]}\n" for own, n in zip(ids, numbers, strict=True))
        )
        (mine / split / "utt2spk").write_text("".join(f"{own} {own[:2]}\n" for own in ids))
    with (mine / "train/wav.scp").open("a") as stream:
        stream.write("s9_900 sox 0.wav -t wav - |\ns9_901 1.wav\n")
    corpus = make("folder", mine)
    manifest = read_manifest(corpus / "manifest.parquet")
    assert set(manifest["speaker"]) == {f"s{n}" for n in range(6)}
    by_text = manifest.set_index("transcript")
    assert (corpus / by_text.loc[TEXTS[7], "path"]).read_bytes() == SOUNDS[7]
    assert aside(corpus) == [("train/wav.scp", 51), ("train/wav.scp", 52)]
    assert steps(corpus)[0]["set_aside"] == {"recording": COUNT}
    assert by_text.loc[TEXTS[7], ["origin_file", "origin_line"]].tolist() == ["train/text", 8]
    (mine / "train/segments").write_text("a b 0 1\n")
    with pytest.raises(DataError, match="cuts recordings into utterances"):
        make("folder", mine)


@pytest.mark.parametrize("door", ["manifest", "folder"])
def test_ljspeechs_table_without_a_header_or_quotes(mine: Path, make: Make, door: str) -> None:
    (mine / "wavs").mkdir()
    for n in range(COUNT):
        (mine / f"{n}.wav").rename(mine / f"wavs/LJ001-{n:04d}.wav")
    lines = [f"LJ001-{n:04d}|{'“' if n % 2 else chr(34)}{text}|{text}" for n, text in enumerate(TEXTS)]
    (mine / "metadata.csv").write_text("\n".join(lines) + "\n")
    corpus = make(door, mine / "metadata.csv" if door == "manifest" else mine)
    manifest = read_manifest(corpus / "manifest.parquet")
    assert sorted(manifest["transcript"]) == sorted(TEXTS) and sorted(manifest["origin_line"]) == list(
        range(1, 61)
    )
    assert not manifest["duration_s"].eq(0).any()


def test_common_voices_table_with_its_folder_of_clips(mine: Path, make: Make) -> None:
    (mine / "clips").mkdir()
    for n in range(COUNT):
        (mine / f"{n}.wav").rename(mine / f"clips/{n}.wav")
    frame = rows().rename(columns={"speaker": "client_id", "transcript": "sentence"})
    frame.loc[3, "sentence"] = '"그는 갔다'
    frame.to_csv(mine / "validated.tsv", sep="\t", index=False, quoting=3, escapechar="\\")
    manifest = read_manifest(make("manifest", mine / "validated.tsv") / "manifest.parquet")
    assert len(manifest) == COUNT and not manifest["duration_s"].eq(0).any()


def test_a_data_set_counts_its_rows_and_keeps_their_numbers(
    make: Make, tmp_path: Path, limits: Validate
) -> None:
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "data/._train-00000-of-00001.parquet").write_bytes(b"junk")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    sounds = [{"bytes": None if n == 9 else SOUNDS[n], "path": f"rec/{n}.wav"} for n in range(COUNT)]
    columns = {"audio": pa.array(sounds, kind), "text": TEXTS, "speaker_id": [n % 6 for n in range(COUNT)]}
    pq.write_table(pa.table(columns), folder / "data/train-00000-of-00001.parquet")
    corpus = make("hub", folder)
    assert [(step["in"], step["unit"]) for step in steps(corpus)] == [
        (3, "file"),
        (COUNT, "row"),
        (COUNT, "row"),
    ]
    manifest = read_manifest(corpus / "manifest.parquet")
    assert manifest["origin_path"].tolist() == [f"rec/{line - 1}.wav" for line in manifest["origin_line"]]
    validate(limits, corpus=corpus, out=tmp_path / "out")
    bad = pd.read_parquet(tmp_path / "out/quarantine.parquet").iloc[0]
    assert (bad["origin_file"], bad["origin_line"]) == ("train", 10) and "'rec/9.wav'" in bad["details"]


def test_rows_that_a_cut_leaves_out_are_named(mine: Path, make: Make) -> None:
    frame = rows()
    frame["speaker"] = [f"s{n % 5}" for n in range(COUNT)]
    frame["transcript"] = [f"명령 {'가나다라마바사아자차카타'[n // 5]}" for n in range(COUNT)]
    frame.to_csv(mine / "mine.csv", index=False)
    corpus = make("manifest", mine / "mine.csv")
    count = steps(corpus)[-1]
    assert count["step"] == "corpus" and count["set_aside"]["left_out_by_split"] > 0
    table = pd.read_parquet(corpus / "set_aside.parquet")
    left = table[table["reason"] == "left_out_by_split"]
    kept = read_manifest(corpus / "manifest.parquet")["origin_line"]
    assert sorted([*left["line"], *kept]) == list(range(2, COUNT + 2))


def test_the_stage_says_what_it_set_aside(mine: Path, tmp_path: Path) -> None:
    """Through the public command, with the settings of the repository."""
    (mine / "mine.csv").write_text(rows("rec\\{}.wav").to_csv(index=False) + "\nx,y\n")
    (mine / "REC").mkdir()
    for n in range(COUNT):
        (mine / f"{n}.wav").rename(mine / f"REC/{n}.wav")
    params = tmp_path / "params.yaml"
    text = Path("params.yaml").read_text()
    text = text.replace("source: builtin", "source: manifest", 1)
    params.write_text(re.sub(r"(?m)^  manifest: .*$", f"  manifest: {mine / 'mine.csv'}", text, count=1))
    said = ""
    for stage in ("commands", "corpus"):
        command = [sys.executable, "-m", f"tasks.data.{stage}", "--params", str(params)]
        command += ["--out-dir", str(tmp_path / stage)]
        command += ["--commands", str(tmp_path / "commands")] if stage == "corpus" else []
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
        said = done.stderr
    assert (
        "mine.csv: 60 recordings were found in another case or Unicode form" in said
        or "with / for \\" in said
    )
    assert "line 63 of mine.csv: unreadable_line (it has 2 fields, not 3 as the header)" in said
    assert "mine.csv: read: 63 lines in, 60 out" in said
    shutil.rmtree(tmp_path / "corpus")
