"""The espeak-ng engine: real speech, refused voices, phonemes; and the fixed lists of voices."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.data.espeak import Synthesiser, trim_silence, variants
from tasks.data.voices import PRETRAINING_VARIANTS, TRAINING_VOICES, UNSEEN_VOICES
from tasks.errors import DataError
from tests.children import run

SAMPLE_RATE_HZ = 16_000


def test_voice_lists_are_apart_and_exist() -> None:
    assert len(TRAINING_VOICES) == len(set(TRAINING_VOICES)) >= 40
    assert 6 <= len(UNSEEN_VOICES) == len(set(UNSEEN_VOICES))
    assert not set(TRAINING_VOICES) & set(UNSEEN_VOICES)
    assert not {f"ko+{variant}" for variant in PRETRAINING_VARIANTS} & set(UNSEEN_VOICES)
    named = {voice.partition("+")[2] for voice in (*TRAINING_VOICES, *UNSEEN_VOICES)} | set(
        PRETRAINING_VARIANTS
    )
    assert named <= variants()


def test_speech_is_16_khz_float32_and_longer_when_slower() -> None:
    with Synthesiser() as synthesiser:
        slow = synthesiser.speak("거실 불 좀 켜 줘", "ko+f1", rate_wpm=120)
        fast = synthesiser.speak("거실 불 좀 켜 줘", "ko+f1", rate_wpm=240)
    assert slow.dtype == np.float32
    assert slow.ndim == 1
    assert 0.05 < np.abs(slow).max() <= 1.0
    assert 0.5 < len(fast) / SAMPLE_RATE_HZ < len(slow) / SAMPLE_RATE_HZ < 5.0


def test_every_listed_voice_speaks() -> None:
    with Synthesiser() as synthesiser:
        for voice in (*TRAINING_VOICES, *UNSEEN_VOICES):
            assert len(synthesiser.speak("불 켜", voice)) > 0.2 * SAMPLE_RATE_HZ, voice


def test_pitch_is_set_after_a_change_of_voice() -> None:
    with Synthesiser() as synthesiser:
        synthesiser.speak("아", "ko+m1", pitch=99)
        low = pitch_hz(synthesiser.speak("아", "ko+f1", pitch=10))
        high = pitch_hz(synthesiser.speak("아", "ko+f1", pitch=90))
    assert high > 1.2 * low


def pitch_hz(audio: np.ndarray) -> float:  # type: ignore[type-arg]
    middle = audio[len(audio) // 2 - 1024 : len(audio) // 2 + 1024]
    correlation = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    return SAMPLE_RATE_HZ / (32 + int(np.argmax(correlation[32:320])))


@pytest.mark.parametrize(
    ("text", "voice", "more", "message"),
    [
        ("불", "ko+nobody", {}, "no variant 'nobody'"),
        ("불", "xx-nowhere", {}, "no language"),
        ("불", "+f1", {}, "no language"),
        ("", "ko+f1", {}, "needs something to say"),
        ("불", "ko+f1", {"rate_wpm": 5}, "rate_wpm=5"),
        ("불", "ko+f1", {"pitch": 120}, "pitch=120"),
    ],
)
def test_what_cannot_be_spoken_is_named(text: str, voice: str, more: dict[str, int], message: str) -> None:
    with Synthesiser() as synthesiser, pytest.raises(DataError, match=message):
        synthesiser.speak(text, voice, **more)


def test_one_engine_per_process_and_none_after_it_is_closed() -> None:
    with Synthesiser() as first:
        with pytest.raises(DataError, match="one engine"), Synthesiser():
            pass
        assert len(first.speak("불", "ko+f1"))
    with pytest.raises(DataError, match="closed"):
        first.speak("불", "ko+f1")
    with Synthesiser() as second:
        assert len(second.speak("불", "ko+f1"))


def test_phonemes_are_words_of_symbols_without_stress() -> None:
    with Synthesiser() as synthesiser:
        words = synthesiser.phonemes("casa grande, rápidamente", "es")
    assert len(words) == 3
    assert words[0] == ["k", "a", "s", "a"]
    assert not set("ˈˌː") & {c for word in words for symbol in word for c in symbol}


def test_a_long_path_of_the_data_does_not_end_the_process(tmp_path: Path) -> None:
    import espeakng_loader

    deep = tmp_path / ("long-name-" * 12) / ("longer-" * 12)
    deep.mkdir(parents=True)
    shutil.copytree(espeakng_loader.get_data_path(), deep / "espeak-ng-data")
    code = (
        "import espeakng_loader\n"
        f"espeakng_loader.get_data_path = lambda: {str(deep / 'espeak-ng-data')!r}\n"
        "from tasks.data.espeak import Synthesiser\n"
        "with Synthesiser() as s: print(len(s.speak('불', 'ko+f1')))\n"
    )
    answer = run([sys.executable, "-c", code], text=True, cwd=Path(__file__).parents[2])
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) > 1_000


def test_trim_keeps_a_margin_and_empties_silence() -> None:
    audio = np.zeros(16_000, np.float32)
    assert len(trim_silence(audio)) == 0
    audio[8_000:9_000] = 0.5
    assert len(trim_silence(audio)) == 1_000 + 2 * 320
