"""Recordings of any length, of any kind and in any number, through `malgil asr transcribe` and its body.

`Heard` is a recogniser that reads symbols off the loudness of each frame, so that text and times are known
exactly; the tiny ONNX and torch models say nonsense, but the same nonsense.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from flows import asr_commands
from flows.cli import app
from tasks.asr import transcribe
from tasks.asr.checkpoints.checkpoint import Vocabulary, fresh_model, load_encoder, save_checkpoint
from tasks.asr.decoding.align import Span
from tasks.asr.engines.acoustic import OnnxAcoustic, load_acoustic
from tasks.asr.engines.torch_acoustic import TorchAcoustic
from tasks.asr.engines.torch_model import OnnxRecogniser, TorchRecogniser
from tasks.asr.recordings import recording
from tasks.asr.recordings.clipping import MOST
from tasks.asr.recordings.formats import Transcription
from tasks.asr.recordings.recording import BLOCK_FRAMES
from tasks.asr.recordings.sources import Failure, Source, find_sources
from tasks.asr.recordings.windows import Grid
from tasks.asr.training.augment import normalised
from tasks.data.audio import read_audio
from tasks.data.measure import measure
from tasks.errors import DataError, ModelError
from tasks.params import load

ROOT = Path(__file__).parents[2]
GRID = Grid(320, 686)
Array = np.ndarray[Any, Any]


class Heard:
    """A frame whose middle is as loud as k/10 says symbol k; blank where it is silent."""

    vocabulary = Vocabulary(("[PAD]", "|", "가", "나", "다"))
    search = None
    normalise = False
    grid = GRID
    sha256 = "0" * 64
    pool_seconds = 0.0

    def __init__(self) -> None:
        self.longest = 0

    def logits(self, audio: Sequence[Array]) -> list[Array]:
        self.longest = max([self.longest, *map(len, audio)])
        found = []
        for clip in audio:
            middles = np.arange(GRID.frames(len(clip))) * GRID.stride + GRID.field // 2
            symbols = np.round(np.abs(clip[middles]) * 10).astype(int)
            found.append(np.eye(5, dtype=np.float32)[symbols] * 12)
        return found


def spoken(text: str, path: Path, pause: int = 30) -> list[tuple[str, float]]:
    """Writes audio in which `Heard` hears the text ("." is a pause); each word with its start in seconds."""
    frames: list[int] = []
    words: list[tuple[str, float]] = []
    for word in text.split():
        if word == ".":
            frames += [0] * pause
            continue
        words.append((word, GRID.start_s(len(frames))))
        for symbol in word:
            frames += [" |가나다".index(symbol)] * 3 + [0] * 2
        frames += [1] * 2 + [0]
    samples = np.repeat(np.array(frames) / 10, GRID.stride)
    offset = (GRID.field - GRID.stride) // 2
    soundfile.write(path, np.concatenate([np.zeros(offset), samples, np.zeros(GRID.field)]), 16_000)
    return words


def babble(words: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    drawn = ["".join(rng.choice(list("가나다"), rng.integers(1, 6))) for _ in range(words)]
    return " ".join(word + " ." * int(rng.random() < 0.1) for word in drawn)


def source(path: Path) -> Source:
    return Source(str(path), path, Path(path.stem))


def run(paths: Sequence[Path], acoustic: Any, window_s: float = 20.0, overlap_s: float = 4.0) -> list[Any]:
    return list(transcribe.transcribe([source(path) for path in paths], acoustic, window_s, overlap_s))


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Short recordings of several lengths, and one of 12 s."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(1)
    for index, seconds in enumerate((0.7, 2.31, 1.1, 0.02, 12.0)):
        soundfile.write(folder / f"{index}.wav", rng.uniform(-0.3, 0.3, round(seconds * 16_000)), 16_000)
    return sorted(folder.iterdir())


def test_both_backends_lie_on_the_same_grid(checkpoint: Path, shipped: Path) -> None:
    assert TorchAcoustic(checkpoint, 60.0).grid == OnnxAcoustic(shipped).grid == GRID


@pytest.mark.parametrize("window_s", [1.3, 4.0, 20.0, 400.0])
def test_windows_change_neither_a_word_nor_a_time(tmp_path: Path, window_s: float) -> None:
    words = spoken(babble(200), tmp_path / "long.wav")
    (found,) = run([tmp_path / "long.wav"], Heard(), window_s, overlap_s=window_s / 5)
    assert found.duration_s > 60
    assert [(word.text, word.start_s) for word in found.words] == words
    assert found.text == found.greedy == " ".join(word for word, _ in words)
    assert "".join(character.text for character in found.characters) == found.text.replace(" ", "")
    assert found.words[0].end_s - found.words[0].start_s == pytest.approx(
        0.02 * (5 * len(found.words[0].text) - 2)
    )
    assert found.confidence > 0.99


def test_every_window_has_the_level_of_the_whole(tmp_path: Path) -> None:
    """A quiet stretch of a long recording stays quiet; alone it would be made as loud as the speech."""
    heard: list[Array] = []

    class Levels(Heard):
        normalise = True

        def logits(self, audio: Sequence[Array]) -> list[Array]:
            heard.extend(audio)
            return [np.zeros((GRID.frames(len(clip)), 5), np.float32) for clip in audio]

    rng = np.random.default_rng(0)
    loudness = np.linspace(0.01, 0.9, 10 * 16_000)
    soundfile.write(tmp_path / "a.wav", rng.uniform(-1, 1, len(loudness)) * loudness + 0.05, 16_000)
    run([tmp_path / "a.wav"], Levels(), window_s=4.0, overlap_s=1.0)
    whole = normalised(read_audio(tmp_path / "a.wav"))
    assert len(heard) > 1
    assert np.allclose(heard[0], whole[: len(heard[0])], atol=1e-4)


def test_joined_logits_are_those_of_one_pass_but_for_context(
    checkpoint: Path, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds from a cut, a window's logits are those of the whole to 5% of what they vary by."""
    decoded: list[Array] = []

    def listen(logits: Array, blank_id: int) -> tuple[list[int], list[Span]]:
        decoded.append(logits)
        return [], []

    monkeypatch.setattr(transcribe, "best_path", listen)
    acoustic = TorchAcoustic(checkpoint, 60.0, use_search=False)
    run([noises[-1]], acoustic, window_s=5.0)
    joined, cut = np.concatenate(decoded), len(decoded)
    with torch.inference_mode():
        inputs = torch.from_numpy(normalised(read_audio(noises[-1])))[None]
        whole = acoustic.model(inputs).logits[0].numpy()
    assert cut > 1 and joined.shape == whole.shape
    assert np.abs(joined - whole).max() < 0.05 * whole.std()
    shifted = np.abs(joined[:-1] - whole[1:]).max()
    assert shifted > whole.std(), "a test that cannot tell a frame from the next shows nothing"


