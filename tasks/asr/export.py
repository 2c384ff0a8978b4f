"""Checkpoint to the file that ships: ONNX in fp32, compared with torch, then int8 weights for MatMul and
Gemm.

    python -m tasks.asr.export

The legacy exporter is used on purpose: the quantiser's preparation fails on the graphs of the new one
(torch 2.13). The convolutions stay fp32, because int8 convolutions are slower on a CPU. The file takes
one utterance, or several of equal length: there is no mask to get wrong. Its metadata hold what is needed
to use it alone.
"""

from __future__ import annotations

import base64
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from tasks.artifacts import digest_folder, new_folder, sha256_file, write_json
from tasks.asr import language_model
from tasks.asr.checkpoint import Checkpoint, load_checkpoint, use_threads, write_vocabulary
from tasks.asr.decode import SearchOptions
from tasks.asr.model import ONNX_NAME
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.errors import ModelError
from tasks.settings import ExportAsr
from tasks.stage import run_stage

log = logging.getLogger("malgil.asr.export")
# Lengths on which the graph is compared with torch: shorter and longer than the traced one, and no round
# number.
_PROBE_SAMPLES = (1_234, 16_000, 77_777)
_TRACED_SAMPLES = 32_000


class _Logits(torch.nn.Module):
    """The model as a function of one tensor: what the ONNX graph computes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_values).logits
        return logits


def export(params: ExportAsr, *, checkpoint: Path, out_dir: Path) -> dict[str, Any]:
    """Writes model.int8.onnx, vocab.json, preprocessor_config.json and malgil.json to `out_dir`.

    Returns the content of malgil.json. Raises `ModelError` when the ONNX graph does not compute what
    torch computes.
    """
    use_threads()
    loaded = load_checkpoint(checkpoint)
    with new_folder(out_dir) as folder, tempfile.TemporaryDirectory() as scratch:
        exact = Path(scratch) / "model.onnx"
        to_onnx(loaded, exact, params.opset)
        difference = largest_difference(loaded, exact)
        if not difference <= params.max_logit_difference:
            raise ModelError(
                f"the ONNX graph differs from torch by {difference:.2g}",
                f"at most {params.max_logit_difference:.2g} is allowed (export_asr.max_logit_difference)",
                "try another export_asr.opset; keep the versions of constraints.txt",
            )
        shipped = folder / ONNX_NAME
        quantise(exact, shipped)
        quantised_difference = largest_difference(loaded, shipped)
        metadata = _metadata(loaded, checkpoint)
        arpa = language_model.read(checkpoint)
        if arpa is not None:
            metadata["search"] = asdict(SearchOptions())
            metadata["language_model"] = base64.b64encode(language_model.pack(arpa)).decode()
        _write_metadata(shipped, metadata)
        write_vocabulary(folder, loaded.vocabulary, loaded.normalise)
        (folder / "tokenizer_config.json").unlink()
        about = {
            **{
                name: value
                for name, value in metadata.items()
                if name not in ("vocabulary", "language_model")
            },
            "decoding": "greedy" if arpa is None else "beam search with the n-gram model in the file",
            "file": ONNX_NAME,
            "sha256": sha256_file(shipped),
            "bytes": shipped.stat().st_size,
            "bytes_fp32": exact.stat().st_size,
            "quantisation": "dynamic int8 weights of MatMul and Gemm; convolutions fp32",
            "largest_logit_difference_fp32": difference,
            "largest_logit_difference_int8": quantised_difference,
        }
        write_json(folder / "malgil.json", about)
    log.info("%s: %d bytes, fp32 differs from torch by %.1e", out_dir / ONNX_NAME, about["bytes"], difference)
    return about


def to_onnx(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    """fp32 graph `input_values` (batch, samples) → `logits` (batch, frames, vocabulary), both lengths
    free.
    """
    model = checkpoint.model
    # The scaled-dot-product path traces its mask decisions into the graph; eager attention has none.
    model.set_attn_implementation("eager")
    example = torch.randn(1, _TRACED_SAMPLES, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # tracer warnings about Python numbers; the comparison below is the check
        torch.onnx.export(
            _Logits(model).eval(),
            (example,),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["input_values"],
            output_names=["logits"],
            dynamic_axes={"input_values": {0: "batch", 1: "samples"}, "logits": {0: "batch", 1: "frames"}},
        )


def quantise(source: Path, target: Path) -> None:
    """Dynamic int8 of MatMul and Gemm weights, per channel."""
    with tempfile.TemporaryDirectory() as scratch, _without_warnings():
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


def largest_difference(checkpoint: Checkpoint, path: Path) -> float:
    """Largest absolute difference of logits between torch and the ONNX file, over several lengths and a
    batch of two.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for batch, samples in ((1 + number, samples) for number, samples in enumerate(_PROBE_SAMPLES)):
        inputs = rng.standard_normal((batch, samples)).astype(np.float32)
        with torch.inference_mode():
            expected = checkpoint.model(torch.from_numpy(inputs)).logits.numpy()
        (found,) = session.run(["logits"], {"input_values": inputs})
        if found.shape != expected.shape:
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The quantiser warns of every tensor that is not a constant weight, which is what is asked for."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _metadata(loaded: Checkpoint, checkpoint: Path) -> dict[str, Any]:
    return {
        "kind": "ctc recogniser, ONNX",
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "do_normalize": loaded.normalise,
        "units": loaded.about.get("units", "as in the vocabulary"),
        "normaliser": loaded.about.get("normaliser", ""),
        "normaliser_steps": loaded.about.get("normaliser_steps", []),
        "blank_id": loaded.vocabulary.blank_id,
        "vocabulary": loaded.vocabulary.ids,
        "training_digest": loaded.about.get("training_digest", ""),
        "checkpoint_digest": digest_folder(checkpoint),
    }


def _write_metadata(path: Path, metadata: dict[str, Any]) -> None:
    graph = onnx.load(str(path))
    text = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in metadata.items()}
    onnx.helper.set_model_props(graph, text)
    onnx.save(graph, str(path))


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "export_asr",
            export,
            inputs={"checkpoint": Path("build/asr/checkpoint")},
            outputs={"out_dir": Path("build/asr/shipped")},
        )
    )
