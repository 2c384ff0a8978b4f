"""The recogniser at the size of XLSR-large against its peers: the figures of docs/reference/benchmarks.md.

    python benchmarks/asr.py --geometry xlsr-large              # benchmarks/results/asr_xlsr_large.json
    python benchmarks/asr.py --geometry xlsr-large --prepare    # makes models and files, measures nothing
    python benchmarks/asr.py --geometry xlsr-large --quick      # a tiny model: that it runs, not how fast
    pip install -r benchmarks/requirements.txt                  # CTranslate2; without it its rows are missing

The shape is that of facebook/wav2vec2-large-xlsr-53 under the project's jamo; the weights are random, because
time does not depend on them, so what it says means nothing. The ten files are synthetic speech. Every system
runs in a process of its own, one after the other (benchmarks/asr_systems.py); which of its settings is the
fastest is tried with all threads, and with one thread that setting runs alone.

Models and files are kept in build/benchmarks/ (4 GB) for as long as code and versions are the same.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import soundfile
from asr_arithmetic import arithmetic
from asr_from_scratch import commit, cpu_name
from asr_systems import reference
from transformers import Wav2Vec2Config

from tasks.artifacts import new_folder, read_json, write_json
from tasks.asr.checkpoints.checkpoint import JAMO, Vocabulary, fresh_model, save_checkpoint, use_threads
from tasks.asr.export import export
from tasks.data.audio import SAMPLE_RATE_HZ
from tasks.data.espeak import Synthesiser
from tasks.params import load

ROOT = Path(__file__).parents[1]
RESULTS = {
    False: Path("benchmarks/results/asr_xlsr_large.json"),
    True: Path("build/benchmarks/asr_tiny.json"),
}
PACKAGES = ("torch", "transformers", "onnxruntime", "ctranslate2", "numpy", "soundfile", "espeakng-loader")
SEED = 0
BATCH_SIZES = (1, 2, 4)
SENTENCES = (
    ("거실 불 좀 켜 줘", "ko+f1"),
    ("내일 아침 일곱 시에 알람 맞춰 줘", "ko+m1"),
    ("에어컨 온도를 이십육 도로 올려 줄래", "ko+f2"),
    ("조용한 음악 틀고 커튼은 닫아 줘", "ko+m3"),
)
# Which GEMM CTranslate2 takes: of itself MKL's on Intel's processors and oneDNN's on all others. The one that
# is likely to be the faster comes first.
GEMMS = {"float32": {"MKL": "1", "oneDNN": "0"}, "int8": {"oneDNN": "0", "MKL": "1"}}


class Geometry(NamedTuple):
    """Shape of the model, and of the files in seconds."""

    config: dict[str, Any]
    shortest_s: float
    longest_s: float
    files: int


COMMON = {
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
XLSR_LARGE = Geometry(COMMON | LARGE, 1.0, 15.0, 10)
QUICK = Geometry(COMMON | TINY | {"conv_dim": (16,) * 7}, 0.3, 1.0, 4)


@dataclass(frozen=True)
class Prepared:
    """Where everything lies that is measured."""

    folder: Path

    @property
    def files(self) -> list[str]:
        """Paths, in the order in which they come: a random one."""
        return [str(path) for path in sorted((self.folder / "files").glob("*.wav"))]

    def job(self, system: "System", threads: int) -> dict[str, Any]:
        """What a process is told, apart from which variants and how often."""
        by_length = sorted(self.files, key=lambda name: Path(name).stat().st_size)
        return {
            **system.job,
            "model": str(self.folder / system.model),
            "checkpoint": str(self.folder / "checkpoint"),
            "precision": system.precision,
            "files": self.files,
            "probes": [by_length[0], by_length[len(by_length) // 2]],
            "reference": str(self.folder / "reference.npz"),
            "texts": str(self.folder / "texts.json"),
            "threads": threads,
        }


@dataclass(frozen=True)
class System:
    """One row of the table: what runs, and beside which others it stands."""

    name: str
    precision: str
    model: str
    job: dict[str, Any]
    environment: dict[str, str]
    ours: bool = False


def systems() -> list[System]:
    """Ours and the peers, in the order in which they run."""
    found = [
        System("ours, torch", "fp32", "checkpoint", {"system": "ours", "backend": "torch"}, {}, True),
        System("ours, ONNX int8", "int8", "shipped", {"system": "ours", "backend": "onnx"}, {}, True),
        System(
            "transformers.pipeline",
            "fp32",
            "checkpoint",
            {"system": "pipeline", "batch_sizes": BATCH_SIZES},
            {},
        ),
    ]
    for precision, compute_type in (("fp32", "float32"), ("int8", "int8")):
        found += [
            System(
                f"CTranslate2 {compute_type}, {gemm}",
                precision,
                f"ctranslate2-{compute_type}",
                {"system": "ctranslate2", "compute_type": compute_type},
                {"CT2_USE_MKL": use_mkl},
            )
            for gemm, use_mkl in GEMMS[compute_type].items()
        ]
    return found


def measure(arguments: argparse.Namespace) -> int:
    """Prepares, runs every system and writes the JSON; returns the exit code."""
    began = time.perf_counter()
    geometry = QUICK if arguments.quick else XLSR_LARGE
    place = prepare(geometry, ROOT / "build/benchmarks" / ("tiny" if arguments.quick else "xlsr-large"))
    print(f"prepared after {time.perf_counter() - began:.0f} s", flush=True)
    if arguments.prepare:
        return 0
    found: dict[str, Any] = {
        "what": "files on disk to greedy text, models loaded; random weights, synthetic speech",
        "synthetic": True,
        "quick": arguments.quick,
        "commit": commit(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "geometry": geometry.config,
        "parameters": read_json(place.folder / "about.json")["parameters"],
        "int8_form": read_json(place.folder / "shipped/malgil.json")["quantisation"],
        "audio_s": round(sum(soundfile.info(name).duration for name in place.files), 1),
        "files": len(place.files),
        "load_average_1_min": os.getloadavg()[0],
        "arithmetic": arithmetic(
            Wav2Vec2Config.from_pretrained(place.folder / "checkpoint"),
            [soundfile.info(name).frames for name in place.files],
        ),
        "rows": [],
    }
    out = arguments.out or ROOT / RESULTS[arguments.quick]
    chosen: dict[str, str] = {}
    most = 1 if arguments.quick else min(2, os.cpu_count() or 1)
    for threads in dict.fromkeys((most, 1)):
        rounds = arguments.rounds if threads == most else 1
        for system in _due(list(found["rows"])):
            found["rows"].append(_row(place, system, threads, rounds, chosen, found["rows"]))
        found["ratios"] = ratios(found["rows"])
        write_json(out, found | {"took_s": round(time.perf_counter() - began)})
    print(table(found), flush=True)
    return 0


def _due(rows: list[dict[str, Any]]) -> list[System]:
    """All systems; once they have run, the faster of those that differ in CTranslate2's GEMM alone."""
    took = {row["system"]: row["wall_s"] for row in rows if "wall_s" in row}
    best: dict[tuple[str, str], System] = {}
    for system in systems():
        family = (system.job["system"], system.precision)
        known = took.get(system.name)
        if known is not None and (family not in best or known < took[best[family].name]):
            best[family] = system
    return list(best.values()) if rows else systems()


