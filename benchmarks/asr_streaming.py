"""Streaming against whole utterances, and caches against windows: exactness, error rates and work.

    python benchmarks/asr_streaming.py --model build/asr/checkpoint \
        --streaming-model build/streaming/checkpoint --out benchmarks/results/asr_streaming.json

`--model` is a stock checkpoint, `--streaming-model` one fine-tuned with train_asr.chunk_frames. One thread,
one process; CPU time, not wall time. The speech of the built-in corpus is synthetic: so are the error rates.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.artifacts import write_json
from tasks.asr.checkpoints.checkpoint import Checkpoint, load_checkpoint
from tasks.asr.decoding import language_model
from tasks.asr.decoding.decode import BeamSearch, greedy
from tasks.asr.decoding.word_search import make_search
from tasks.asr.engines.torch_model import recognise
from tasks.asr.prepared import PreparedSpeech, read_prepared
from tasks.asr.quality.metrics import cer
from tasks.asr.streaming.attention import hear_chunks
from tasks.asr.streaming.cached import CachedEncoder
from tasks.asr.streaming.recogniser import StreamEncoder, StreamingRecognizer
from tasks.asr.streaming.windowed import WindowedEncoder, WindowShape
from tasks.progress import Progress

SPLITS = ("test_sentences", "test_voices")
FEED = 1_600  # samples, 0.1 s
STREAM_S = 60
REPEATS = {"cached": 9, "windowed": 3}  # streams of a minute; the cached one is cheap
SAME_LATENCY = WindowShape(left_s=4.0, hop_s=0.32, right_s=0.30)  # 0.64 s, as the cached stream


@dataclass(frozen=True)
class _Model:
    checkpoint: Checkpoint
    search: BeamSearch | None


def measure(model: Path, streaming_model: Path, prepared: Path, quick: bool) -> list[dict[str, Any]]:
    """The figures of streaming, a row each: figure, asked, ours, peer, ratio, unit, detail.

    `ratio` of an error rate is the difference in points (hundredths). `quick` hears 30 utterances of each
    test split instead of all.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = read_prepared(prepared)
        stock, streaming = _load(model), _load(streaming_model)
        at_most = 30 if quick else 10**6
        minute = _minute(data)
        rows = [_exactness(streaming, data, minute, at_most)]
        heard = {
            "stock": _whole(stock, data, at_most),
            "streaming": _whole(streaming, data, at_most),
            "cached": _streamed(streaming, CachedEncoder, data, at_most),
            "windowed": _streamed(stock, WindowedEncoder, data, at_most),
        }
        latency = {
            "cached": CachedEncoder(streaming.checkpoint).latency_s,
            "windowed": WindowedEncoder(stock.checkpoint).latency_s,
        }
        rows += _rates("cached", "streaming", 0.5, heard, latency)
        rows += _rates("windowed", "stock", 1.0, heard, latency)
        return rows + _work(stock, streaming, minute)
    finally:
        torch.set_num_threads(threads)


def _load(folder: Path) -> _Model:
    checkpoint = load_checkpoint(folder)
    arpa = language_model.read(folder)
    return _Model(checkpoint, make_search(arpa, checkpoint.vocabulary) if arpa else None)


