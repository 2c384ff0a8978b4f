"""Checkpoint to ONNX: an exact fp32 file, and the one that serves, with int8 weights for MatMul and Gemm.

    python -m tasks.asr.export

Both are compared with torch on every export, within bounds from params.yaml. The legacy exporter is used
on purpose: the quantiser's preparation fails on the graphs of the new one (torch 2.13). The graph is that
of `tasks.asr.engines.onnx_form`, and `tasks.asr.engines.onnx_int8` says what is int8. A file takes one
utterance, or several of equal length: there is no mask to get wrong. Its metadata hold what is needed to use
it alone.
"""

from __future__ import annotations

import base64
import copy
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch

from tasks.artifacts import digest_folder, new_folder, sha256_file, write_json
from tasks.asr.checkpoints.checkpoint import Checkpoint, load_checkpoint
from tasks.asr.checkpoints.vocabulary import TOKENIZER, write_vocabulary
from tasks.asr.decoding import language_model
from tasks.asr.decoding.decode import SearchOptions
from tasks.asr.decoding.word_search import WordSearchOptions, unit_of
from tasks.asr.engines.onnx_form import for_onnx
from tasks.asr.engines.onnx_int8 import quantise
from tasks.asr.engines.onnx_model import FP32_NAME, ONNX_NAME
from tasks.asr.threads import thread_count, use_threads
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.errors import ModelError
from tasks.settings import ExportAsr
from tasks.stage import run_stage

log = logging.getLogger("malgil.asr.export")
# Lengths on which the graph is compared with torch: shorter and longer than the traced one, and no round
# number.
_PROBE_SAMPLES = (1_234, 16_000, 77_777)
_TRACED_SAMPLES = 32_000
_MOST_BYTES = 2_000_000_000  # of a Protobuf message, with a little room for the graph


class _Logits(torch.nn.Module):
    """The model as a function of one tensor: what the ONNX graph computes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_values).logits
        return logits


class Difference(NamedTuple):
    """Logits of an ONNX file against those of torch.

    Attributes:
        largest: absolute, over everything that was tried.
        relative: root of the mean square, over that of torch's logits around their mean.
    """

    largest: float
    relative: float


def export(params: ExportAsr, *, checkpoint: Path, out_dir: Path) -> dict[str, Any]:
    """Writes both ONNX files, vocab.json, preprocessor_config.json and malgil.json to `out_dir`.

    Returns the content of malgil.json. Raises `ModelError` when an ONNX graph does not compute what torch
    computes, or the model is too large for one.
    """
    use_threads()
    loaded = load_checkpoint(checkpoint)
    _check_size(loaded)
    metadata = _metadata(loaded, checkpoint)
    with new_folder(out_dir) as folder:
        exact, shipped = folder / FP32_NAME, folder / ONNX_NAME
        to_onnx(loaded, exact, params.opset)
        difference = compare(loaded, exact)
        if not difference.largest <= params.max_logit_difference:
            raise _differs("fp32", difference.largest, "max_logit_difference", params.max_logit_difference)
        quantise(exact, shipped)
        quantised = compare(loaded, shipped)
        bound = params.max_relative_difference_int8
        if not quantised.relative <= bound:
            raise _differs("int8", quantised.relative, "max_relative_difference_int8", bound)
        for path in (exact, shipped):
            _write_metadata(path, metadata)
        write_vocabulary(folder, loaded.vocabulary, loaded.normalise)
        (folder / TOKENIZER).unlink()
        about = _about(metadata, exact, shipped, difference, quantised)
        write_json(folder / "malgil.json", about)
    log.info(
        "%s: %d bytes, fp32 differs from torch by %.1e at most, int8 by %.1f%% of the spread",
        out_dir / ONNX_NAME,
        about["bytes"],
        difference.largest,
        100 * quantised.relative,
    )
    return about


def _about(
    metadata: dict[str, Any], exact: Path, shipped: Path, difference: Difference, quantised: Difference
) -> dict[str, Any]:
    """The content of malgil.json: `file` and `sha256` are those of the file that is gated and serves."""
    return {
        **{k: v for k, v in metadata.items() if k not in ("vocabulary", "language_model")},
        "decoding": "beam search with the n-gram model in the file" if "search" in metadata else "greedy",
        "file": ONNX_NAME,
        "sha256": sha256_file(shipped),
        "bytes": shipped.stat().st_size,
        "file_fp32": FP32_NAME,
        "sha256_fp32": sha256_file(exact),
        "bytes_fp32": exact.stat().st_size,
        "quantisation": "dynamic int8 of MatMul and Gemm, weights in 7 bits; the rest fp32",
        "largest_logit_difference_fp32": difference.largest,
        "largest_logit_difference_int8": quantised.largest,
        "relative_logit_difference_int8": quantised.relative,
    }


def to_onnx(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    """fp32 graph `input_values` (batch, samples) → `logits` (batch, frames, vocabulary), both lengths
    free.
    """
    model = for_onnx(copy.deepcopy(checkpoint.model))
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


def compare(checkpoint: Checkpoint, path: Path) -> Difference:
    """The ONNX file against torch, over several lengths and batches; infinite where shapes differ."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst, squares, spread = 0.0, 0.0, 0.0
    for batch, samples in enumerate(_PROBE_SAMPLES, 1):
        inputs = rng.standard_normal((batch, samples)).astype(np.float32)
        with torch.inference_mode():
            expected = checkpoint.model(torch.from_numpy(inputs)).logits.numpy()
        (found,) = session.run(["logits"], {"input_values": inputs})
        if found.shape != expected.shape:
            return Difference(float("inf"), float("inf"))
        worst = max(worst, float(np.abs(found - expected).max()))
        squares += float(np.square(found - expected, dtype=np.float64).sum())
        spread += float(np.square(expected - expected.mean(), dtype=np.float64).sum())
    return Difference(worst, (squares / max(spread, 1e-12)) ** 0.5)


