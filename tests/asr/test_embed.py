"""Vectors of recordings: the same in any batch and by any route, in files that can be read back."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile
from transformers import Wav2Vec2Config
from typer.testing import CliRunner

from flows.cli import app
from tasks.asr.checkpoints.checkpoint import Vocabulary, fresh_model, save_checkpoint
from tasks.asr.embed import Embedded, Pool, embed
from tasks.asr.embedding.encoder import load_encoder_layers
from tasks.asr.recordings.sources import Failure, Source
from tasks.errors import DataError, ModelError

RATE_HZ = 16_000
MINI = Path("models/malgil-xlsr-mini")
TOLERANCE = 2e-4  # of float32 through four layers, values of about 1


@pytest.fixture(scope="module")
def group_norm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder in the shape of wav2vec2-base, small."""
    folder = tmp_path_factory.mktemp("group")
    config = Wav2Vec2Config(
        vocab_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="group",
    )
    vocabulary = Vocabulary.of_symbols(("a", "b", "c", "d", "e"))
    save_checkpoint(folder, fresh_model(config, seed=0), vocabulary, {"kind": "test"})
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(5)
    sources = []
    for number, seconds in enumerate((0.01, 0.6, 1.1, 2.3, 2.3)):
        path = folder / f"{number}.wav"
        tone = np.sin(np.arange(int(seconds * RATE_HZ)) * (0.05 + 0.03 * number))
        soundfile.write(path, 0.2 * tone + 0.02 * rng.standard_normal(len(tone)), RATE_HZ)
        sources.append(Source(path.name, path, Path(path.stem)))
    return sources


@pytest.mark.parametrize("kind", ["layer norm", "group norm"])
def test_a_recording_alone_is_the_recording_in_any_batch(
    kind: str, group_norm: Path, recordings: list[Source]
) -> None:
    folder = MINI if kind == "layer norm" else group_norm
    encoder = load_encoder_layers(folder, None)
    alone = [next(embed([source], encoder, "statistics")) for source in recordings]
    for batch_seconds in (2.5, 60.0):
        together = list(embed(recordings, encoder, "statistics", batch_seconds))
        for one, other in zip(alone, together, strict=True):
            assert isinstance(one, Embedded) and isinstance(other, Embedded)
            assert len(one.vectors) == encoder.depth + 1
            for mine, theirs in zip(one.vectors, other.vectors, strict=True):
                np.testing.assert_allclose(mine, theirs, atol=TOLERANCE)


def test_frames_pool_to_the_vectors_and_the_last_layer_is_the_encoders_output(
    recordings: list[Source],
) -> None:
    encoder = load_encoder_layers(MINI, (0, 2, -1))
    (framed,) = embed(recordings[3:4], encoder, "frames")
    (pooled,) = embed(recordings[3:4], encoder, "statistics")
    assert isinstance(framed, Embedded) and isinstance(pooled, Embedded)
    for frames, vector in zip(framed.vectors, pooled.vectors, strict=True):
        assert len(frames) == len(framed.times_s)
        np.testing.assert_allclose(vector, [*frames.mean(0), *frames.std(0)], atol=1e-5)
    only = load_encoder_layers(MINI, (2,))  # blocks above are cut off
    (alone,) = embed(recordings[3:4], only, "frames")
    assert isinstance(alone, Embedded)
    np.testing.assert_allclose(alone.vectors[0], framed.vectors[1], atol=1e-6)


def test_a_long_recording_goes_in_windows_and_keeps_every_frame(recordings: list[Source]) -> None:
    encoder = load_encoder_layers(MINI, (0,))
    (whole,) = embed(recordings[3:4], encoder, "frames")
    (cut,) = embed(recordings[3:4], encoder, "frames", window_s=0.9)
    assert isinstance(whole, Embedded) and isinstance(cut, Embedded)
    # the convolutional front sees no further than its own field, so that windows change nothing
    np.testing.assert_allclose(whole.vectors[0], cut.vectors[0], atol=1e-3)


def test_moments_merge_exactly() -> None:
    frames = np.random.default_rng(0).normal(100.0, 0.01, (60, 3)).astype(np.float32)
    pool = Pool(3)
    for part in (frames[:7], frames[:0], frames[7:]):
        pool.add(part)
    exact = frames.astype(np.float64)
    np.testing.assert_allclose(pool.vector(True), [*exact.mean(0), *exact.std(0)], rtol=1e-5)


