"""What one ONNX file says on several CPUs: run on each with `save`, then anywhere with `compare`.

    python benchmarks/asr_int8_cpus.py save model.int8.onnx input.npy avx2.npz
    python benchmarks/asr_int8_cpus.py compare avx2.npz other.npz ... --out figures.json

`input.npy` is float32 at 16 kHz, normalised if the model wants it, shape (samples,). Needs NumPy and ONNX
Runtime alone, so that it runs on a CPU that is emulated (QEMU: `qemu-aarch64 -cpu neoverse-n1 python3 ...`).
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np


def main() -> int:
    """Saves or compares; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    save = modes.add_parser("save")
    save.add_argument("model", type=Path)
    save.add_argument("input", type=Path)
    save.add_argument("target", type=Path)
    compare = modes.add_parser("compare")
    compare.add_argument("logits", type=Path, nargs="+")
    compare.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.mode == "save":
        save_logits(arguments.model, arguments.input, arguments.target)
        return 0
    text = json.dumps(compared(arguments.logits), indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    return 0


def save_logits(model: Path, source: Path, target: Path) -> None:
    """The logits (frames, vocabulary) of a file in a plain session, and the version that made them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input_values": np.load(source)[None]})
    np.savez(target, logits=logits[0], onnxruntime=onnxruntime.__version__, machine=platform.machine())


def compared(files: list[Path]) -> dict[str, Any]:
    """File to its difference from the first, as a share of that one's standard deviation."""
    first = np.load(files[0])
    spread = first["logits"].std(dtype=np.float64)
    found = {}
    for path in files:
        one = np.load(path)
        difference = one["logits"].astype(np.float64) - first["logits"]
        found[path.stem] = {
            "machine": str(one["machine"]),
            "onnxruntime": str(one["onnxruntime"]),
            "largest": float(np.abs(difference).max() / spread),
            "rms": float(np.sqrt(np.square(difference).mean()) / spread),
            "other_best_symbol": float((one["logits"].argmax(1) != first["logits"].argmax(1)).mean()),
        }
    return found


if __name__ == "__main__":
    raise SystemExit(main())