def test_a_short_recording_says_what_the_recognisers_say(
    checkpoint: Path, shipped: Path, noises: list[Path]
) -> None:
    clips = [read_audio(path) for path in noises]
    recognisers = (
        (OnnxRecogniser(shipped), OnnxAcoustic(shipped)),
        (
            TorchRecogniser(checkpoint),
            TorchAcoustic(checkpoint, 60.0),
        ),
    )
    for recogniser, acoustic in recognisers:
        said = [(found.text, found.greedy) for found in run(noises, acoustic)]
        assert said == [tuple(transcript) for transcript in recogniser.transcripts(clips)]
        assert any(text for text, _ in said)


def test_a_batch_says_what_each_says_alone(
    checkpoint: Path, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    acoustic = TorchAcoustic(checkpoint, 10.0, use_search=False)
    batches: list[int] = []
    assert acoustic.packed
    inner = acoustic.packed.logits

    def counted(clips: Sequence[Array]) -> list[Array]:
        batches.append(len(clips))
        return inner(clips)

    monkeypatch.setattr(acoustic.packed, "logits", counted)
    together = run(noises, acoustic, window_s=3.0, overlap_s=1.0)
    assert max(batches) > 2
    alone = [run([path], acoustic, window_s=3.0, overlap_s=1.0)[0] for path in noises]
    for one, other in zip(together, alone, strict=True):
        assert (one.path, one.text, len(one.words)) == (other.path, other.text, len(other.words))
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(babble(1_500), tmp_path / "long.wav")
    asked: list[int] = []
    decoded: list[int] = []
    read, labels = soundfile.SoundFile.read, transcribe.best_path

    def watched(file: Any, frames: int = -1, **how: Any) -> Any:
        asked.append(frames)
        return read(file, frames, **how)

    def counted(logits: Array, blank_id: int) -> tuple[list[int], list[Span]]:
        decoded.append(len(logits))
        return labels(logits, blank_id)

    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    monkeypatch.setattr(transcribe, "best_path", counted)
    acoustic = Heard()
    (found,) = run([tmp_path / "long.wav"], acoustic)
    assert found.duration_s > 400
    assert min(asked) > 0 and max(asked) <= BLOCK_FRAMES
    assert acoustic.longest <= 20 * 16_000
    assert max(decoded) <= 1_000


def test_windows_do_not_pile_up_while_they_wait(tmp_path: Path) -> None:
    """What eight more minutes of audio add to the peak is their text, not their samples and logits."""
    peaks = []
    for minutes in (1, 9):
        path = tmp_path / f"{minutes}.wav"
        spoken(babble(240 * minutes), path)
        acoustic = Heard()
        acoustic.pool_seconds = 40.0  # as with several workers: windows are collected before they are run
        tracemalloc.start()
        try:
            (found,) = run([path], acoustic)
            peaks.append((found.duration_s, tracemalloc.get_traced_memory()[1]))
        finally:
            tracemalloc.stop()
    (short_s, low), (long_s, high) = peaks
    assert long_s - short_s > 400
    assert high - low < (long_s - short_s) * 16_000 * 4 / 4, "a quarter of the audio as float32"


@pytest.fixture
def odd(tmp_path: Path, noises: list[Path]) -> Path:
    """A folder of what people have in folders: the good ones say something, the others must be named."""
    folder = tmp_path / "odd"
    (folder / "deep").mkdir(parents=True)
    good = noises[1].read_bytes()
    (folder / "deep/good.wav").write_bytes(good)
    (folder / "wrong_suffix.mp3").write_bytes(good)
    soundfile.write(folder / "clipped.ogg", np.sign(np.sin(np.arange(16_000) / 20)), 16_000)
    soundfile.write(folder / "one_sample.wav", np.ones(1), 44_100)
    soundfile.write(folder / "silent.flac", np.zeros(16_000 * 50), 16_000)
    soundfile.write(
        folder / "bad_nan.wav", np.array([0, np.nan] * 9_000, np.float32), 16_000, subtype="FLOAT"
    )
    soundfile.write(folder / "bad_zero.wav", np.zeros(0), 16_000)
    (folder / "bad_cut.wav").write_bytes(good[: len(good) // 2])
    (folder / "bad_empty.wav").write_bytes(b"")
    (folder / "bad_text.wav").write_text("no audio")
    (folder / "bad_format.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "._good.wav").write_bytes(b"of another system, not looked at")
    return folder


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
        assert bool(found.warnings) is warned


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


def test_a_folder_without_a_recogniser_is_named(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.int8\.onnx or config\.json"):
        load_acoustic(tmp_path, None, 60.0, use_search=True)
    with pytest.raises(ModelError, match="no recogniser for onnx"):
        load_acoustic(checkpoint, "onnx", 60.0, use_search=True)


def test_a_published_version_holds_both(checkpoint: Path, shipped: Path, tmp_path: Path) -> None:
    version = shutil.copytree(shipped, tmp_path / "version")
    shutil.copytree(checkpoint, version / "checkpoint")
    assert isinstance(load_acoustic(version, None, 60.0, use_search=True), OnnxAcoustic)
    assert isinstance(load_acoustic(version, "torch", 60.0, use_search=True), TorchAcoustic)


def malgil(*arguments: object, standard_input: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "asr", "transcribe", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=standard_input,
        capture_output=True,
        timeout=120,
    )


def test_the_command_prints_the_good_and_names_the_bad(odd: Path, shipped: Path) -> None:
    ended = malgil(
        odd, "-", "--model", shipped, "--format", "json", standard_input=(odd / "deep/good.wav").read_bytes()
    )
    rows = {Path(row["path"]).stem: row for row in json.loads(ended.stdout)}
    message = ended.stderr.decode()
    assert ended.returncode == 2 and "Traceback" not in message
    assert len(rows) == 6 and rows["-"]["text"] == rows["good"]["text"] != ""
    assert rows["good"]["model_sha256"] == json.loads((shipped / "malgil.json").read_text())["sha256"]
    assert [row["path"] for row in rows.values() if row["warnings"]] == [
        str(odd / name) for name in ("clipped.ogg", "one_sample.wav")
    ]
    assert rows["clipped"]["clipped_share"] > MOST and rows["clipped"]["warnings"][0] in message
    assert "6 of 12 recordings have no text" in message and "bad_nan.wav holds NaN" in message


def test_the_command_writes_a_file_per_recording(
    odd: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asr_commands, "log_to_console", lambda: None)
    out = tmp_path / "out"
    given = [odd / "deep", odd / "clipped.ogg", "--model", checkpoint, "--decoder", "greedy", "--out", out]
    ended = CliRunner().invoke(app, ["asr", "transcribe", *map(str, given), "--format", "textgrid"])
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["clipped.TextGrid", "good.TextGrid"]
    assert (out / "good.TextGrid").read_text().startswith('File type = "ooTextFile"')


def test_subtitles_of_several_recordings_need_a_folder(odd: Path) -> None:
    ended = malgil(odd, "--format", "srt")
    assert ended.returncode == 2 and b"--out DIR" in ended.stderr and not ended.stdout


def test_one_bad_file_of_many_stops_nothing(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for index in range(50):
        soundfile.write(folder / f"{index:02d}.wav", rng.uniform(-0.3, 0.3, 3_200 + 160 * index), 16_000)
    (folder / "23.wav").write_bytes((folder / "23.wav").read_bytes()[:2_000])
    ended = CliRunner().invoke(app, ["asr", "transcribe", str(folder), "--model", str(shipped)])
    assert ended.exit_code == DataError.exit_code
    told = [line.partition("\t")[0] for line in ended.stdout.splitlines()]
    assert told == [str(folder / f"{index:02d}.wav") for index in range(50) if index != 23]
    assert "23.wav is truncated" in ended.stderr and "1 of 50 recordings" in ended.stderr


def test_transcribing_by_onnx_never_imports_torch(shipped: Path, noises: list[Path]) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app;"
        "ended = CliRunner().invoke(app, ['asr', 'transcribe', *sys.argv[1:]]);"
        "print(ended.exit_code, [m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(noises[0]), "--model", str(shipped)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.strip() == "0 []"


def test_several_workers_say_what_one_says(
    checkpoint: Path, shipped: Path, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for threads in ("1", "3"):
        monkeypatch.setenv("MALGIL_THREADS", threads)
        for acoustic in (TorchAcoustic(checkpoint, 2.0), OnnxAcoustic(shipped)):
            assert acoustic.workers.count == int(threads)
            said.append([(r.path, r.text, r.characters) for r in run(noises, acoustic, 3.0, 1.0)])
    assert said[:2] == said[2:] and any(text for _, text, _ in said[0])


def test_group_norm_is_never_padded(encoder: Path, tmp_path: Path) -> None:
    """wav2vec2-base in a Hub-style folder: a batch of several lengths says what each says alone."""
    config = load_encoder(str(encoder), Vocabulary.of_jamo(), seed=4).config
    config.update({"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False})
    model = fresh_model(config, seed=5)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    save_checkpoint(tmp_path, model, Vocabulary.of_jamo(), {}, normalise=False)
    (tmp_path / "malgil.json").unlink()  # a folder from the Hub has none
    rng = np.random.default_rng(3)
    clips = [rng.uniform(-0.5, 0.5, length).astype(np.float32) for length in (9_000, 16_000, 9_000)]
    acoustic = load_acoustic(tmp_path, None, 60.0, use_search=True)
    together = acoustic.logits(clips)
    for clip, found in zip(clips, together, strict=True):
        (alone,) = acoustic.logits([clip])
        assert found.shape == alone.shape and np.abs(found - alone).max() < 1e-4
