"""Copies of a recording are found and quarantined; other renderings and changed words are not (synthetic)."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr

from tasks.asr.duplicates import find_duplicates
from tasks.asr.embedding.same_recording import outline, same_recording
from tasks.asr.embedding.similar import close_pairs, whitened
from tasks.data.espeak import Synthesiser
from tasks.data.validate import validate
from tasks.params import load

RATE_HZ = 16_000
SPLITS = ("train", "validation", "test_sentences", "test_voices")
ROOMS = ("거실", "침실", "부엌", "욕실", "현관", "서재")
PHRASES = ("불 좀 켜 줘", "불 좀 꺼 줘", "창문 열어 줘", "음악 틀어 줘", "온도 올려 줘", "커튼 닫아 줘")
EDGE = np.zeros(RATE_HZ // 2, np.float32)


def noisy(audio: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(len(audio)).astype(np.float32)
    return audio + noise * np.sqrt(np.mean(audio**2) / 100)


# kind: (what is done to the samples, file suffix)
COPIES = {
    "mp3": (lambda audio: audio, "mp3"),
    "ogg": (lambda audio: audio, "ogg"),
    "quiet": (lambda audio: audio * 0.5, "flac"),
    "resampled": (lambda audio: soxr.resample(soxr.resample(audio, 16_000, 44_100), 44_100, 16_000), "flac"),
    "noisy": (noisy, "flac"),
    "silence_before": (lambda audio: np.concatenate([EDGE, audio]), "flac"),
    "silence_after": (lambda audio: np.concatenate([audio, EDGE]), "flac"),
    "silence_cut": (lambda audio: audio[int(np.flatnonzero(np.abs(audio) > 1e-3)[0]) :], "flac"),
}


class Maker:
    """A small corpus whose sentences differ in a word or two, by two voices."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows, self.audio = folder, [], {}
        (folder / "audio").mkdir(parents=True)

    def add(
        self, name: str, audio: np.ndarray, split: str, text: str, speaker: str, suffix: str = "flac"
    ) -> None:
        path = self.folder / "audio" / f"{name}.{suffix}"
        soundfile.write(path, np.clip(audio, -1, 1), RATE_HZ)
        row = {"utterance_id": name, "path": f"audio/{path.name}", "speaker": speaker, "split": split}
        row |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "transcript": text}
        row |= {"duration_s": soundfile.info(str(path)).duration, "sample_rate_hz": RATE_HZ}
        self.rows.append(row)
        self.audio[name] = audio


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """36 sentences over four splits, then a copy of each kind under other words, voice and split."""
    maker = Maker(tmp_path_factory.mktemp("planted") / "corpus")
    with Synthesiser() as synthesiser:
        for number in range(36):
            text = f"{ROOMS[number % 6]} {PHRASES[number // 6]}"
            split = SPLITS[number % 4]
            voice = "ko+f2" if split == "test_voices" else ("ko+f1", "ko+m1")[number // 4 % 2]
            audio = synthesiser.speak(text, voice, rate_wpm=170)
            maker.add(f"u{number:02d}", np.concatenate([EDGE, audio]), split, text, voice)
    for number, (kind, (change, suffix)) in enumerate(COPIES.items()):
        original = f"u{4 * number + 2:02d}"  # of test_sentences
        text = f"다른 말 {'가나다라마바사아'[number]}"
        maker.add(kind, change(maker.audio[original]), "train", text, "somebody", suffix)
    later = maker.audio["u00"] * 0.7
    maker.add("later", later, "train", "또 다른 말", "somebody")
    pd.DataFrame(maker.rows).to_parquet(maker.folder / "manifest.parquet")
    return maker


def test_planted_copies_are_quarantined_and_nothing_else_is(planted: Maker, tmp_path: Path) -> None:
    params = load(Path("params.yaml"))
    found = tmp_path / "embeddings"
    find_duplicates(params.embed_asr, corpus=planted.folder, out=found)
    limits = params.validate_.model_copy(update={"max_bad_share": 1.0})
    out = tmp_path / "validated"
    validate(limits, corpus=planted.folder, out=out, duplicates=found / "duplicates.parquet")
    bad = pd.read_parquet(out / "quarantine.parquet").set_index("utterance_id")
    assert set(bad.index[bad["reasons"].str.contains("copied_recording")]) == {*COPIES, "later"}
    for number, kind in enumerate(COPIES):  # the copy that trains goes, the original in the test split stays
        assert f"the recording of test_sentences u{4 * number + 2:02d}" in bad.loc[kind, "details"]
    assert "the recording of train u00" in bad.loc["later", "details"]
    assert not set(bad.index) - {*COPIES, "later"}


def test_a_file_that_cannot_be_read_is_left_to_the_validation(planted: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "audio").mkdir(parents=True)
    rows = planted.rows[:3]
    for row in rows[1:]:
        (folder / row["path"]).write_bytes((planted.folder / row["path"]).read_bytes())
    (folder / rows[0]["path"]).write_text("no audio")
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet")
    counts = find_duplicates(load(Path("params.yaml")).embed_asr, corpus=folder, out=tmp_path / "out")
    assert counts["compared"] == 2 and counts["duplicates"] == 0
    assert list(pd.read_parquet(tmp_path / "out/vectors.parquet")["utterance_id"]) == ["u01", "u02"]


def test_a_changed_word_or_another_tempo_is_another_recording() -> None:
    with Synthesiser() as synthesiser:
        said = outline(synthesiser.speak("내일 아침 일곱 시에 알람 맞춰 줘", "ko+f1", rate_wpm=180))
        others = [
            synthesiser.speak("내일 아침 여덟 시에 알람 맞춰 줘", "ko+f1", rate_wpm=180),
            synthesiser.speak("내일 아침 일곱 시에 알람 맞춰 줘", "ko+f1", rate_wpm=190),
            synthesiser.speak("내일 아침 일곱 시에 알람 맞춰 줘", "ko+m1", rate_wpm=180),
            synthesiser.speak("아 내일 아침 일곱 시에 알람 맞춰 줘", "ko+f1", rate_wpm=180),
        ]
    assert same_recording(said, said) == pytest.approx(1.0, abs=1e-3)
    assert same_recording(said, -0.3 * np.concatenate([np.zeros(777, np.float32), said])) > 0.99
    assert all(same_recording(said, outline(other)) < 0.5 for other in others)
    one_word = said.copy()  # the rest is sample for sample the same, so that the wholes correlate
    middle = len(said) // 2
    one_word[middle : middle + 1_200] = said[:1_200][::-1] * 2
    assert np.corrcoef(said, one_word)[0, 1] > 0.6 and same_recording(said, one_word) < 0.5


def test_blocks_of_cosines_give_the_pairs_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).standard_normal((23, 6)).astype(np.float32)
    unit = whitened(vectors)
    whole = close_pairs(unit, 3, -1.0)
    monkeypatch.setattr("tasks.asr.embedding.similar._BLOCK", 5)
    parts = close_pairs(unit, 3, -1.0)
    assert [pair[:2] for pair in whole] == [pair[:2] for pair in parts]
    cosines = unit @ unit.T - 3.0 * np.eye(23)
    assert {(min(a, b), max(a, b)) for a, row in enumerate(cosines) for b in np.argsort(-row)[:3]} == {
        pair[:2] for pair in whole
    }