@pytest.mark.parametrize("layer", [5, -2])
def test_a_layer_out_of_range_names_the_range(layer: int) -> None:
    with pytest.raises(ModelError, match=r"layers 0 \(the features after their projection\) to 4"):
        load_encoder_layers(MINI, (layer,))


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
@pytest.mark.parametrize("pooling", ["statistics", "frames"])
def test_files_hold_the_vectors_and_a_bad_file_stops_nothing(
    suffix: str, pooling: str, recordings: list[Source], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    out = tmp_path / f"vectors.{suffix}"
    named = [str(recordings[1].path), str(bad), str(recordings[2].path)]
    options = ["--layer", "0", "--pooling", pooling, "--out", str(out)]
    ended = CliRunner().invoke(app, ["asr", "embed", *named, *options])
    assert ended.exit_code == 2 and "bad.wav cannot be decoded" in ended.output
    encoder = load_encoder_layers(MINI, (0,))
    expected = [r for r in embed([recordings[1], recordings[2]], encoder, pooling) if isinstance(r, Embedded)]  # type: ignore[arg-type]
    if suffix == "parquet":
        table = pq.read_table(out)
        assert set(table["model_sha256"].to_pylist()) == {encoder.sha256}
        vectors = table["vectors" if pooling == "frames" else "vector"].to_pylist()
    else:
        held = np.load(out)
        ends = held["offsets"] if pooling == "frames" else None
        vectors = list(held["vector"]) if ends is None else [held["vectors"][a:b] for a, b in pairwise(ends)]
    assert len(vectors) == 2
    for found, wanted in zip(vectors, expected, strict=True):
        np.testing.assert_allclose(np.array(found), wanted.vectors[0], atol=TOLERANCE)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_a_table_names_recordings_whatever_its_format(
    suffix: str, named: bool, recordings: list[Source], tmp_path: Path
) -> None:
    rows = []
    for number, source in enumerate(recordings[1:3]):
        (tmp_path / f"{number}.wav").write_bytes(source.path.read_bytes())
        rows.append({"file_name": f"{number}.wav"} | ({"id": f"u{number}"} if named else {}))
    rows.append({"file_name": ""} | ({"id": "nothing"} if named else {}))
    table, out = tmp_path / f"rows.{suffix}", tmp_path / "vectors.parquet"
    frame = pd.DataFrame(rows)
    if suffix == "csv":
        frame.to_csv(table, index=False)
    elif suffix == "jsonl":
        frame.to_json(table, orient="records", lines=True)
    else:
        frame.to_parquet(table)
    ended = CliRunner().invoke(
        app, ["asr", "embed", "--manifest", str(table), "--layer", "0", "--out", str(out)]
    )
    assert ended.exit_code == 2 and "row 3" in ended.output and "has no path" in ended.output
    found = pq.read_table(out)
    assert found["path"].to_pylist() == ["0.wav", "1.wav"]
    assert found["utterance_id"].to_pylist() == (["u0", "u1"] if named else ["0.wav", "1.wav"])


def test_a_table_without_paths_names_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("name,text\none,two\n")
    ended = CliRunner().invoke(
        app, ["asr", "embed", "--manifest", str(table), "--out", str(tmp_path / "v.npz")]
    )
    assert isinstance(ended.exception, DataError) and "found name, text" in str(ended.exception)


def test_a_missing_file_of_several_is_a_failure(recordings: list[Source], tmp_path: Path) -> None:
    gone = Source("gone.wav", tmp_path / "gone.wav", Path("gone"))
    encoder = load_encoder_layers(MINI, (0,))
    kinds = [type(result) for result in embed([gone, recordings[1]], encoder, "mean")]
    assert kinds == [Failure, Embedded]


def test_a_table_of_another_program_is_read_and_its_bad_lines_are_failures(
    recordings: list[Source], tmp_path: Path
) -> None:
    """Backslashes, a line without a recording, one of too many fields: two vectors, two failures by line."""
    (tmp_path / "rec").mkdir()
    for number, source in enumerate(recordings[1:3]):
        (tmp_path / f"rec/{number}.wav").write_bytes(source.path.read_bytes())
    table, out = tmp_path / "rows.csv", tmp_path / "vectors.parquet"
    table.write_text("path,text\nrec\\0.wav,하나\nREC/1.WAV,둘\nrec/7.wav,셋\na,b,c\n")
    ended = CliRunner().invoke(
        app, ["asr", "embed", "--manifest", str(table), "--layer", "0", "--out", str(out)]
    )
    assert ended.exit_code == 2
    assert "rec/7.wav (line 4 of rows.csv) is missing" in ended.output
    assert "line 5 of rows.csv cannot be read (it has 3 fields" in ended.output
    assert "1 recordings were found with / for \\" in ended.output
    assert pq.read_table(out)["path"].to_pylist() == ["rec\\0.wav", "REC/1.WAV"]
