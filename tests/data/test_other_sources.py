"""Tables, folders and Hub data sets of recordings, made small in the layouts that users have."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tasks.data.manifest import read_manifest
from tasks.errors import ArtifactError, DataError
from tasks.settings import Corpus
from tests import corpora
from tests.children import run
from tests.hub_server import Hub, Repo, start

NEEDED = {"train", "validation", "test_sentences", "test_voices"}
Make = Callable[..., Path]


@pytest.fixture
def make(corpus_params: Corpus, tmp_path: Path) -> Make:
    def corpus(source: str, where: Path | str, normaliser: str = "ko-1", **settings: str) -> Path:
        params = corpus_params.model_copy(update={"source": source, source: str(where), **settings})
        return corpora.make(params, out_dir=tmp_path / "corpus", normaliser=normaliser)

    return corpus


def sound(number: int, rate_hz: int = 44_100) -> bytes:
    stream = io.BytesIO()
    wave = 0.1 * np.random.default_rng(number).standard_normal(rate_hz // 4)
    soundfile.write(stream, wave, rate_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def rows_of(count: int, speakers: int = 6) -> pd.DataFrame:
    """Every sentence is its own."""
    return pd.DataFrame(
        {
            "file_name": [f"{n}.wav" for n in range(count)],
            "sentence": [
                f"문장 {'가나다라마바사아자차'[n // 10]}{'거너더러머버서어저처'[n % 10]}"
                for n in range(count)
            ],
            "client_id": [f"s{n % speakers}" for n in range(count)],
        }
    )


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for n in range(60):
        (folder / f"{n}.wav").write_bytes(sound(n))
    return folder


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "a.csv": lambda frame, path: frame.to_csv(path, index=False),
    "bom.csv": lambda frame, path: frame.to_csv(path, index=False, encoding="utf-8-sig", sep=";"),
    "a.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "a.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
    "a.parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_of_any_kind_is_the_same_corpus(recordings: Path, make: Make, name: str) -> None:
    WRITERS[name](rows_of(60), recordings / name)
    folder = make("manifest", recordings / name)
    manifest = read_manifest(folder / "manifest.parquet")
    assert set(manifest["split"]) == NEEDED
    assert set(manifest["sample_rate_hz"]) == {16_000}
    assert set(manifest["origin_rate_hz"]) == {44_100}
    assert set(manifest["transcript"]) <= set(rows_of(60)["sentence"])
    unseen = manifest["split"] == "test_voices"
    assert not set(manifest[unseen]["speaker"]) & set(manifest[~unseen]["speaker"])
    known = manifest["split"] == "test_sentences"
    assert set(manifest[known]["speaker"]) <= set(manifest[manifest["split"] == "train"]["speaker"])
    card = (folder / "card.md").read_text()
    assert "test_voices was cut from train by speaker" in card
    assert "60 files were converted" in card


BROKEN = [
    ("a.csv", "파일,text\n".encode("cp949"), r"not UTF-8 \(line 1\).*CP949"),
    ("a.csv", "path,text\n".encode("utf-16"), "is UTF-16"),
    ("a.csv", b"path,text\na.wav,x\nb.wav,x,y\n", "line 3 of .*3 fields.*2 as the header"),
    ("a.csv", b"recording,words\na.wav,x\n", "no column path, transcript"),
    ("a.csv", b"path,text\n", "has no rows"),
    ("a.jsonl", b'{"path": "a.wav", "text": "x"}\n\n{"path": \n', "line 3 of .*one JSON object a line"),
    ("a.jsonl", b"[1]\n", "line 1 of "),
    ("a.xlsx", b"PK", r"ends in \.xlsx.*\.parquet, \.csv"),
]


@pytest.mark.parametrize(("name", "data", "says"), BROKEN)
def test_a_broken_table_is_refused_with_its_line(
    tmp_path: Path, make: Make, name: str, data: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=says):
        make("manifest", tmp_path / name)
    assert not (tmp_path / "corpus").exists()


def test_the_cut_is_the_same_again_and_in_any_order(recordings: Path, make: Make) -> None:
    frames = []
    for frame in (rows_of(60), rows_of(60).sample(frac=1.0, random_state=3)):
        frame.to_csv(recordings / "a.csv", index=False)
        made = read_manifest(make("manifest", recordings / "a.csv") / "manifest.parquet")
        frames.append(made.set_index("transcript")["split"].sort_index())
    pd.testing.assert_series_equal(*frames)


def test_sentences_that_everybody_says_are_on_one_side_of_a_cut(recordings: Path, make: Make) -> None:
    frame = rows_of(60, speakers=5)
    frame["sentence"] = [f"명령 {'가나다라마바사아자차카타'[n // 5]}{'!' * (n % 2)}" for n in range(60)]
    frame.to_csv(recordings / "a.csv", index=False)
    folder = make("manifest", recordings / "a.csv")
    manifest = read_manifest(folder / "manifest.parquet")
    side = manifest["split"].replace("test_voices", "test_sentences")  # both may hold the same sentence
    assert side.groupby(manifest["sentence_ids"]).nunique().max() == 1
    assert "rows were left out" in (folder / "card.md").read_text()


def test_without_speakers_the_card_says_that_unseen_voices_are_not_unseen(
    recordings: Path, make: Make
) -> None:
    rows_of(60).drop(columns="client_id").to_csv(recordings / "a.csv", index=False)
    folder = make("manifest", recordings / "a.csv")
    manifest = read_manifest(folder / "manifest.parquet")
    assert set(manifest["split"]) == NEEDED
    assert manifest["sentence_ids"].is_unique
    assert "says nothing about unseen voices" in " ".join((folder / "card.md").read_text().split())


def test_the_chain_decides_which_sentences_are_the_same(recordings: Path, make: Make) -> None:
    frame = rows_of(60)
    frame.loc[[0, 1], "sentence"] = ["TV를 3시에 켜 줘", "티비를 세 시에 켜줘"]
    frame["split"] = "train"
    frame.loc[[2, 3, 4], "split"] = ["dev", "test_sentences", "test_voices"]
    frame.to_csv(recordings / "a.csv", index=False)
    for chain, same in (("ko-1", False), ("ko-2", True)):
        ids = read_manifest(make("manifest", recordings / "a.csv", chain) / "manifest.parquet")[
            "sentence_ids"
        ]
        assert (ids[0] == ids[1]) is same


def test_a_folder_with_a_transcript_beside_each_recording(recordings: Path, make: Make) -> None:
    for n, text in enumerate(rows_of(60)["sentence"]):
        place = recordings / f"speaker{n % 6}"
        place.mkdir(exist_ok=True)
        (recordings / f"{n}.wav").rename(place / f"{n}.wav")
        (place / f"{n}.txt").write_text(text + "\n", encoding="utf-8-sig")
    (place / f"{n}.txt").unlink()
    manifest = read_manifest(make("folder", recordings) / "manifest.parquet")
    assert set(manifest["speaker"]) == {f"speaker{n}" for n in range(6)}
    assert (manifest["transcript"] == "").sum() == 1  # kept for the validation stage
    assert set(manifest["split"]) == NEEDED


def test_a_folder_as_librispeech_with_its_splits(recordings: Path, make: Make) -> None:
    for split, speakers in (("train-clean", range(5)), ("test", (5,))):
        for speaker in speakers:
            place = recordings / split / f"{speaker}" / "001"
            place.mkdir(parents=True)
            lines = []
            for n in range(speaker, 60, 6):
                (recordings / f"{n}.wav").rename(place / f"{speaker}_001_{n:04d}.wav")
                lines.append(f"{speaker}_001_{n:04d} {rows_of(60)['sentence'][n]}")
            (place / f"{speaker}_001.trans.txt").write_text("\n".join(lines) + "\n")
    manifest = read_manifest(make("folder", recordings) / "manifest.parquet")
    assert set(manifest[manifest["split"] == "test_voices"]["speaker"]) == {"5"}
    assert set(manifest["split"]) == NEEDED
    assert not set(manifest[manifest["split"] == "validation"]["speaker"]) & set(
        manifest[manifest["split"] == "train"]["speaker"]
    )


def test_a_folder_with_metadata_and_one_that_has_nothing(
    recordings: Path, make: Make, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="60 recordings and no transcript"):
        make("folder", recordings)
    rows_of(60).to_json(recordings / "metadata.jsonl", orient="records", lines=True)
    assert set(read_manifest(make("folder", recordings) / "manifest.parquet")["split"]) == NEEDED
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no recordings"):
        make("folder", tmp_path / "empty")
    with pytest.raises(ArtifactError, match="nowhere"):
        make("folder", tmp_path / "nowhere")


OWN = {"file_name": "clip", "sentence": "words", "client_id": "who"}


def test_columns_of_other_names_are_taken_when_the_settings_name_them(recordings: Path, make: Make) -> None:
    frame = rows_of(60).rename(columns=OWN)
    frame["text"] = "not what was said"  # a usual name for something else
    frame["speaker"] = "nobody"
    frame["part"] = ["dev" if n % 6 == 5 else "train" for n in range(60)]
    frame.to_csv(recordings / "a.csv", index=False)
    named = {
        f"{name}_column": own
        for name, own in zip(("audio", "transcript", "speaker"), OWN.values(), strict=True)
    }
    made = make("manifest", recordings / "a.csv", **named, split_column="part")
    manifest = read_manifest(made / "manifest.parquet")
    assert set(manifest["transcript"]) <= set(frame["words"])
    assert set(manifest["speaker"]) == {f"s{n}" for n in range(6)}
    assert set(manifest[manifest["split"] == "validation"]["speaker"]) == {"s5"}


def test_wrong_names_of_columns_are_all_told_at_once(recordings: Path, make: Make) -> None:
    rows_of(60).to_csv(recordings / "a.csv", index=False)
    with pytest.raises(DataError) as caught:
        make(
            "manifest",
            recordings / "a.csv",
            audio_column="wave",
            transcript_column="words",
            speaker_column="client_id",
            split_column="client_id",
        )
    said = str(caught.value)
    assert "corpus.audio_column names 'wave'" in said and "corpus.transcript_column names 'words'" in said
    assert "corpus.speaker_column and corpus.split_column name the same column 'client_id'" in said
    assert "file_name, sentence, client_id" in said
    with pytest.raises(DataError, match="only a table has columns"):
        make("folder", recordings, audio_column="wave")


def test_columns_of_a_data_set_can_be_named(make: Make, tmp_path: Path) -> None:
    folder = zeroth(tmp_path / "zeroth", names={"audio": "clip", "text": "words", "speaker_id": "who"})
    with pytest.raises(DataError, match=r"corpus\.transcript_column names 'said', which is not there"):
        make("hub", folder, audio_column="clip", transcript_column="said")
    made = make("hub", folder, audio_column="clip", transcript_column="words", speaker_column="who")
    manifest = read_manifest(made / "manifest.parquet")
    assert set(manifest["speaker"]) == set("012345")
    assert set(manifest["transcript"]) == set(rows_of(60)["sentence"])
    assert (made / manifest["path"][0]).stat().st_size > 1000


def test_words_that_no_rule_can_read_are_read_by_a_table(recordings: Path, make: Make) -> None:
    frame = rows_of(60)
    frame.loc[[0, 1, 2], "sentence"] = ["Netflix를 켜 줘", "netflix 꺼 줘", "iNetflix 켜 줘"]
    frame.to_csv(recordings / "a.csv", index=False)
    table = recordings / "words.csv"
    table.write_text("written,spoken\nNetflix,넷플릭스\nYouTube,유튜브\n")
    made = make("manifest", recordings / "a.csv", readings=str(table))
    manifest = read_manifest(made / "manifest.parquet").set_index("transcript_written")["transcript"]
    assert manifest["Netflix를 켜 줘"] == "넷플릭스를 켜 줘"
    assert manifest["netflix 꺼 줘"] == "넷플릭스 꺼 줘"
    assert manifest["iNetflix 켜 줘"] == "iNetflix 켜 줘"
    card = " ".join((made / "card.md").read_text().split())
    assert "2 words of 2 transcripts were read out by words.csv; 1 of its 2 words occur in none" in card
    table.write_text("written,spoken\nNetflix,netflix\n,넷\nTV,티비\nTV,텔레비전\n")
    with pytest.raises(DataError) as caught:
        make("manifest", recordings / "a.csv", readings=str(table))
    for row in ("row 1: 'Netflix' is said 'netflix'", "row 2 has no word", "row 4: 'TV'"):
        assert row in str(caught.value)


def zeroth(folder: Path, *, audio: bool = True, names: dict[str, str] | None = None, said: str = "") -> Path:
    """A data set as kresnik/zeroth_korean: shards of train and test, audio embedded; `said` begins all texts."""
    (folder / "data").mkdir(parents=True)
    frame = rows_of(60)
    for split, rows in (
        ("train", frame[frame["client_id"] != "s5"]),
        ("test", frame[frame["client_id"] == "s5"]),
    ):
        half = len(rows) // 2
        for shard, part in enumerate((rows[:half], rows[half:])):
            columns = {
                "id": pa.array([f"{n}" for n in part.index]),
                "speaker_id": pa.array([int(name[1:]) for name in part["client_id"]], pa.int64()),
                "path": pa.array([f"/somewhere/{n}.wav" for n in part.index]),
                "audio": pa.array(
                    [{"bytes": sound(n, 16_000), "path": f"{n}.wav"} for n in part.index],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                ),
                "text": pa.array((said + part["sentence"]).tolist()),
            }
            if not audio:
                del columns["audio"]
            columns = {(names or {}).get(name, name): values for name, values in columns.items()}
            pq.write_table(pa.table(columns), folder / f"data/{split}-0000{shard}-of-00002.parquet")
    return folder


def test_a_data_set_in_zeroths_layout_from_a_folder(make: Make, tmp_path: Path) -> None:
    folder = make("hub", zeroth(tmp_path / "zeroth"))
    manifest = read_manifest(folder / "manifest.parquet")
    assert len(manifest) == 60
    assert set(manifest[manifest["split"] == "test_voices"]["speaker"]) == {"5"}
    assert set(manifest["split"]) == NEEDED
    assert not (folder / "incoming").exists()
    number = rows_of(60).index[rows_of(60)["sentence"] == manifest["transcript"][0]][0]
    assert (folder / manifest["path"][0]).read_bytes() == sound(number, 16_000)
    assert "validation was cut from train by speaker" in (folder / "card.md").read_text()


def test_a_data_set_without_audio_or_text_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column audio"):
        make("hub", zeroth(tmp_path / "silent", audio=False))


INGEST = """
import sys
from pathlib import Path
from tests import corpora
from tasks.errors import DataError
from tasks.params import load
for number, name in enumerate(sys.argv[2:]):
    params = load(Path("params.yaml"), sets=["corpus.source=hub", f"corpus.hub={name}"]).corpus
    try:
        corpora.make(params, out_dir=Path(sys.argv[1]) / str(number))
    except DataError as error:
        print(error)
