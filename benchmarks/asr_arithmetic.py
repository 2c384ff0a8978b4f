"""The arithmetic of a wav2vec2-style recogniser: products of a recording, and how fast a core multiplies. No
command: benchmarks/asr_real_size.py sets what was measured beside it.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from asr_systems import cpu_seconds

from tasks.params import load

ROOT = Path(__file__).parents[1]


def arithmetic(config: Any, recordings: Sequence[int]) -> dict[str, Any]:
    """What recordings (samples of each) cost in products, and how fast one core of this machine multiplies.

    Together the least that anyone takes who multiplies with these libraries, before a norm, an activation or
    a file is read.
    """
    parts: dict[str, float] = {}
    for samples in recordings:
        for part, flop in products(config, samples).items():
            parts[part] = parts.get(part, 0.0) + flop / 1e9
    size, wide = config.hidden_size, config.intermediate_size
    fp32, int8 = _fp32_rate(500, size, wide), _int8_rate(500, size, wide)
    return {
        "gflop": parts,
        "fp32_gflop_per_s_one_core": fp32,
        "int8_gflop_per_s_one_core": int8,
        "least_fp32_s_of_processors": sum(parts.values()) / fp32,
        # attention, feature encoder and positional convolution stay fp32, here as there
        "least_int8_s_of_processors": parts["matrices"] / int8
        + (sum(parts.values()) - parts["matrices"]) / fp32,
    }


def products(config: Any, samples: int) -> dict[str, float]:
    """Multiplications and additions of one recording's products, by part of the model."""
    steps, channels, front = samples, 1, 0.0
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        steps = (steps - kernel) // stride + 1
        front += 2.0 * steps * kernel * channels * width
        channels = width
    hidden, layers, kernel = config.hidden_size, config.num_hidden_layers, config.num_conv_pos_embeddings
    per_group = hidden // config.num_conv_pos_embedding_groups
    per_layer = 4 * hidden * hidden + 2 * hidden * config.intermediate_size
    return {
        "feature encoder": front,
        "positions": 2.0 * (steps + 1 - kernel % 2) * kernel * per_group * hidden,
        "attention": 4.0 * layers * steps * steps * hidden,
        "matrices": 2.0 * steps * (channels * hidden + layers * per_layer + hidden * config.vocab_size),
    }


def _fp32_rate(rows: int, inputs: int, outputs: int) -> float:
    """GFLOP/s of one core in torch's product of the feed-forward's shape, at its best."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    states, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    rate = 2e-9 * rows * inputs * outputs / _least_seconds(lambda: states @ weight.T)
    torch.set_num_threads(threads)
    return rate


def _int8_rate(rows: int, inputs: int, outputs: int) -> float:
    """The same of ONNX Runtime, in the int8 form of the export."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from tasks.asr.engines.onnx_int8 import quantise

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((inputs, outputs)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(weight, "weight")],
    )
    with tempfile.TemporaryDirectory() as scratch:
        exact, shipped = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        opset = load(ROOT / "params.yaml").export_asr.opset
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), exact)
        quantise(exact, shipped)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(shipped), options, providers=["CPUExecutionProvider"])
    states = rng.standard_normal((rows, inputs)).astype(np.float32)
    return 2e-9 * rows * inputs * outputs / _least_seconds(lambda: session.run(None, {"x": states}))


def _least_seconds(compute: Callable[[], Any], times: int = 30) -> float:
    """Least of the processors' seconds that a call took, after one that warms up."""
    compute()
    took = []
    for _ in range(times):
        began = cpu_seconds()
        compute()
        took.append(cpu_seconds() - began)
    return min(took)
