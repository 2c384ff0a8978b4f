"""Recordings that a corpus holds twice, re-encoded, resampled, louder, noisier or cut elsewhere.

    python -m tasks.asr.duplicates --corpus build/corpus --out build/embeddings

No transcript and no language is looked at. First pass: vectors of the pre-trained encoder (statistics pooling
of a low layer over the speech, whitened over the corpus) name a few neighbours for every utterance. Second
pass: the two waveforms are aligned and compared (`tasks.asr.embedding.same_recording`). Only what passes both
is reported, and the validation stage quarantines the copy. A sentence said twice by one voice, or one with a
changed word, is not a copy. Files that cannot be read and those over `max_duration_s` are not compared: what
is wrong with them is for the validation to say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.artifacts import new_folder, write_parquet
from tasks.asr.embed import BATCH_S, Pool
from tasks.asr.embedding.encoder import EncoderLayers, load_encoder_layers
from tasks.asr.embedding.same_recording import Audio, envelope, may_be_same, outline, same_recording
from tasks.asr.embedding.similar import Vectors, close_pairs, whitened
from tasks.asr.training.augment import normalised
from tasks.data.audio import SAMPLE_RATE_HZ, probe, read_audio
from tasks.data.manifest import read_table
from tasks.data.measure import is_inside
from tasks.errors import DataError
from tasks.progress import Progress, track
from tasks.settings import EmbedAsr
from tasks.stage import run_stage

log = logging.getLogger("malgil.duplicates")
_POOL_S = 240.0  # of audio read before the encoder runs, so that its batches pad little
_FRAME = SAMPLE_RATE_HZ // 100
_SMOOTH = 5  # frames of 10 ms over which the level is taken
_SPEECH = 10.0 ** (-20.0 / 10.0)  # of the power of the loud frames; below lies silence, and noise of 20 dB
_MASK = 10.0 ** (-10.0 / 20.0)  # amplitude of the noise laid over every clip, against the clip's own
_OUTLINES = 1_024  # outlines kept in memory, some 50 kB each


def find_duplicates(params: EmbedAsr, *, corpus: Path, out: Path) -> dict[str, int]:
    """Compares every recording of a corpus with its neighbours.

    Args:
        params: the encoder, and how alike is the same.
        corpus: folder of manifest.parquet and the audio files its paths are relative to.
        out: folder that becomes {vectors.parquet, duplicates.parquet}. The second has a row per pair:
            `row` and `other_row` (positions in the manifest, row first), their utterance ids, `cosine` and
            `correlation`.

    Returns:
        Counts: recordings compared, candidates of the first pass, duplicates.

    Raises:
        DataError: the manifest is no Parquet file.
        ModelError: there is no such encoder, or no such layer in it.
    """
    manifest = read_table(corpus / "manifest.parquet")
    if not {"utterance_id", "path"} <= set(manifest.columns):  # for the validation to say, in its report
        manifest = pd.DataFrame({"utterance_id": [], "path": []})
    files = [corpus / path if is_inside(path) else None for path in manifest["path"]]
    encoder = load_encoder_layers(Path(params.model), (params.layer,))
    with Progress("embed", len(files), "files") as progress:
        rows, vectors, envelopes = _vectors(files, encoder, params, progress)
    candidates = close_pairs(whitened(vectors), params.neighbours, params.min_cosine) if rows else []
    paths = [str(path) for path in manifest["path"]]
    ids = [str(name) for name in manifest["utterance_id"]]
    found = []
    read = lru_cache(_OUTLINES)(lambda row: outline(read_audio(corpus / paths[row])))
    for one, other, cosine in track(candidates, "compare", unit="pairs"):
        if not may_be_same(envelopes[one], envelopes[other]):
            continue
        pair = rows[one], rows[other]
        correlation = same_recording(read(pair[0]), read(pair[1]))
        if correlation >= params.min_correlation:
            found.append((*pair, ids[pair[0]], ids[pair[1]], cosine, correlation))
    names = ["row", "other_row", "utterance_id", "other_utterance_id", "cosine", "correlation"]
    kinds = ["int64", "int64", "str", "str", "float64", "float64"]
    with new_folder(out) as folder:
        vectors_of = pd.DataFrame({"utterance_id": [ids[row] for row in rows], "row": rows})
        vectors_of["model_sha256"], vectors_of["layer"] = encoder.sha256, encoder.layers[0]
        vectors_of["pooling"], vectors_of["vector"] = "statistics", list(vectors)
        write_parquet(folder / "vectors.parquet", vectors_of)
        frame = pd.DataFrame(found, columns=names).astype(dict(zip(names, kinds, strict=True)))
        write_parquet(folder / "duplicates.parquet", frame)
    counts = {"compared": len(rows), "candidates": len(candidates), "duplicates": len(found)}
    log.info("%(compared)d recordings, %(candidates)d close pairs, %(duplicates)d duplicates", counts)
    return counts


def spoken(audio: Audio) -> Audio:
    """The clip without the quiet at its ends, so that silence cut or added changes nothing."""
    count = len(audio) // _FRAME
    if count <= _SMOOTH:
        return audio
    power = np.square(audio[: count * _FRAME].reshape(count, _FRAME)).mean(axis=1)
    power = np.convolve(power, np.full(_SMOOTH, 1.0 / _SMOOTH), "same")
    loud = np.flatnonzero(power > _SPEECH * np.quantile(power, 0.95))
    return audio[loud[0] * _FRAME : (loud[-1] + 1) * _FRAME] if len(loud) else audio


def masked(audio: Audio) -> Audio:
    """The clip with white noise 10 dB below it, always the same: beneath it a copy's own noise is lost."""
    return normalised(audio) + _noise(1 << len(audio).bit_length())[: len(audio)]