"""


def ingest(hub: Hub, tmp_path: Path, *names: str) -> str:
    """Makes a corpus of each data set, in folders 0, 1, ... of `tmp_path`; returns the errors that were said.

    In a process of its own: huggingface_hub reads the address of its server once.
    """
    server, address = start(hub)
    here = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_reader", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", INGEST, str(tmp_path), *names]
    try:
        done = run(command, env=os.environ | here, text=True)
    finally:
        server.should_exit = True
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit_of(folder: Path, repo: Repo, parent: str = "") -> str:
    files = {
        path.relative_to(folder).as_posix(): (path.read_bytes(), True) for path in folder.rglob("*.parquet")
    }
    return repo.commit(files, parent)


def test_a_data_set_from_the_hub_by_its_id(tmp_path: Path) -> None:
    hub = Hub()
    hub.repos["kresnik/zeroth_korean"] = repo = Repo()
    repo.branches["main"] = head = commit_of(zeroth(tmp_path / "zeroth"), repo)
    said = ingest(hub, tmp_path, "kresnik/none", "kresnik/zeroth_korean")
    assert "'kresnik/none' is no local folder and cannot be downloaded" in said
    assert len(pd.read_parquet(tmp_path / "1/manifest.parquet")) == 60
    assert f"kresnik/zeroth_korean at {head}" in (tmp_path / "1/card.md").read_text()
    assert json.dumps(hub.log).count("resolve/") >= 4


def test_a_data_set_can_be_pinned_to_a_tag_a_branch_or_a_commit(tmp_path: Path) -> None:
    """The head of `main` has other transcripts; every corpus says which commit it was made from."""
    name = "kresnik/zeroth_korean"
    hub = Hub()
    hub.repos[name] = repo = Repo()
    repo.tags["v1"] = old = commit_of(zeroth(tmp_path / "old"), repo)
    repo.branches["main"] = new = commit_of(zeroth(tmp_path / "new", said="다른 "), repo, old)
    repo.branches["corrected"] = new
    asked = {"": new, "@v1": old, f"@{old}": old, "@corrected": new, "@v2": None, "@": None}
    errors = ingest(hub, tmp_path, *(name + revision for revision in asked)).splitlines()
    for number, commit in enumerate(asked.values()):
        folder = tmp_path / str(number)
        assert folder.exists() is (commit is not None)
        if commit is not None:
            texts = read_manifest(folder / "manifest.parquet")["transcript"]
            assert texts.str.startswith("다른 ").tolist() == [commit == new] * 60
            assert f"{name} at {commit}" in (folder / "card.md").read_text()
    assert [line.partition(" is no")[0] for line in errors] == [
        f"corpus.hub '{name}@v2'",
        f"corpus.hub '{name}@'",
    ]
    assert all("correct the name or revision" in line for line in errors)