def _differs(kind: str, found: float, key: str, bound: float) -> ModelError:
    return ModelError(
        f"the {kind} ONNX graph differs from torch by {found:.2g}",
        f"at most {bound:.2g} is allowed (export_asr.{key})",
        "try another export_asr.opset; keep the versions of constraints.txt",
    )


def _check_size(checkpoint: Checkpoint) -> None:
    parameters = sum(weight.numel() for weight in checkpoint.model.parameters())
    if parameters * 4 > _MOST_BYTES:
        raise ModelError(
            f"the model has {parameters:,} parameters",
            "an ONNX file holds at most 2 GB, which is 500 million in fp32",
            "serve the checkpoint itself (`malgil asr transcribe --backend torch`), or train a smaller one",
        )


def _metadata(loaded: Checkpoint, checkpoint: Path) -> dict[str, Any]:
    metadata = {
        "kind": "ctc recogniser, ONNX",
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "do_normalize": loaded.normalise,
        "units": loaded.about.get("units", "as in the vocabulary"),
        "normaliser": loaded.about.get("normaliser", ""),
        "normaliser_steps": loaded.about.get("normaliser_steps", []),
        "blank_id": loaded.vocabulary.blank_id,
        "vocabulary": loaded.vocabulary.ids,
        "symbol_names": asdict(loaded.vocabulary.names),
        "encoder": loaded.about.get("encoder", ""),
        "encoder_weights": loaded.about.get("encoder_weights", {}),
        "training_digest": loaded.about.get("training_digest", ""),
        "checkpoint_digest": digest_folder(checkpoint),
    }
    arpa = language_model.read(checkpoint)
    if arpa is not None:
        unit = unit_of(arpa, loaded.vocabulary)
        metadata["language_model_unit"] = unit
        metadata["search"] = asdict(WordSearchOptions() if unit == "words" else SearchOptions())
        metadata["language_model"] = base64.b64encode(language_model.pack(arpa)).decode()
    return metadata


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
