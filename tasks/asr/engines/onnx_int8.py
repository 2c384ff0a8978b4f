"""An fp32 ONNX graph to one whose matrix products are int8: weights once, inputs as they come. No command.

Weights are signed bytes from -64 to 64. On x86 CPUs without VNNI, ONNX Runtime sums two products of input and
weight in 16 bits, which saturate: with all 8 bits of a weight the same file says something else than on other
CPUs; with 7 the sum is at most 2 * 255 * 64 = 32,640. Their zero points are not all 0, for which ARM's SME
has a kernel that quantises inputs in another way (docs/design/same-numbers-on-every-cpu.md).

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
    """Dynamic int8 of MatMul and Gemm, weights in 7 bits per channel, but of the feature encoder's."""
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
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            extra_options={"WeightSymmetric": False},
        )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The quantiser warns of every tensor that is not a constant weight, which is what is asked for."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