def _row(
    place: Prepared,
    system: System,
    threads: int,
    rounds: int,
    chosen: dict[str, str],
    before: list[dict[str, Any]],
) -> dict[str, Any]:
    """What one system took, after the rows `before`; `chosen` remembers its fastest variant."""
    row = {"system": system.name, "ours": system.ours, "precision": system.precision, "threads": threads}
    if system.job["system"] == "ctranslate2" and find_spec("ctranslate2") is None:
        missing = "CTranslate2 is not installed: pip install -r benchmarks/requirements.txt"
        print(f"{system.name}: {missing}", flush=True)
        return row | {"missing": missing}
    job = place.job(system, threads) | {"rounds": rounds, "variants": []}
    if system.name in chosen and job["system"] == "pipeline":
        job["variants"] = [chosen[system.name]]
    kind = system.name.partition(", ")[0]
    twins = [r for r in before if r["system"].startswith(f"{kind}, ") and r["threads"] == threads]
    if job["system"] == "ctranslate2":
        job["to_beat_s"] = min((r["wall_s"] for r in twins if "wall_s" in r), default=None)
    began = time.perf_counter()
    found = run(job, system.environment)
    chosen[system.name] = found.get("variant", "")
    said = found.get("refused") or f"{found['wall_s']:.2f} s wall, {found['cpu_s']:.2f} s of processors"
    print(f"{system.name}, {threads} thread(s): {said} ({time.perf_counter() - began:.0f} s)", flush=True)
    return row | found | {"load_average_1_min": os.getloadavg()[0]}