@lru_cache
def _noise(samples: int) -> Audio:
    """The noise that masks; a shorter one is the start of a longer one, so few are ever drawn."""
    return np.float32(_MASK) * np.random.default_rng(0).standard_normal(samples, np.float32)


def _vectors(
    files: list[Path | None], encoder: EncoderLayers, params: EmbedAsr, progress: Progress
) -> tuple[list[int], Vectors, list[Audio]]:
    """Rows that can be read, their vectors (rows, 2 * hidden) and their envelopes."""
    rows: list[int] = []
    vectors: list[Any] = []
    envelopes: list[Audio] = []
    pool: list[tuple[int, Audio]] = []
    for row, audio in _clips(files, params.max_duration_s, progress):
        pool.append((row, audio))
        envelopes.append(envelope(audio))
        if sum(len(clip) for _, clip in pool) >= _POOL_S * SAMPLE_RATE_HZ:
            vectors += _pooled(pool, encoder)
            rows += [row for row, _ in pool]
            pool = []
    vectors += _pooled(pool, encoder)
    rows += [row for row, _ in pool]
    stacked = np.stack(vectors) if vectors else np.zeros((0, 2 * encoder.hidden), np.float32)
    return rows, stacked, envelopes


def _clips(files: list[Path | None], longest_s: float, progress: Progress) -> Iterator[tuple[int, Audio]]:
    for row, file in enumerate(files):
        progress.advance()
        try:
            if file is None or probe(file).duration_s > longest_s:
                continue
            audio = read_audio(file)
        except (DataError, OSError, ValueError) as error:
            log.debug("not compared: %s", error)
            continue
        if audio.any():
            yield row, spoken(audio)


def _pooled(pool: list[tuple[int, Audio]], encoder: EncoderLayers) -> list[Any]:
    found: list[Any] = [None] * len(pool)
    inputs = [encoder.prepared(masked(clip)) for _, clip in pool]
    field = encoder.grid.field
    inputs = [np.pad(clip, (0, max(0, field - len(clip)))) for clip in inputs]
    for index, (frames,) in encoder.frames(inputs, BATCH_S):
        moments = Pool(encoder.hidden)
        moments.add(frames)
        found[index] = moments.vector(statistics=True)
    return found


if __name__ == "__main__":
    assert __spec__ is not None
    raise SystemExit(
        run_stage(
            __spec__.name,
            "embed_asr",
            find_duplicates,
            inputs={"corpus": Path("build/corpus")},
            outputs={"out": Path("build/embeddings")},
        )
    )
