"""What the pre-training hears: pseudo-speech made on the spot, users' audio with transcripts, or audio alone.

Whatever the source, the speech becomes one folder in the work folder: `audio.i16` (16 kHz, mono, 16 bit, all
utterances one after the other), `utterances.parquet` (samples, language, symbols to be written) and
`about.json`. It is made once, and again when the settings or the files change. No command.
"""

from __future__ import annotations

import logging
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from tasks.artifacts import digest_json, new_folder, read_json, sha256_file, write_json, write_parquet
from tasks.asr.checkpoints.checkpoint import SPACE
from tasks.asr.pretraining.pseudo import pseudo_sentence
from tasks.asr.recordings.sources import SUFFIXES
from tasks.asr.training.batching import AudioStore
from tasks.data.audio import read_audio, to_int16
from tasks.data.espeak import SAMPLE_RATE_HZ, Synthesiser
from tasks.data.manifest import read_table, require_columns
from tasks.data.voices import PRETRAINING_VARIANTS, UNSEEN_VOICES
from tasks.errors import DataError, SettingsError, explain_os_error
from tasks.freshness import Digests
from tasks.progress import track
from tasks.settings import Pretrain

log = logging.getLogger("malgil.asr.pretrain")
_RATES_WPM = (120, 230)
_PITCHES = (20, 80)
_LONGEST_PSEUDO_S = 7.0
_LONGEST_S = 20.0  # longer utterances with a transcript are left out: the step's memory grows with them
_PIECE_S = 12.0  # audio without a transcript is cut into pieces of at most this
_SHORTEST_S = 0.5
_FEWEST = 8  # utterances: below, nothing could be held out
_HELD = "not heard: rows of a test split"


@dataclass(frozen=True)
class PretrainingSpeech:
    """Utterances in a random order that the seed fixes: their audio, and the symbols of each (empty lists
    without transcripts). `about` goes into the provenance; `digest` names the speech.
    """

    store: AudioStore
    symbols: list[list[str]]
    about: dict[str, Any]
    digest: str