def run(job: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Runs a job in a process of its own."""
    threads = str(job["threads"])
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "job.json", Path(scratch) / "result.json"
        write_json(asked, job)
        ended = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks/asr_systems.py"), str(asked), str(answered)],
            capture_output=True,
            text=True,
            env={**os.environ, "MALGIL_THREADS": threads, "OMP_NUM_THREADS": threads, **environment},
        )
        if ended.returncode:
            raise SystemExit(f"{job['system']} ended with {ended.returncode}:\n{ended.stderr}")
        found: dict[str, Any] = read_json(answered)
    return found


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each of ours against every peer of its precision, by wall time and by time of processors.

    `fastest` marks the peer that took the least wall time.
    """
    found = []
    for own in (row for row in rows if row["ours"] and "wall_s" in row):
        peers = [
            row
            for row in rows
            if not row["ours"]
            and "wall_s" in row
            and (row["precision"], row["threads"]) == (own["precision"], own["threads"])
        ]
        least = min((row["wall_s"] for row in peers), default=0.0)
        found += [
            {
                "ours": own["system"],
                "peer": row["system"],
                "threads": own["threads"],
                "wall": row["wall_s"] / own["wall_s"],
                "cpu": row["cpu_s"] / own["cpu_s"],
                "fastest": row["wall_s"] == least,
            }
            for row in peers
        ]
    return found


def table(found: dict[str, Any]) -> str:
    """Rows and ratios as Markdown."""
    lines = [
        "| threads | system | as | wall, s | processors, s | difference | same texts |",
        "|---" * 7 + "|",
    ]
    for row in found["rows"]:
        if "wall_s" not in row:
            why = row.get("missing") or row["refused"]
            lines.append(f"| {row['threads']} | {row['system']} | {why} | – | – | – | – |")
            continue
        same = f"{row['same_texts']} of {found['files']}"
        lines.append(
            f"| {row['threads']} | {row['system']} | {row['variant']} "
            f"| {row['wall_s']:.2f} | {row['cpu_s']:.2f} | {row['relative_difference']:.2g} | {same} |"
        )
    lines += ["", "| threads | ours | peer | wall | processors |", "|---" * 5 + "|"]
    lines += [
        f"| {r['threads']} | {r['ours']} | {r['peer']}{' (fastest)' * r['fastest']} "
        f"| {r['wall']:.2f}x | {r['cpu']:.2f}x |"
        for r in found["ratios"]
    ]
    return "\n".join(lines) + "\n"


def prepare(geometry: Geometry, folder: Path) -> Prepared:
    """Model, exports and files in `folder`, made again unless this code and these versions made them."""
    place, key = Prepared(folder), _key(geometry)
    about = folder / "about.json"
    if about.is_file() and read_json(about)["key"] == key:
        return place
    os.environ["MALGIL_THREADS"] = str(os.cpu_count() or 1)
    use_threads()
    with new_folder(folder) as made:
        speak(geometry, made / "files")
        checkpoint = made / "checkpoint"
        checkpoint.mkdir()
        vocabulary = Vocabulary.of_symbols(JAMO)
        config = Wav2Vec2Config(
            vocab_size=len(vocabulary.symbols), pad_token_id=vocabulary.blank_id, **geometry.config
        )
        model = fresh_model(config, SEED).eval()
        parameters = sum(weight.numel() for weight in model.parameters())
        save_checkpoint(checkpoint, model, vocabulary, {"kind": "random weights"})
        del model
        export(load(ROOT / "params.yaml").export_asr, checkpoint=checkpoint, out_dir=made / "shipped")
        (made / "shipped/model.fp32.onnx").unlink()
        if find_spec("ctranslate2"):
            convert(checkpoint, made)
        files = sorted((made / "files").glob("*.wav"))
        logits, texts = reference(checkpoint, files)
        named = {str(folder / "files" / Path(name).name): rows for name, rows in logits.items()}
        with (made / "reference.npz").open("wb") as file:
            np.savez(file, **named)
        write_json(made / "texts.json", texts)
        write_json(made / "about.json", {"key": key, "parameters": parameters})
    return place


def speak(geometry: Geometry, folder: Path) -> None:
    """WAV files of synthetic speech, evenly spread over the logarithm of their length, in a random order."""
    folder.mkdir()
    rng = np.random.default_rng(SEED)
    lengths = np.geomspace(geometry.shortest_s, geometry.longest_s, geometry.files) * SAMPLE_RATE_HZ
    with Synthesiser() as synthesiser:
        clips = [synthesiser.speak(text, voice, rate_wpm=200) for text, voice in SENTENCES]
    for number, length in enumerate(rng.permutation(lengths).astype(int).tolist()):
        parts = [clips[(number + index) % len(clips)] for index in range(1 + length // min(map(len, clips)))]
        soundfile.write(folder / f"{number:02d}.wav", np.concatenate(parts)[:length], SAMPLE_RATE_HZ)


def convert(checkpoint: Path, folder: Path) -> None:
    """By CTranslate2's own converter, in both precisions."""
    from ctranslate2.converters import TransformersConverter

    for compute_type, quantization in (("float32", None), ("int8", "int8")):
        TransformersConverter(str(checkpoint)).convert(
            str(folder / f"ctranslate2-{compute_type}"), quantization=quantization
        )


def _key(geometry: Geometry) -> str:
    """Digest of what the models and files are made of."""
    code = [*sorted((ROOT / "tasks/asr").rglob("*.py")), ROOT / "params.yaml", Path(__file__)]
    made_of = [path.read_bytes() for path in code]
    made_of.append(json.dumps([geometry, [_version(name) for name in PACKAGES]]).encode())
    return hashlib.sha256(b"\0".join(made_of)).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
