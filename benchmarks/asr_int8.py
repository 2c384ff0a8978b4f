"""The forms that an int8 file of the recogniser can take: error, exactness, speed and size, side by side.

    python benchmarks/asr_int8.py                        # into benchmarks/results/asr_int8.json
    python benchmarks/asr_int8.py --checkpoint FOLDER --prepared FOLDER --rounds 11

Every form is made from one fp32 graph. Its logits on test utterances are compared with torch's, and with the
built-in model the likely forms' also with their own when the integer products are computed in int32: where
the two differ, the engine's products are not exact on this CPU. The forms take turns, so that what else the
machine does hits all alike.
The built-in speech is synthetic; the encoder of the size of XLSR-large has random weights and one layer.
"""

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import onnx
import onnxruntime
import torch
from asr_from_scratch import commit, cpu_name
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from tasks.artifacts import read_json, write_json
from tasks.asr.checkpoints.checkpoint import Checkpoint, Vocabulary, load_checkpoint
from tasks.asr.export import to_onnx
from tasks.asr.prepared import read_prepared
from tasks.asr.training.augment import normalised
from tasks.cpu import describe_cpu

EXACT_OPTION = "session.x64quantprecision"
NAME = "input_values"
Clips = list[np.ndarray[Any, Any]]
Form = Callable[[Path, Path, list[str], Clips], None]
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}


def main() -> int:
    """Measures both models, prints the tables and writes the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepared", type=Path, default=Path("build/prepared/asr"))
    parser.add_argument("--checkpoint", type=Path, default=Path("build/asr/checkpoint"))
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/asr_int8.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, store = read_prepared(arguments.prepared).split("test_sentences")
    clips = [normalised(store.clip(index)) for index in range(arguments.clips)]
    trained = load_checkpoint(arguments.checkpoint)
    about = {
        "built-in": {
            "parameters": sum(weight.numel() for weight in trained.model.parameters()),
            "encoder": trained.about.get("encoder"),
            "steps": _steps(arguments.checkpoint),
        },
        "XLSR-large, one layer": {"random_weights": True, **LARGE},
    }
    circumstances = {
        "synthetic": True,
        "rounds": arguments.rounds,
        "commit": commit(),
        "machine": {"cpu": cpu_name(), "instruction_sets": describe_cpu(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("torch", "onnx", "onnxruntime", "numpy")},
    }
    found = {}
    for name, checkpoint, own in (
        ("built-in", trained, clips),
        ("XLSR-large, one layer", large(), [np.concatenate(clips[:3])[:96_000]]),
    ):
        builtin = name == "built-in"
        rows = measure(checkpoint, own, arguments.rounds, FORMS if builtin else LIKELY, exactness=builtin)
        print(f"{name}\n{table(rows)}", flush=True)
        found[name] = {
            "about": about[name],
            "clips": len(own),
            "audio_s": round(sum(map(len, own)) / 16_000, 1),
            "load_average_1_min": os.getloadavg()[0],
            "forms": rows,
        }
        write_json(arguments.out, circumstances | {"models": found})
    return 0


def large() -> Checkpoint:
    """One layer of the size of XLSR-large, with random weights."""
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=80, **LARGE)).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=0.1)
    return Checkpoint(model, Vocabulary.of_jamo(), True, {})


def measure(
    checkpoint: Checkpoint, clips: Clips, rounds: int, forms: dict[str, Form], *, exactness: bool
) -> dict[str, dict[str, Any]]:
    """Form to its figures; times are medians over `rounds` for all clips, and ratios are to `s8`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        to_onnx(checkpoint, folder / "fp32.onnx", 17)
        prepared = folder / "prepared.onnx"
        quant_pre_process(str(folder / "fp32.onnx"), str(prepared), skip_symbolic_shape=True)
        front = [n.name for n in onnx.load(str(prepared)).graph.node if "/feature_extractor/" in n.name]
        with torch.inference_mode():
            expected = [checkpoint.model(torch.from_numpy(clip[None])).logits[0].numpy() for clip in clips]
        files = {"fp32": folder / "fp32.onnx"}
        for name, form in forms.items():
            files[name] = folder / f"{len(files)}.onnx"
            form(prepared, files[name], front, clips)
        rows: dict[str, dict[str, Any]] = {}
        for name, path in files.items():
            rows[name] = {"bytes": path.stat().st_size, **errors(logits(path, clips), expected)}
            if exactness and name in LIKELY:
                integers = folder / "integers.onnx"
                onnx.save(in_int32(onnx.load(str(path))), str(integers))
                exact = logits(integers, clips)
                rows[name]["exact_integers"] = errors(exact, expected)
                rows[name]["from_exact_integers"] = errors(logits(path, clips), exact)
        option = {EXACT_OPTION: "1"}
        rows["s8, option"] = {"bytes": files["s8"].stat().st_size} | errors(
            logits(files["s8"], clips, option), expected
        )
        times(files, rows, clips, rounds)
    return rows


