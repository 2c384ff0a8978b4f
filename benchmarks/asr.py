"""The recogniser against its peers, side by side in one run: the figures of docs/reference/benchmarks.md.

    python benchmarks/asr.py                      # everything, into benchmarks/results/asr.json
    python benchmarks/asr.py --part transcription # one part; the others' last results stay in the file
    python benchmarks/asr.py --quick              # small shapes: shows that it runs, not how fast
    python benchmarks/asr.py --geometry xlsr-large    # 317 million weights: benchmarks/asr_real_size.py

Ours and the peer take turns, and the ratio is that of the medians: what else the machine does then hits
both alike. The files are cut from the built-in corpus, so the speech is synthetic.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import soundfile
from asr_from_scratch import commit, cpu_name

from tasks.artifacts import read_json, write_json
from tasks.asr.checkpoints.checkpoint import thread_count, use_threads
from tasks.asr.engines.acoustic import Acoustic, load_acoustic
from tasks.asr.prepared import read_prepared
from tasks.asr.recordings.sources import Source
from tasks.asr.transcribe import transcribe
from tasks.data.audio import SAMPLE_RATE_HZ
from tasks.data.transcripts.jamo import visible

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
SHORTEST_S, LONGEST_S = 0.7, 20.0
BATCH_SIZES = (1, 2, 4, 8, 16)


def main() -> int:
    """Runs what is asked for, prints a table and writes the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--geometry", choices=("mini", "xlsr-large"), default="mini")
    parser.add_argument("--prepare", action="store_true", help="the real size only, without measuring it")
    parser.add_argument("--rounds", type=int, default=3, help="of the real size, with all threads")
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="of the small model")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--prepared", type=Path, default=Path("build/prepared/asr"))
    parser.add_argument("--checkpoint", type=Path, default=Path("build/asr/checkpoint"))
    parser.add_argument("--shipped", type=Path, default=Path("build/asr/shipped"))
    parser.add_argument("--streaming", type=Path, default=Path("build/asr/streaming"))
    parser.add_argument("--encoder", default="models/malgil-xlsr-mini")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.geometry == "xlsr-large":
        from asr_real_size import measure

        return measure(arguments)
    return _parts(arguments)


def _parts(arguments: argparse.Namespace) -> int:
    """The parts asked for, of the model that a run has made."""
    arguments.out = arguments.out or Path("benchmarks/results/asr.json")
    use_threads()
    parts: dict[str, Any] = read_json(arguments.out)["parts"] if arguments.out.is_file() else {}
    for name in arguments.part or list(PARTS):
        rows = PARTS[name](arguments)
        parts[name] = {"rows": rows, **_circumstances(arguments.quick)}
        print(table(rows), flush=True)
        write_json(arguments.out, {"synthetic": True, "parts": parts})
    return 0


