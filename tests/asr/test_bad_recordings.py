"""Recordings as people have them: silent, clipped, broken, misnamed. What can be heard is, the rest is named."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from flows.cli import app
from tasks.asr import transcribe
from tasks.asr.embed import Embedded, embed
from tasks.asr.embedding.encoder import load_encoder_layers
from tasks.asr.engines.acoustic import load_acoustic
from tasks.asr.pretraining.corpus import read_speech
from tasks.asr.recordings import recording
from tasks.asr.recordings.clipping import MOST
from tasks.asr.recordings.formats import Transcription
from tasks.asr.recordings.sources import Failure, find_sources
from tasks.data.measure import measure
from tasks.errors import DataError
from tasks.params import load
from tests.asr.audible_symbols import Heard, babble, run, spoken

MINI = Path(__file__).parents[2] / "models/malgil-xlsr-mini"
Array = np.ndarray[Any, Any]


def test_the_odd_ones_do_not_stop_the_rest(odd: Path, shipped: Path, tmp_path: Path) -> None:
    found = find_sources([str(odd), str(tmp_path / "missing.wav")], io.BytesIO(), tmp_path)
    acoustic = load_acoustic(shipped, None, 60.0, use_search=True)
    results = list(transcribe.transcribe(found, acoustic))
    said = {Path(r.path).stem: r for r in results if isinstance(r, Transcription)}
    failed = {Path(r.name).stem: str(r.error) for r in results if isinstance(r, Failure)}
    assert set(said) == {"good", "wrong_suffix", "clipped", "one_sample", "silent"}
    assert set(failed) == {"missing", *(path.stem for path in odd.glob("bad_*"))}
    assert said["good"].text == said["wrong_suffix"].text != ""
    assert said["silent"].text == said["silent"].greedy == "" and said["silent"].confidence is None
    warned = {name: list(found.warnings) for name, found in said.items() if found.warnings}
    assert set(warned) == {"clipped", "one_sample"}
    measured = measure(odd / "clipped.ogg").clipped_share
    assert said["clipped"].clipped_share == pytest.approx(measured, abs=1e-6) and measured > MOST
    assert f"clipped.ogg is clipped: {measured:.1%} of its samples" in warned["clipped"][0]
    assert "Next: record it again at a lower level" in warned["clipped"][0]
    for name, message in failed.items():
        assert name in message and "Next: " in message and "manifest" not in message


def test_a_recording_is_called_clipped_where_validation_would_refuse_it(tmp_path: Path) -> None:
    assert load().validate_.max_clipped_share == MOST
    for share, warned in ((0.009, False), (0.02, True)):
        audio = np.zeros((44_100, 2))
        audio[: round(44_100 * share)] = 1.0, -1.0  # their mean is silence: channels are looked at one by one
        soundfile.write(tmp_path / "a.wav", audio, 44_100)
        (found,) = run([tmp_path / "a.wav"], Heard())
        assert found.clipped_share == pytest.approx(share, abs=1e-4)
        assert any("is clipped" in warning for warning in found.warnings) is warned


def test_a_file_named_raw_is_a_fault_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"\0" * 100)
    (failure,) = run([tmp_path / "a.raw"], Heard())
    assert "convert it to WAV" in str(failure.error)


def test_a_file_that_shrinks_between_the_readings_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    spoken(babble(20), good)
    spoken(babble(200), bad)
    inner = recording.blocks

    def shrinking(path: Path, name: str, *more: Any) -> Iterator[Array]:
        yield from inner(path, name, *more)
        if path == bad and path.stat().st_size > 100_000:
            soundfile.write(bad, np.ones(16_000 * 22) / 5, 16_000)

    monkeypatch.setattr(recording, "blocks", shrinking)
    failure, found = run([bad, good], Heard())
    assert isinstance(failure, Failure) and "became shorter" in str(failure.error)
    assert found.text


def test_the_odd_ones_through_a_stream(odd: Path, checkpoint: Path) -> None:
    said: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for path in sorted({*odd.glob("[!.]*.*"), odd / "deep/good.wav"} - {odd / "notes.txt"}):
        command = ["asr", "stream", "--json", "--greedy", "--model", str(checkpoint), str(path)]
        ended = CliRunner().invoke(app, command)
        if ended.exit_code == 0:
            said[path.stem] = json.loads(ended.stdout.splitlines()[-1])
        else:
            assert isinstance(ended.exception, DataError), path
            refused[path.name] = str(ended.exception)
    assert set(said) == {"good", "wrong_suffix", "clipped", "one_sample", "silent"}
    assert said["good"]["text"] == said["wrong_suffix"]["text"] != ""
    assert "clipped.ogg is clipped" in said["clipped"]["warnings"][0]
    assert set(refused) == {path.name for path in odd.glob("bad_*")}
    for name, message in refused.items():
        assert name in message and "Next: " in message


def test_the_odd_ones_as_vectors(odd: Path, tmp_path: Path) -> None:
    found = find_sources([str(odd)], io.BytesIO(), tmp_path)
    results = list(embed(found, load_encoder_layers(MINI, (0, -1)), "statistics"))
    vectors = {Path(r.name).stem: r.vectors for r in results if isinstance(r, Embedded)}
    assert set(vectors) == {"good", "wrong_suffix", "clipped", "silent"}
    assert all(np.isfinite(vector).all() for own in vectors.values() for vector in own)
    failed = {Path(r.name).name: str(r.error) for r in results if isinstance(r, Failure)}
    assert set(failed) == {"one_sample.wav", *(path.name for path in odd.glob("bad_*"))}
    assert "at 16 kHz no sample is left" in failed["one_sample.wav"]


def test_the_odd_ones_are_left_out_of_a_pre_training_and_counted(odd: Path, tmp_path: Path) -> None:
    params = load().pretrain.model_copy(update={"source": "audio", "corpus": str(odd)})
    with pytest.raises(DataError, match="3 usable utterances") as caught:
        read_speech(params, tmp_path / "speech")
    for reason in ("6 unreadable", "1 shorter than 0.5 s", "5 silent"):
        assert reason in caught.value.what


CASES = Path(__file__).parents[1] / "audio/cases"


@pytest.mark.parametrize(
    ("case", "seconds", "says"),
    [
        ("c24_arecord_pipe.wav", 1.0, "states no length"),
        ("c24_sox_pipe.wav", 1.0, "states no length"),
        ("c26_vbr_without_xing.mp3", 191 * 1_152 / 44_100, ""),
        ("c28_antiphase.wav", 1.0, "opposite sign"),
    ],
)
def test_whole_files_with_odd_headers_or_channels_are_heard_and_said_once(
    case: str, seconds: float, says: str
) -> None:
    (found,) = run([CASES / case], Heard())
    assert isinstance(found, Transcription), found
    assert found.duration_s == pytest.approx(seconds)
    assert len(found.warnings) == bool(says)
    assert all(case in warning and says in warning for warning in found.warnings)


def test_opposite_channels_say_what_one_of_them_says(tmp_path: Path) -> None:
    words = spoken(babble(40), tmp_path / "mono.wav")
    audio, rate_hz = soundfile.read(tmp_path / "mono.wav")
    soundfile.write(tmp_path / "both.wav", np.stack([audio, -audio], axis=1), rate_hz)
    (found,) = run([tmp_path / "both.wav"], Heard())
    assert [word.text for word in found.words] == [word for word, _ in words] != []


def test_files_joined_one_behind_the_other_are_heard_to_the_end(tmp_path: Path) -> None:
    first, second = spoken(babble(20), tmp_path / "1.wav"), spoken(babble(30), tmp_path / "2.wav")
    joined = (tmp_path / "1.wav").read_bytes() + (tmp_path / "2.wav").read_bytes()
    (tmp_path / "joined.wav").write_bytes(joined)
    (found,) = run([tmp_path / "joined.wav"], Heard())
    # the last word of the first runs on into the first of the second where no pause is between them
    assert len(found.text.replace(" ", "")) >= 0.9 * sum(len(w) for w, _ in (*first, *second))
    assert "one behind the other" in found.warnings[0]