def read_speech(params: Pretrain, folder: Path) -> PretrainingSpeech:
    """The speech of these settings, from `folder` or made there first.

    Raises `SettingsError` (a source of users' audio without `pretrain.corpus`), `ArtifactError` (it does not
    exist) and `DataError` (no manifest, columns missing, too few usable utterances).
    """
    key = speech_key(params, folder.parent)
    if not (folder / "key.json").is_file() or read_json(folder / "key.json") != key:
        with new_folder(folder) as temporary:
            _make(params, temporary)
            write_json(temporary / "key.json", key)
    rows = pd.read_parquet(folder / "utterances.parquet")
    lengths = rows["samples"].to_numpy(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    flat = np.memmap(folder / "audio.i16", dtype=np.int16, mode="r")
    symbols = [list(row) for row in rows["symbols"]]
    return PretrainingSpeech(
        AudioStore(flat, offsets, lengths), symbols, read_json(folder / "about.json"), key
    )


def symbols_of(transcript: str) -> list[str]:
    """The characters to be written for a transcript: casefolded, decomposed (NFD), single spaces as the
    space symbol, control and format characters left out.
    """
    text = unicodedata.normalize("NFD", transcript.casefold())
    kept = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf") or c.isspace())
    return [SPACE if c == " " else c for c in " ".join(kept.replace(SPACE, " ").split())]


def speech_key(params: Pretrain, work_dir: Path) -> str:
    """Names the speech of these settings: of a corpus its table and the content of every file it names.

    Args:
        work_dir: where the digests of files are kept, so that audio is read once for them.
    """
    if params.source == "espeak":
        return digest_json([params.languages, params.seed, params.utterances, PRETRAINING_VARIANTS])
    digests = Digests(work_dir / "speech.digests.json")
    named = digests.of_speech(_corpus(params))
    digests.save()
    return digest_json([params.source, params.seed, named])


def _make(params: Pretrain, folder: Path) -> None:
    left_out: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    with (folder / "audio.i16").open("wb") as stream:
        if params.source == "espeak":
            about = _render(params, stream, rows)
        else:
            about = _read(params, stream, rows, left_out)
    if len(rows) < _FEWEST:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none was left out"
        raise DataError(
            f"pretrain has {len(rows)} usable utterances ({reasons})",
            f"at least {_FEWEST} are needed",
            "add audio, or raise pretrain.utterances",
        )
    for reason, count in left_out.items():
        log.warning("%d utterances left out: %s", count, reason)
    frame = pd.DataFrame(rows)
    write_parquet(folder / "utterances.parquet", frame)
    about |= {
        "utterances": len(rows),
        "hours": round(float(frame["samples"].sum()) / SAMPLE_RATE_HZ / 3600, 4),
        "languages": sorted(set(frame["language"]) - {""}),
        "audio_sha256": sha256_file(folder / "audio.i16"),
    }
    if left_out:
        about["left_out"] = dict(left_out)
    write_json(folder / "about.json", about)


def _render(params: Pretrain, stream: IO[bytes], rows: list[dict[str, Any]]) -> dict[str, Any]:
    rng = random.Random(params.seed)
    heard = set()
    with Synthesiser() as synthesiser:
        for number in track(range(params.utterances), "render pseudo-speech", unit="utterances"):
            language = params.languages[number % len(params.languages)]
            variant = rng.choice(PRETRAINING_VARIANTS)
            text = pseudo_sentence(language, rng)
            rate, pitch = rng.randint(*_RATES_WPM), rng.randint(*_PITCHES)
            words = synthesiser.phonemes(text, language)
            ipa = [c for word in words for symbol in word for c in unicodedata.normalize("NFD", symbol)]
            audio = synthesiser.speak(text, f"{language}+{variant}", rate_wpm=rate, pitch=pitch)
            if not ipa or len(audio) > _LONGEST_PSEUDO_S * SAMPLE_RATE_HZ:
                continue
            (audio * 32767).astype(np.int16).tofile(stream)
            heard.add(variant)
            rows.append({"language": language, "symbols": ipa, "samples": len(audio)})
    return {
        "synthetic": "pseudo-words rendered by espeak-ng; no recording, no text of anybody, no Korean",
        "variants": sorted(heard),
        "variants_never_used": [voice.partition("+")[2] for voice in UNSEEN_VOICES],
    }


def _read(
    params: Pretrain, stream: IO[bytes], rows: list[dict[str, Any]], left_out: Counter[str]
) -> dict[str, Any]:
    """Users' audio; what cannot be used is counted by its reason, never a silent loss."""
    corpus = _corpus(params)
    listed = _listed(params, corpus, left_out)
    order = np.random.default_rng(params.seed).permutation(len(listed))
    for index in track(order, "read audio", unit="files"):
        path, language, transcript = listed[index]
        symbols = symbols_of(transcript)
        if params.source == "manifest" and not symbols:
            left_out["without a transcript"] += 1
            continue
        try:
            audio = to_int16(read_audio(path))
        except DataError as error:
            log.warning("left out: %s", error)
            left_out["unreadable"] += 1
            continue
        for piece in _pieces(audio, cut=params.source == "audio"):
            if len(piece) < _SHORTEST_S * SAMPLE_RATE_HZ:
                left_out[f"shorter than {_SHORTEST_S:g} s"] += 1
            elif len(piece) > _LONGEST_S * SAMPLE_RATE_HZ:
                left_out[f"longer than {_LONGEST_S:g} s"] += 1
            elif not np.ptp(piece):
                left_out["silent"] += 1
            else:
                piece.tofile(stream)
                rows.append({"language": language, "symbols": symbols, "samples": len(piece)})
    about = {"corpus": corpus.name, "files": len(listed)}
    return about | ({"manifest_sha256": sha256_file(corpus)} if corpus.is_file() else {})


def _listed(params: Pretrain, corpus: Path, left_out: Counter[str]) -> list[tuple[Path, str, str]]:
    """File, language and transcript ("" where not given) of everything that may be heard."""
    if corpus.is_dir():
        return [(path, "", "") for path in _audio_below(corpus)]
    table = _manifest(params, corpus)
    if "split" in table:
        tested = table["split"].astype(str).str.startswith("test")
        if tested.any():
            left_out[_HELD] = int(tested.sum())
        table = table[~tested]
    texts = table["transcript"].fillna("").astype(str) if params.source == "manifest" else [""] * len(table)
    languages = table["language"].fillna("").astype(str) if "language" in table else [""] * len(table)
    return [
        (_path_of(corpus, path), language, text)
        for path, language, text in zip(table["path"], languages, texts, strict=True)
    ]


def _manifest(params: Pretrain, corpus: Path) -> pd.DataFrame:
    table = read_table(corpus)
    require_columns(table, ("path", "transcript") if params.source == "manifest" else ("path",), corpus)
    return table


def _corpus(params: Pretrain) -> Path:
    corpus = Path(params.corpus)
    if not params.corpus:
        problem = f"pretrain.corpus is empty, and pretrain.source is {params.source}"
        raise SettingsError("params.yaml", [problem], "name a Parquet manifest (audio: or a folder) there")
    if not corpus.exists():
        raise explain_os_error(FileNotFoundError(2, "missing", params.corpus))
    if corpus.is_dir() and params.source == "manifest":
        problem = f"pretrain.corpus = {params.corpus!r} is a folder: transcripts come from a Parquet manifest"
        raise SettingsError("params.yaml", [problem], "name the manifest, or set pretrain.source to audio")
    return corpus


def _path_of(manifest: Path, path: Any) -> Path:
    return manifest.parent / str(path)


def _audio_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _pieces(audio: np.ndarray[Any, np.dtype[np.int16]], cut: bool) -> Iterator[np.ndarray[Any, Any]]:
    """The recording itself, or pieces of equal length of at most 12 s."""
    count = -(-len(audio) // int(_PIECE_S * SAMPLE_RATE_HZ)) if cut else 1
    yield from np.array_split(audio, max(1, count))
