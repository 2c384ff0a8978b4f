"""The validation stage on small corpora whose faults are made here, one row for each reason."""

import hashlib
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tasks.data.manifest import SPLITS
from tasks.data.validate import validate
from tasks.errors import DataError, MalgilError
from tasks.params import load
from tasks.settings import Validate
from tasks.stage import run_stage

SYLLABLES = "가나다라마바사아자차카타파하거너더러머버서어저처커터퍼허고노도로모보소오조초코토포호"
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def params() -> Validate:
    return load(Path("params.yaml")).validate_


def limits(params: Validate, **changes: object) -> Validate:
    return params.model_copy(update=changes)


class CorpusMaker:
    """Writes audio files and manifest rows; every sentence, voice and recording is its own unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict] = []
        (folder / "audio").mkdir(parents=True)

    def add(
        self,
        name: str = "",
        *,
        split: str = "train",
        audio: np.ndarray | None = None,
        suffix: str = "flac",
        rate_hz: int = RATE_HZ,
        **fields: object,
    ) -> Path:
        number = len(self.rows)
        name = name or f"u{number:04d}"
        generator = np.random.default_rng(number)
        if audio is None:
            audio = 0.1 * generator.standard_normal(RATE_HZ * 2)
        path = self.folder / "audio" / f"{name}-{number}.{suffix}"
        soundfile.write(path, audio, rate_hz, subtype="PCM_16")
        text = "".join(SYLLABLES[number // 40**place % 40] for place in range(3)) + " 불 켜 줘"
        self.rows.append(
            {
                "utterance_id": name,
                "path": f"audio/{path.name}",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "duration_s": len(audio) / rate_hz,
                "sample_rate_hz": rate_hz,
                "transcript": text,
                "speaker": "unseen" if split == "test_voices" else "known",
                "split": split,
                "sentence_ids": f"s{number:05d}",
                "joined": 1,
                "snr_db": float("nan"),
                "tool_call": json.dumps({"name": "set_light", "arguments": {"power": "on"}}),
                **fields,
            }
        )
        return path

    def good(self, per_split: int = 5) -> "CorpusMaker":
        for split in SPLITS:
            for _ in range(per_split):
                self.add(split=split)
        return self

    def write(self) -> Path:
        pd.DataFrame(self.rows).to_parquet(self.folder / "manifest.parquet")
        return self.folder


def cut(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def rehash(row: dict, folder: Path) -> None:
    row["sha256"] = hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest()


def noise(seconds: float, channels: int = 1, rate_hz: int = RATE_HZ) -> np.ndarray:
    samples = 0.1 * np.random.default_rng(99).standard_normal((int(seconds * rate_hz), channels))
    return samples if channels > 1 else samples[:, 0]


# utterance id: the reasons it must have, exactly
EXPECTED = {
    "stereo_44k": {"wrong_sample_rate", "not_mono"},
    "rate_lie": {"sample_rate_differs"},
    "duration_lie": {"duration_differs"},
    "too_short": {"duration_out_of_range"},
    "too_long": {"duration_out_of_range", "speech_rate_out_of_range"},
    "cut_flac": {"truncated_file"},
    "cut_wav": {"truncated_file"},
    "zero_bytes": {"empty_file"},
    "zero_samples": {"empty_file"},
    "not_audio": {"unreadable_file"},
    "missing": {"missing_file"},
    "outside": {"path_outside"},
    "other_hash": {"wrong_sha256"},
    "latin": {"not_hangul"},
    "digits": {"not_hangul"},
    "nfd": {"not_nfc"},
    "no_text": {"empty_transcript", "speech_rate_out_of_range"},
    "null_text": {"empty_field", "empty_transcript", "speech_rate_out_of_range"},
    "fast": {"speech_rate_out_of_range"},
    "silent": {"silent"},
    "clipped": {"clipped"},
    "copy_of_audio": {"duplicate_audio"},
    "twin": {"duplicate_id"},
    "says_it_again": {"repeated_sentence"},
    "leaks_by_id": {"leaked_sentence"},
    "leaks_by_joined_id": {"leaked_sentence"},
    "leaks_by_text": {"leaked_sentence"},
    "leaks_by_joined_text": {"leaked_sentence"},
    "leaks_from_validation": {"leaked_sentence"},
    "leaks_voice": {"leaked_speaker"},
    "leaks_voice_in_validation": {"leaked_speaker"},
    "leaks_audio": {"duplicate_audio"},
    "odd_split": {"unknown_split"},
    "odd_call": {"bad_tool_call"},
}


def break_everything(maker: CorpusMaker) -> None:
    """One row for each entry of EXPECTED, after five good rows of each split."""
    rows = {row["utterance_id"]: row for row in maker.good().rows}
    tested, voiced, validated, trained = rows["u0010"], rows["u0015"], rows["u0005"], rows["u0000"]
    maker.add("stereo_44k", audio=noise(2, 2, 44_100), suffix="wav", rate_hz=44_100)
    maker.add("rate_lie", sample_rate_hz=8_000)
    maker.add("duration_lie", duration_s=2.5)
    maker.add("too_short", audio=noise(0.2), transcript="네")
    maker.add("too_long", audio=noise(31))
    for name, suffix in (("cut_flac", "flac"), ("cut_wav", "wav")):
        cut(maker.add(name, suffix=suffix))
        rehash(maker.rows[-1], maker.folder)
    maker.add("zero_bytes").write_bytes(b"")
    maker.add("zero_samples", audio=noise(0), suffix="wav", duration_s=0.0)
    maker.add("not_audio").write_bytes(b"this is no audio" * 200)
    rehash(maker.rows[-1], maker.folder)
    maker.add("missing").unlink()
    maker.add("outside", path="../secret.flac")
    maker.add("other_hash", sha256="0" * 64)
    maker.add("latin", transcript="거실 light 켜 줘")
    maker.add("digits", transcript="온도 이십구 29 도로")
    maker.add("nfd", transcript=unicodedata.normalize("NFD", "안방 커튼 열어 줘"))
    maker.add("no_text", transcript="?!")
    maker.add("null_text", transcript=None)
    maker.add("fast", transcript="가" * 31)
    maker.add("silent", audio=np.concatenate([noise(0.18), np.zeros(RATE_HZ * 2)]))
    maker.add("clipped", audio=np.sign(noise(2)))
    shutil.copy(maker.folder / trained["path"], maker.add("copy_of_audio"))
    rehash(maker.rows[-1], maker.folder)
    maker.add("twin")
    maker.add("twin")
    maker.add("says_it_again", transcript=trained["transcript"], sentence_ids=trained["sentence_ids"])
    maker.add("leaks_by_id", sentence_ids=tested["sentence_ids"])
    maker.add("leaks_by_joined_id", sentence_ids=f"s09000+{voiced['sentence_ids']}", joined=2, tool_call="")
    maker.add("leaks_by_text", transcript=tested["transcript"].replace(" ", "") + "!")
    # The joined sentence s09001 is spoken nowhere alone; commands.parquet knows that it is a test sentence's text.
    maker.add("leaks_by_joined_text", sentence_ids="s09001+s09002", joined=2, tool_call="")
    commands = pd.DataFrame({"sentence_id": ["s09001"], "text": [tested["transcript"]]})
    commands.to_parquet(maker.folder / "commands.parquet")
    maker.add("leaks_from_validation", sentence_ids=validated["sentence_ids"])
    maker.add("leaks_voice", speaker="unseen")
    maker.add("leaks_voice_in_validation", split="validation", speaker="unseen")
    shutil.copy(maker.folder / voiced["path"], maker.add("leaks_audio"))
    rehash(maker.rows[-1], maker.folder)
    maker.add("odd_split", split="dev")
    maker.add("odd_call", tool_call="set_light(on)")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, params: Validate) -> tuple[dict, Path]:
    """(result, folder of the stage's output) for a corpus with every fault."""
    folder = tmp_path_factory.mktemp("broken")
    maker = CorpusMaker(folder / "corpus")
    break_everything(maker)
    result = validate(limits(params, max_bad_share=0.9), corpus=maker.write(), out=folder / "validated")
    return result, folder / "validated"


@pytest.fixture(scope="module")
def quarantine(broken: tuple[dict, Path]) -> pd.DataFrame:
    return pd.read_parquet(broken[1] / "quarantine.parquet").set_index("utterance_id", drop=False)


@pytest.mark.parametrize(("name", "reasons"), EXPECTED.items())
def test_each_fault_has_its_reason_and_no_other(
    quarantine: pd.DataFrame, name: str, reasons: set[str]
) -> None:
    assert set(quarantine.loc[name, "reasons"].split(", ")) == reasons
    assert all(f"{reason}: " in quarantine.loc[name, "details"] for reason in reasons)


def test_no_good_row_is_quarantined(quarantine: pd.DataFrame, broken: tuple[dict, Path]) -> None:
    assert set(quarantine.index) == set(EXPECTED)
    good = pd.read_parquet(broken[1] / "manifest.parquet")
    assert list(good["utterance_id"]) == [f"u{number:04d}" for number in range(20)] + ["twin"]
    assert len(good) + len(quarantine) == broken[0]["rows"] == 20 + len(EXPECTED) + 1


def test_leakage_takes_the_learning_side(broken: tuple[dict, Path]) -> None:
    good = pd.read_parquet(broken[1] / "manifest.parquet")
    assert good["split"].value_counts().to_dict() == {
        "train": 6,
        "validation": 5,
        "test_sentences": 5,
        "test_voices": 5,
    }


def test_the_partner_of_a_leak_is_named(quarantine: pd.DataFrame) -> None:
    assert "test_sentences u0010" in quarantine.loc["leaks_by_id", "details"]
    assert "test_voices u0015" in quarantine.loc["leaks_by_joined_id", "details"]
    assert "validation u0005" in quarantine.loc["leaks_from_validation", "details"]
    assert "u0015" in quarantine.loc["leaks_audio", "details"]


def test_result_counts_what_the_quarantine_holds(broken: tuple[dict, Path], quarantine: pd.DataFrame) -> None:
    result, out = broken
    assert result == json.loads((out / "result.json").read_text())
    assert result["ok"]
    assert result["quarantined"] == len(quarantine)
    assert result["bad_share"] == pytest.approx(len(quarantine) / result["rows"])
    counted = quarantine["reasons"].str.split(", ").explode().value_counts().to_dict()
    assert result["reasons"] == counted
    answers = {answer["name"]: answer for answer in result["expectations"] if answer["column"] != "x"}
    for reason, number in counted.items():
        assert answers[reason]["failing_rows"] == number
        assert not answers[reason]["passed"]
        assert answers[reason]["expectation"].startswith("expect_column_value")
        assert {"utterance_id", "found"} == set(answers[reason]["examples"][0])


def test_clean_corpus_passes_and_keeps_every_column(tmp_path: Path, params: Validate) -> None:
    maker = CorpusMaker(tmp_path / "corpus").good()
    for row in maker.rows:
        row["note"] = "mine"
        del row["tool_call"], row["snr_db"], row["joined"], row["sentence_ids"]
    result = validate(params, corpus=maker.write(), out=tmp_path / "out")
    assert (result["ok"], result["good"], result["quarantined"], result["voices"]) == (True, 20, 0, 2)
    assert all(answer["passed"] for answer in result["expectations"])
    kept = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    assert {"note", "joined", "sentence_ids", "tool_call", "snr_db"} <= set(kept.columns)
    assert result["hours"] == pytest.approx(20 * 2 / 3600)


def test_the_built_in_corpus_is_good_and_said_to_be_synthetic(
    tiny_corpus: Path, tmp_path: Path, params: Validate
) -> None:
    result = validate(params, corpus=tiny_corpus, out=tmp_path / "out")
    assert result["quarantined"] == 0 and result["ok"] and result["synthetic"]
    assert result["rows"] == len(pd.read_parquet(tiny_corpus / "manifest.parquet"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "SYNTHETIC" in page


def test_the_stage_ends_with_a_message_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker = CorpusMaker(tmp_path / "corpus").good()
    maker.add("gone").unlink()
    paths = {"inputs": {"corpus": maker.write()}, "outputs": {"out": tmp_path / "out"}}
    assert (
        run_stage("tasks.data.validate", "validate", validate, **paths, argv=["--params", "params.yaml"]) == 2
    )
    said = capsys.readouterr().err
    assert "tasks.data.validate: DataError: 1 of 21 rows (4.8%) are bad: 1 missing_file" in said
    assert "Next: read" in said
    maker.rows.pop()
    maker.write()
    assert (
        run_stage("tasks.data.validate", "validate", validate, **paths, argv=["--params", "params.yaml"]) == 0
    )
    assert (tmp_path / "out" / "manifest.parquet").is_file()


def test_too_many_bad_rows_stop_the_road_and_leave_the_evidence(tmp_path: Path, params: Validate) -> None:
    maker = CorpusMaker(tmp_path / "corpus").good()
    maker.add("gone").unlink()
    cut(maker.add("half"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.parquet").write_text("of an earlier run")
    (tmp_path / "elsewhere").write_text("an earlier result")
    with pytest.raises(DataError) as caught:
        validate(params, corpus=maker.write(), out=out)
    message = str(caught.value)
    for part in (
        "2 of 22 rows (9.1%)",
        "1 missing_file",
        "1 truncated_file",
        "gone [train]",
        "at most 2.0%",
        "validate.max_bad_share",
        str(out / "quarantine.parquet"),
        str(out / "report.html"),
    ):
        assert part in message
    assert not (out / "manifest.parquet").exists()  # nothing may be trained on it
    assert set(pd.read_parquet(out / "quarantine.parquet")["utterance_id"]) == {"gone", "half"}
    assert json.loads((out / "result.json").read_text())["ok"] is False
    assert "Nothing is trained" in (out / "report.html").read_text()
    assert (tmp_path / "elsewhere").read_text() == "an earlier result"


@pytest.mark.parametrize(
    ("left", "says"), [(0, "split test_voices is empty"), (3, "test_voices has 3 good rows of 3")]
)
def test_a_split_with_too_few_rows_is_named(tmp_path: Path, params: Validate, left: int, says: str) -> None:
    maker = CorpusMaker(tmp_path / "corpus").good()
    maker.rows = maker.rows[: 15 + left]
    with pytest.raises(DataError) as caught:
        validate(params, corpus=maker.write(), out=tmp_path / "out")
    assert says in str(caught.value)
    assert "min_rows_per_split" in str(caught.value)


def test_missing_columns_and_wrong_types_are_all_named(tmp_path: Path, params: Validate) -> None:
    maker = CorpusMaker(tmp_path / "corpus").good()
    for row in maker.rows:
        del row["speaker"], row["sha256"]
        row["duration_s"] = "two"
    with pytest.raises(DataError) as caught:
        validate(params, corpus=maker.write(), out=tmp_path / "out")
    message = str(caught.value)
    assert "no column sha256, speaker" in message
    assert "column duration_s holds" in message and "not a number" in message
    answers = json.loads((tmp_path / "out" / "result.json").read_text())["expectations"]
    assert {a["column"] for a in answers if not a["passed"]} == {"sha256", "speaker", "duration_s"}


def test_a_manifest_that_is_no_parquet_file(tmp_path: Path, params: Validate) -> None:
    (tmp_path / "manifest.parquet").write_text("id,path\n")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        validate(params, corpus=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_of_the_output(tmp_path: Path, params: Validate) -> None:
    corpus = CorpusMaker(tmp_path / "corpus").good().write()
    (tmp_path / "place").write_text("a file, not a folder")
    with pytest.raises(MalgilError) as caught:
        validate(params, corpus=corpus, out=tmp_path / "place" / "validated")
    assert str(tmp_path / "place") in str(caught.value)
    assert (tmp_path / "place").read_text() == "a file, not a folder"


@pytest.mark.parametrize(("chain", "bad"), [("ko-1", {"digits", "latin", "word"}), ("ko-3", {"word"})])
def test_the_chosen_chain_says_which_transcripts_can_be_read(
    tmp_path: Path, params: Validate, chain: str, bad: set[str]
) -> None:
    maker = CorpusMaker(tmp_path / "corpus").good()
    for name, transcript in (("digits", "불 3개 켜 줘"), ("latin", "TV 켜 줘"), ("word", "hello 켜 줘")):
        maker.add(name, transcript=transcript)
    out = tmp_path / "validated"
    result = validate(limits(params, max_bad_share=0.5), corpus=maker.write(), out=out, normaliser=chain)
    quarantine = pd.read_parquet(out / "quarantine.parquet")
    assert set(quarantine["utterance_id"]) == bad
    assert set(quarantine["reasons"]) == {"not_hangul"}
    assert result["normaliser"] == chain
    assert set(result["unread_words"]) >= {"hello"}
    assert result["unread_words"] == ({"hello": 1} if chain == "ko-3" else {"3개": 1, "TV": 1, "hello": 1})


def test_words_that_nothing_reads_are_counted_and_said_how_to_mend(tmp_path: Path, params: Validate) -> None:
    maker = CorpusMaker(tmp_path / "corpus").good()
    for number, transcript in enumerate(("hello 켜 줘", "hello iPhone 켜 줘", "iPhone를 꺼 줘", "hello")):
        maker.add(f"u{number}", transcript=transcript)
    corpus, out = maker.write(), tmp_path / "out"
    with pytest.raises(DataError, match=r"hello \(3\), iPhone \(1\), iPhone를 \(1\).*corpus\.readings"):
        validate(limits(params, max_bad_share=0.0), corpus=corpus, out=out, normaliser="ko-3")
    page = (out / "report.html").read_text()
    assert "<code>iPhone를</code>&nbsp;(1)" in page