def _circumstances(quick: bool) -> dict[str, Any]:
    packages = ("torch", "transformers", "onnxruntime", "numpy", "soundfile", "flashlight-text")
    return {
        "quick": quick,
        "commit": commit(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": thread_count()},
        "load_average_1_min": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = "| figure | ours | peer | ratio | unit |\n|---|---|---|---|---|\n"

    def shown(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)

    names = ("figure", "ours", "peer", "ratio", "unit")
    return head + "".join("| " + " | ".join(shown(row[name]) for name in names) + " |\n" for row in rows)


def transcription(arguments: argparse.Namespace) -> list[Row]:
    """Files on disk to greedy text, against the pipeline of transformers at its best batch size, with as many
    threads as there are cores and with one.
    """
    count = 4 if arguments.quick else 40
    with tempfile.TemporaryDirectory() as scratch:
        files = long_tailed(arguments.prepared, Path(scratch), count)
        return [
            row
            for threads in dict.fromkeys((os.cpu_count() or 1, 1))
            for row in _transcription_rows(arguments, files, threads)
        ]


def _transcription_rows(arguments: argparse.Namespace, files: Sequence[Path], threads: int) -> list[Row]:
    os.environ["MALGIL_THREADS"] = str(threads)
    rounds, sizes = (1, BATCH_SIZES[:2]) if arguments.quick else (5, BATCH_SIZES)
    peers = pipeline_runs(load_pipeline(arguments.checkpoint), files, sizes)
    ours = {
        name: our_run(load_acoustic(model, backend, batch_seconds=10.0, use_search=False), files)
        for name, backend, model in (
            ("torch", "torch", arguments.checkpoint),
            ("onnx int8", "onnx", arguments.shipped),
        )
    }
    runs = {**peers, **ours}
    alone = next(iter(peers))
    texts = {name: run() for name, run in runs.items()}  # also warms up
    took = interleaved(runs, rounds)
    best = min(peers, key=lambda name: took[name])
    seconds = sum(soundfile.info(path).duration for path in files)
    detail = {
        "files": len(files),
        "audio_s": round(seconds, 1),
        "rounds": rounds,
        "threads": threads,
        "peer": best,
        # what the pipeline says in a batch depends on the batch: it reads padding as speech
        f"texts as of {alone}": {
            name: sum(a == b for a, b in zip(said, texts[alone], strict=True)) for name, said in texts.items()
        },
        "median_s": {name: round(took[name], 3) for name in runs},
        "load_average_1_min": os.getloadavg()[0],
    }
    plural = "s" * (threads > 1)
    return [
        _row(
            f"batch transcription, {name}, {threads} thread{plural}",
            seconds / took[name],
            seconds / took[best],
            detail,
        )
        for name in ours
    ]


def _row(figure: str, ours: float, peer: float, detail: dict[str, Any]) -> Row:
    """A figure whose ratio is ours over the peer's, in seconds of audio per second."""
    return {
        "figure": figure,
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "s of audio per s",
        "detail": detail,
    }


def long_tailed(prepared: Path, folder: Path, count: int, seed: int = 0) -> list[Path]:
    """WAV files of 0.7 to 20 s, evenly spread over the logarithm of their length, in a random order."""
    rows, store = read_prepared(prepared).split("train")
    rng = np.random.default_rng(seed)
    lengths = np.exp(np.linspace(np.log(SHORTEST_S), np.log(LONGEST_S), count)) * SAMPLE_RATE_HZ
    paths = []
    for number, length in enumerate(rng.permutation(lengths).astype(int).tolist()):
        clips: list[Any] = []
        while sum(map(len, clips)) < length:
            clips.append(store.clip(int(rng.integers(len(rows)))))
        paths.append(folder / f"{number:03d}.wav")
        soundfile.write(paths[-1], np.concatenate(clips)[:length], SAMPLE_RATE_HZ)
    return paths


def load_pipeline(checkpoint: Path) -> Any:
    """`transformers.pipeline` over a checkpoint."""
    from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer, pipeline

    return pipeline(
        "automatic-speech-recognition",
        model=AutoModelForCTC.from_pretrained(checkpoint),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
        feature_extractor=AutoFeatureExtractor.from_pretrained(checkpoint),  # type: ignore[no-untyped-call]
    )


def pipeline_runs(
    pipe: Any, files: Sequence[Path], sizes: Sequence[int]
) -> dict[str, Callable[[], list[str]]]:
    """The pipeline at every batch size, with the files as they come and sorted by length.

    It reads paths through ffmpeg alone, which starts a process per file; so it is given samples, read by
    libsndfile, which is faster.
    """
    unknown = pipe.tokenizer.unk_token

    def run(size: int, by_length: bool) -> list[str]:
        use_threads()  # ours, in the round before, has left torch with one for each of its workers
        order = sorted(files, key=lambda path: path.stat().st_size) if by_length else files
        samples = (
            {"raw": soundfile.read(path, dtype="float32")[0], "sampling_rate": SAMPLE_RATE_HZ}
            for path in order
        )
        # it leaves double spaces and jamo that are not composed, and writes out the unknown symbol
        composed = (visible(said["text"].replace(unknown, "")) for said in pipe(samples, batch_size=size))
        texts = [" ".join(text.split()) for text in composed]
        said_by = dict(zip(order, texts, strict=True))
        return [said_by[path] for path in files]

    return {
        f"pipeline, batch size {size}{', sorted' * by_length}": lambda size=size, by_length=by_length: run(
            size, by_length
        )
        for size in sizes
        for by_length in ((False, True) if size > 1 else (False,))
    }


def our_run(acoustic: Acoustic, files: Sequence[Path]) -> Callable[[], list[str]]:
    """`malgil asr transcribe --decoder greedy` without the start of its process, as for the peer."""
    sources = [Source(str(path), path, Path(path.stem)) for path in files]

    def run() -> list[str]:
        return [found.text for found in transcribe(sources, acoustic)]  # type: ignore[union-attr]

    return run


def interleaved(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median wall time of each, in seconds; every round runs all, one after the other."""
    took: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            took[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in took.items()}


def memory(arguments: argparse.Namespace) -> list[Row]:
    """Peak resident memory of the command on a short and a long recording (60 and 5 minutes)."""
    short_s, long_s = (30, 60) if arguments.quick else (300, 3600)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for backend, model in (("onnx", arguments.shipped), ("torch", arguments.checkpoint)):
            peaks = {
                seconds: _peak_mb(_recording(arguments.prepared, Path(scratch), seconds), backend, model)
                for seconds in (short_s, long_s)
            }
            rows.append(
                {
                    "figure": f"memory of {long_s // 60} minutes over that of {short_s / 60:g}, {backend}",
                    "ours": peaks[long_s],
                    "peer": peaks[short_s],
                    "ratio": peaks[long_s] / peaks[short_s],
                    "unit": "MB, peak resident",
                    "detail": {"command": f"malgil asr transcribe --backend {backend} --decoder greedy"},
                }
            )
    return rows


def _recording(prepared: Path, folder: Path, seconds: int) -> Path:
    """One long file of many utterances; written piece by piece."""
    path = folder / f"{seconds}.flac"
    if path.is_file():
        return path
    rows, store = read_prepared(prepared).split("train")
    rng, left = np.random.default_rng(seconds), seconds * SAMPLE_RATE_HZ
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1) as file:
        while left > 0:
            clip = store.clip(int(rng.integers(len(rows))))[:left]
            file.write(clip)
            left -= len(clip)
    return path


def _peak_mb(path: Path, backend: str, model: Path) -> float:
    """Peak resident memory of `malgil asr transcribe`, in MB, by a process that starts only it."""
    measured = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-m", "flows.cli", "asr", "transcribe", str(path), "--decoder", "greedy"]
    command += ["--backend", backend, "--model", str(model.resolve())]
    ended = subprocess.run(
        [sys.executable, "-c", measured, *command],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return int(ended.stdout) * (1024 if sys.platform != "darwin" else 1) / 2**20


def finetuning(arguments: argparse.Namespace) -> list[Row]:
    """See benchmarks/asr_finetuning.py."""
    from asr_finetuning import measure

    rows: list[Row] = measure(arguments.encoder, arguments.prepared, arguments.quick)
    return rows


def streaming(arguments: argparse.Namespace) -> list[Row]:
    """See benchmarks/asr_streaming.py."""
    from asr_streaming import measure

    rows: list[Row] = measure(arguments.checkpoint, arguments.streaming, arguments.prepared, arguments.quick)
    return rows


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "transcription": transcription,
    "memory": memory,
    "finetuning": finetuning,
    "streaming": streaming,
}


if __name__ == "__main__":
    raise SystemExit(main())