def _minute(data: PreparedSpeech) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Joined utterances of unseen voices, one minute long."""
    _, store = data.split(SPLITS[1])
    clips: list[Any] = []
    while sum(map(len, clips)) < STREAM_S * 16_000:
        clips.append(store.clip(len(clips) % len(store.lengths)))
    return np.concatenate(clips)[: STREAM_S * 16_000]


def _clips(data: PreparedSpeech, split: str, at_most: int) -> tuple[list[str], list[Any]]:
    rows, store = data.split(split)
    count = min(at_most, len(rows))
    # spread over the split, for its rows come voice by voice
    chosen = np.linspace(0, len(rows) - 1, count).astype(int)
    return rows["text"].iloc[chosen].tolist(), [store.clip(int(index)) for index in chosen]


def _feed(encoder: StreamEncoder, audio: Any) -> Any:
    """Logits of a stream fed 0.1 s at a time."""
    found = [logits for at in range(0, len(audio), FEED) for logits in encoder.accept(audio[at : at + FEED])]
    return np.concatenate([*found, *encoder.finish()])


def _exactness(model: _Model, data: PreparedSpeech, minute: Any, at_most: int) -> dict[str, Any]:
    """The cached stream against the masked pass over the same audio."""
    audio = [minute, *_clips(data, SPLITS[0], min(at_most, 60))[1]]
    worst, other_texts = 0.0, 0
    for clip in audio:
        found = _feed(CachedEncoder(model.checkpoint), clip)
        hear_chunks(model.checkpoint.model, True)
        with torch.inference_mode():
            expected = model.checkpoint.model(torch.from_numpy(clip)[None]).logits[0].numpy()
        worst = max(worst, float(np.abs(found - expected).max()))
        vocabulary = model.checkpoint.vocabulary
        other_texts += greedy(found, vocabulary) != greedy(expected, vocabulary)
    return _row(
        "cached stream against its own masked full pass",
        "at most 1e-4, same text",
        worst,
        None,
        None,
        "largest logit difference",
        f"{len(audio)} recordings, one of {STREAM_S} s; {other_texts} with another text",
    )


def _whole(model: _Model, data: PreparedSpeech, at_most: int) -> dict[str, dict[str, float]]:
    """CER of whole utterances, per split: final and greedy."""
    hear_chunks(model.checkpoint.model, False)
    rates = {}
    for split in SPLITS:
        references, clips = _clips(data, split, at_most)
        said = recognise(model.checkpoint, clips, 60.0, model.search)
        rates[split] = {
            "final": cer(references, [s.text for s in said]),
            "greedy": cer(references, [s.greedy for s in said]),
        }
    return rates


def _streamed(
    model: _Model, encoder: Callable[[Checkpoint], StreamEncoder], data: PreparedSpeech, at_most: int
) -> dict[str, dict[str, float]]:
    """The same from streams, one per utterance."""
    rates = {}
    for split in SPLITS:
        references, clips = _clips(data, split, at_most)
        texts: dict[str, list[str]] = {"final": [], "greedy": []}
        with Progress(f"stream {split}", len(clips), "utterances") as progress:
            for clip in clips:
                stream = StreamingRecognizer(
                    encoder(model.checkpoint), model.checkpoint.vocabulary, model.search
                )
                for at in range(0, len(clip), FEED):
                    stream.feed(clip[at : at + FEED])
                final = stream.finish()
                texts["final"].append(final.text)
                texts["greedy"].append(" ".join(segment.greedy for segment in final.segments))
                progress.advance()
        rates[split] = {kind: cer(references, said) for kind, said in texts.items()}
    return rates


def _rates(
    mode: str, peer: str, points: float, heard: dict[str, Any], latency: dict[str, float]
) -> list[dict[str, Any]]:
    rows = []
    for split in SPLITS:
        for kind in ("final", "greedy"):
            ours, theirs = heard[mode][split][kind], heard[peer][split][kind]
            rows.append(
                _row(
                    f"{mode} stream against whole utterances, {split}, {kind} text",
                    f"at most {points} points worse",
                    ours,
                    theirs,
                    100 * (ours - theirs),
                    "CER without spaces; ratio: points worse",
                    f"latency {latency[mode]:.3f} s; the stock checkpoint on whole utterances: "
                    f"{heard['stock'][split][kind]:.4f}; synthetic speech",
                )
            )
    return rows


def _work(stock: _Model, streaming: _Model, minute: Any) -> list[dict[str, Any]]:
    """CPU seconds per second of a stream of a minute, from its tenth second on."""
    cached = _seconds(lambda: CachedEncoder(streaming.checkpoint), minute)
    peers = {
        "windowed at the same latency (0.64 s)": _seconds(
            lambda: WindowedEncoder(stock.checkpoint, SAME_LATENCY), minute
        ),
        "windowed at its own latency (1.98 s)": _seconds(lambda: WindowedEncoder(stock.checkpoint), minute),
    }
    own = float(cached[10:].mean())
    rows = [
        _row(
            f"work of the cached stream against {name}",
            "at most 0.5x" if "same" in name else "–",
            own,
            float(times[10:].mean()),
            own / float(times[10:].mean()),
            "CPU seconds per second of audio",
            f"{STREAM_S} s, seconds 10 to {STREAM_S}, one thread, best of several streams for every second",
        )
        for name, times in peers.items()
    ]
    early, late = float(cached[10:20].mean()), float(cached[-10:].mean())
    slope = float(np.polyfit(np.arange(10, STREAM_S), cached[10:], 1)[0])
    detail = f"slope {1e6 * slope:+.2f} µs per second of stream, {100 * slope * 50 / own:+.1f}% over 50 s"
    return [
        *rows,
        _row(
            f"work of the cached stream, its last 10 s against seconds 10 to 20 of {STREAM_S}",
            "flat",
            late,
            early,
            late / early,
            "CPU seconds per second of audio",
            detail,
        ),
    ]


def _seconds(fresh: Callable[[], StreamEncoder], audio: Any) -> np.ndarray[Any, Any]:
    """CPU seconds for every second of the stream, each the best of several streams."""
    runs = []
    for _ in range(REPEATS[fresh().mode]):
        encoder, times = fresh(), []
        for second in range(0, len(audio), 16_000):
            began = time.process_time()
            for at in range(second, second + 16_000, FEED):
                encoder.accept(audio[at : at + FEED])
            times.append(time.process_time() - began)
        runs.append(times)
    return np.min(np.array(runs), axis=0)


def _row(
    figure: str, asked: str, ours: float, peer: float | None, ratio: float | None, unit: str, detail: str
) -> dict[str, Any]:
    return {
        "figure": figure,
        "asked": asked,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "unit": unit,
        "detail": detail,
    }


def main() -> int:
    """Measures, prints the table and writes it as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("build/asr/checkpoint"))
    parser.add_argument("--streaming-model", type=Path, default=Path("build/streaming/checkpoint"))
    parser.add_argument("--prepared", type=Path, default=Path("build/prepared/asr"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.model, arguments.streaming_model, arguments.prepared, arguments.quick)
    for row in rows:
        numbers = " ".join("–" if row[k] is None else f"{row[k]:.4g}" for k in ("ours", "peer", "ratio"))
        print(f"{row['figure']} | {row['asked']} | {numbers} | {row['unit']} | {row['detail']}")
    if arguments.out:
        packages = ("torch", "transformers", "numpy")
        write_json(
            arguments.out,
            {
                "what": "streaming of the recogniser on the built-in (synthetic) corpus",
                "rows": rows,
                "quick": arguments.quick,
                "machine": {"processor": platform.processor(), "cores": os.cpu_count(), "threads": 1},
                "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
            },
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