def times(files: dict[str, Path], rows: dict[str, dict[str, Any]], clips: Clips, rounds: int) -> None:
    """Adds wall and CPU seconds, at one and two threads, to every row."""
    for threads in (1, 2):
        runs = {name: (path, {}) for name, path in files.items()}
        runs["s8, option"] = (files["s8"], {EXACT_OPTION: "1"})
        sessions = {name: session(path, option, threads) for name, (path, option) in runs.items()}
        wall: dict[str, list[float]] = {name: [] for name in sessions}
        cpu: dict[str, list[float]] = {name: [] for name in sessions}
        for index in range(rounds + 1):
            for name, one in sessions.items():
                began, used = time.perf_counter(), _cpu_s()
                for clip in clips:
                    one.run(None, {NAME: clip[None]})
                if index:  # the first warms up
                    wall[name].append(time.perf_counter() - began)
                    cpu[name].append(_cpu_s() - used)
        for name, row in rows.items():
            row[f"threads_{threads}"] = {
                "wall_s": round(statistics.median(wall[name]), 4),
                "cpu_s": round(statistics.median(cpu[name]), 4),
                "wall_of_s8": round(statistics.median(wall[name]) / statistics.median(wall["s8"]), 3),
                "cpu_of_s8": round(statistics.median(cpu[name]) / statistics.median(cpu["s8"]), 3),
            }


def session(path: Path, option: dict[str, str], threads: int) -> onnxruntime.InferenceSession:
    """As `OnnxRecogniser` makes it, but for the option that is under test."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # CPU seconds are of work
    options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    for key, value in option.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits(path: Path, clips: Clips, option: dict[str, str] | None = None) -> Clips:
    """Logits (frames, vocabulary) of every clip."""
    one = session(path, option or {}, 1)
    return [one.run(None, {NAME: clip[None]})[0][0] for clip in clips]


def errors(found: Clips, expected: Clips) -> dict[str, float]:
    """Largest and rms difference as a share of the spread of `expected` (its standard deviation), and the
    share of frames whose best symbol is another.
    """
    difference = np.concatenate(found).astype(np.float64) - np.concatenate(expected)
    spread = np.concatenate(expected).astype(np.float64).std()
    best = [np.concatenate(x).argmax(1) for x in (found, expected)]
    return {
        "largest": float(np.abs(difference).max() / spread),
        "rms": float(np.sqrt(np.square(difference).mean()) / spread),
        "other_best_symbol": float((best[0] != best[1]).mean()),
    }


def in_int32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every MatMulInteger as a product of int32: exact on every CPU, and slow."""
    nodes = []
    for node in model.graph.node:
        if node.op_type != "MatMulInteger":
            nodes.append(node)
            continue
        wide = [f"{node.name}_{index}_int32" for index in range(4)]
        nodes += [
            onnx.helper.make_node("Cast", [source], [name], to=onnx.TensorProto.INT32)
            for source, name in zip(node.input, wide, strict=True)
        ]
        nodes += [
            onnx.helper.make_node("Sub", [wide[0], wide[2]], [f"{wide[0]}_centred"]),
            onnx.helper.make_node("Sub", [wide[1], wide[3]], [f"{wide[1]}_centred"]),
            onnx.helper.make_node("MatMul", [f"{wide[0]}_centred", f"{wide[1]}_centred"], node.output),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _dynamic(
    source: Path,
    target: Path,
    front: list[str],
    clips: Clips,
    *,
    kind: QuantType,
    per_channel: bool = True,
    reduce_range: bool = False,
    symmetric: bool | None = None,
) -> None:
    quantize_dynamic(
        str(source),
        str(target),
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=per_channel,
        reduce_range=reduce_range,
        weight_type=kind,
        nodes_to_exclude=front,
        extra_options={} if symmetric is None else {"WeightSymmetric": symmetric},
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, clips: Clips) -> None:
        self.left = list(clips)

    def get_next(self) -> dict[str, Any] | None:
        return {NAME: self.left.pop()[None]} if self.left else None


def _static(source: Path, target: Path, front: list[str], clips: Clips) -> None:
    quantize_static(
        str(source),
        str(target),
        _Reader(clips),  # the clips that are judged: the best that a calibration can do
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        nodes_to_exclude=front,
        extra_options={"MatMulConstBOnly": True},
    )


FORMS: dict[str, Form] = {
    "s8": partial(_dynamic, kind=QuantType.QInt8),
    "s7": partial(_dynamic, kind=QuantType.QInt8, reduce_range=True),
    "s7, asymmetric": partial(_dynamic, kind=QuantType.QInt8, reduce_range=True, symmetric=False),
    "s7, per tensor": partial(_dynamic, kind=QuantType.QInt8, reduce_range=True, per_channel=False),
    "u8": partial(_dynamic, kind=QuantType.QUInt8),
    "u8, symmetric": partial(_dynamic, kind=QuantType.QUInt8, symmetric=True),
    "u8, per tensor": partial(_dynamic, kind=QuantType.QUInt8, per_channel=False),
    "static u8": _static,
}
LIKELY = {name: FORMS[name] for name in ("s8", "s7", "s7, asymmetric", "u8")}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown; errors in percent of the spread."""
    lines = [
        "| form | largest | rms | not exact by | MB | 1 thread, s | CPU of s8 | 2 threads, s | CPU of s8 |"
    ]
    lines.append("|" + "---|" * 9)
    for name, row in rows.items():
        inexact = row.get("from_exact_integers", {}).get("largest")
        one, two = row["threads_1"], row["threads_2"]
        cells = [
            f"{100 * row['largest']:.2f}%",
            f"{100 * row['rms']:.2f}%",
            "–" if inexact is None else f"{100 * inexact:.2f}%",
            f"{row['bytes'] / 1e6:.2f}",
            f"{one['wall_s']:.3f}",
            f"{one['cpu_of_s8']:.2f}",
            f"{two['wall_s']:.3f}",
            f"{two['cpu_of_s8']:.2f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _steps(checkpoint: Path) -> int | None:
    result = checkpoint.parent / "training/result.json"
    return int(read_json(result)["steps"]) if result.is_file() else None


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
