"""An fp32 ONNX graph to one whose matrix products are int8: weights once, inputs as they come. No command.

Weights are unsigned bytes. ONNX Runtime sums products of unsigned by signed bytes in pairs of 16 bits on x86
CPUs without VNNI, where they saturate: the same file then says something else than on other CPUs. Products
of unsigned by unsigned bytes are exact everywhere (docs/design/same-numbers-on-every-cpu.md).

Convolutions stay fp32, because int8 ones are slower on a CPU. So do the feature encoder's products, whose
inputs lose more in 8 bits than the encoder's: int8 there took 0.94 of the time, and the greedy CER of the
built-in corpus rose from 10.2% to 10.5% (synthetic, unseen sentences).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

_FRONT = "/feature_extractor/"  # in the names of the feature encoder's nodes


def quantise(source: Path, target: Path) -> None:
    """Dynamic int8 of MatMul and Gemm weights, unsigned, per channel, but of the feature encoder's."""
    with tempfile.TemporaryDirectory() as scratch, _without_warnings():
        prepared = Path(scratch) / "prepared.onnx"
        # the symbolic inference fails on a conformer's shapes, and a quantiser of MatMul does not need them
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        kept = [node.name for node in onnx.load(str(prepared)).graph.node if _FRONT in node.name]
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=kept,
        )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The quantiser warns of every tensor that is not a constant weight, which is what is asked for."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
