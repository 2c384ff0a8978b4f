"""The sentences and surroundings of the out-of-domain slice."""

import random
import unicodedata

import numpy as np
import pytest

from tasks.data import surroundings
from tasks.data.everyday import everyday_sentences
from tasks.data.grammar import draw
from tasks.errors import DataError

RATE_HZ = 16_000
MEDIALS = {ord(letter): chr(0x1161 + ord(letter) - ord("ㅏ")) for letter in "ㅙㅚㅞㅒ"}


def tone(*hz: float, seconds: float = 1.0) -> np.ndarray:
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return np.sum([np.sin(2 * np.pi * one * time_s) for one in hz], axis=0).astype(np.float32) * 0.1


def level_db(audio: np.ndarray, hz: float) -> float:
    """Level of one second of audio at a frequency, dB."""
    return 20 * np.log10(np.abs(np.fft.rfft(audio[:RATE_HZ]))[round(hz)] + 1e-9)


def test_sentences_are_many_distinct_and_the_same_for_the_same_seed() -> None:
    found = everyday_sentences(600, random.Random(3))
    assert len(set(found)) == 600
    assert found == everyday_sentences(600, random.Random(3))
    assert found != everyday_sentences(600, random.Random(4))
    assert all(unicodedata.is_normalized("NFC", text) for text in found)
    assert all("가" <= c <= "힣" or c == " " for text in found for c in text)
    with pytest.raises(DataError, match=r"corpus\.ood_utterances asks for 90000"):
        everyday_sentences(90_000, random.Random(3))


def test_sentences_hold_words_and_jamo_that_no_command_has() -> None:
    outside, commands = everyday_sentences(150, random.Random(3)), [one.text for one in draw(3000, 3)]
    known = {word for text in commands for word in text.split()}
    words = [word for text in outside for word in text.split()]
    assert sum(word in known for word in words) < 0.02 * len(words)
    new = set(unicodedata.normalize("NFD", "".join(outside))) - set(
        unicodedata.normalize("NFD", "".join(commands))
    )
    assert new >= set("ㅙㅚㅞㅒ".translate(MEDIALS)) | {
        "\u11aa",
        "\u11ac",
        "\u11b9",
        "\u11be",
    }  # finals ㄳ ㄵ ㅄ ㅊ


@pytest.mark.parametrize(("hz", "kept"), [(100, False), (1000, True), (3300, True), (5000, False)])
def test_a_telephone_carries_its_band_alone(hz: float, kept: bool) -> None:
    speech = tone(100, 1000, 3300, 5000)
    change = level_db(surroundings.telephone(speech), hz) - level_db(speech, hz)
    assert abs(change) < 0.1 if kept else change < -60


@pytest.mark.parametrize("snr_db", [5.0, 10.0])
def test_hum_and_babble_have_the_ratio_that_they_are_given(snr_db: float) -> None:
    speech = tone(440)
    for heard in (
        surroundings.hum(np.random.default_rng(1), speech, snr_db),
        surroundings.babble(np.random.default_rng(1), speech, tone(700, 900, seconds=0.4), snr_db),
    ):
        loud = np.abs(speech) > 0.01 * np.max(np.abs(speech))
        noise_power = np.mean((heard - speech) ** 2)
        assert 10 * np.log10(np.mean(speech[loud] ** 2) / noise_power) == pytest.approx(snr_db, abs=0.1)


def test_hum_is_of_the_mains() -> None:
    heard = surroundings.hum(np.random.default_rng(2), tone(1234), 5.0)
    strongest = max(range(20, 500), key=lambda hz: level_db(heard, hz))
    assert strongest in surroundings.MAINS_HZ


def test_loud_speech_is_compressed_and_not_clipped() -> None:
    speech = tone(300) * np.linspace(0.1, 1.0, RATE_HZ, dtype=np.float32)
    heard = surroundings.loud(speech)
    assert np.max(np.abs(heard)) == pytest.approx(0.99, abs=1e-3)
    crest = [np.max(np.abs(a)) / np.sqrt(np.mean(a**2)) for a in (speech, heard)]
    assert crest[1] < 0.7 * crest[0]


def test_reverberation_goes_on_after_the_speech_and_fades() -> None:
    click = np.zeros(1600, dtype=np.float32)
    click[100] = 1.0
    heard = surroundings.reverberation(np.random.default_rng(5), click)
    assert len(heard) - len(click) >= 0.4 * RATE_HZ - 1
    tail = heard[101:]
    energy = [float(np.sum(part**2)) for part in np.array_split(tail, 4)]
    assert energy == sorted(energy, reverse=True) and energy[0] > 100 * energy[3]
    assert np.argmax(np.abs(heard)) == 100
