"""The int8 products of a shipped file are those of integers, whatever this CPU's instructions are.

Every quantised product is cut out of the file and given inputs of which every byte is 255: with weights of
8 bits, the sums of two products then leave 16 bits, and saturate on a CPU without VNNI.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from tasks.artifacts import read_json, sha256_file, write_json
from tasks.asr.engines.onnx_model import FP32_NAME, ONNX_NAME, OnnxRecogniser
from tasks.asr.export import export
from tasks.cpu import sums_in_32_bits
from tasks.settings import ExportAsr
from tests.asr.tiny_models import foreign_checkpoint

EXPORT = ExportAsr(opset=17, max_logit_difference=1e-3, max_relative_difference_int8=0.1)
ROWS = (1, 13)  # a row alone has a kernel of its own
Floats = np.ndarray[Any, np.dtype[np.float32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
FEEDS = ("all the largest byte", "one row", "noise")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model wide enough for kernels that take 16 columns and many rows at once, with odd sizes."""
    folder = tmp_path_factory.mktemp("int8")
    shape = {"hidden_size": 72, "intermediate_size": 136, "num_attention_heads": 4}
    checkpoint = foreign_checkpoint(folder / "checkpoint", **shape)
    export(EXPORT, checkpoint=checkpoint, out_dir=folder / "shipped")
    return folder / "shipped"


@pytest.fixture(scope="module")
def with_8_bit_weights(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file as it was exported before: symmetric weights that take all of a signed byte."""
    folder = tmp_path_factory.mktemp("signed")
    signed = folder / ONNX_NAME
    kinds = ["MatMul", "Gemm"]
    front = [node.name for node in onnx.load(str(shipped / FP32_NAME)).graph.node]
    front = [name for name in front if "/feature_extractor/" in name]
    quantize_dynamic(
        str(shipped / FP32_NAME),
        str(signed),
        op_types_to_quantize=kinds,
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=front,
    )
    model = onnx.load(str(signed))
    metadata = {prop.key: prop.value for prop in onnx.load(str(shipped / ONNX_NAME)).metadata_props}
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(signed))
    write_json(folder / "malgil.json", read_json(shipped / "malgil.json") | {"sha256": sha256_file(signed)})
    return folder


def inputs(kind: str, width: int) -> Floats:
    """Rows of a product, (rows, width)."""
    if kind == "noise":
        return np.random.default_rng(3).standard_normal((ROWS[1], width)).astype(np.float32)
    return np.ones((ROWS[0] if kind == "one row" else ROWS[1], width), dtype=np.float32)


def quantised(x: Floats) -> tuple[Integers, np.float32, int]:
    """Bytes, scale and zero point of ONNX's DynamicQuantizeLinear, from its specification, in float32."""
    low, high = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
    scale = np.float32((high - low) / np.float32(255))
    zero = np.clip(np.rint(np.float32(0) - low / scale), 0, 255)
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64), scale, int(zero)


class Product:
    """A MatMulInteger of a file, with what the file gives it."""

    def __init__(self, model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        constants = {one.name: one for one in model.graph.initializer}
        self.weight = numpy_helper.to_array(constants[node.input[1]])
        self.zero = numpy_helper.to_array(constants[node.input[3]])
        self.bytes, self.byte_zero, self.result = node.input[0], node.input[2], node.output[0]
        makers = {output: one for one in model.graph.node for output in one.output}
        users = [one for one in model.graph.node if self.result in one.input]
        casts = [one.output[0] for one in users if one.op_type == "Cast"]
        self.floats = makers[self.bytes].input[0]
        (scaled,) = [one for one in model.graph.node if one.op_type == "Mul" and casts[0] in one.input]
        scales = makers[next(name for name in scaled.input if name != casts[0])]
        self.scale = numpy_helper.to_array(next(constants[n] for n in scales.input if n in constants))
        self.scaled = scaled.output[0]

    def exact(self, codes: Integers, zero: int) -> Integers:
        """(rows, columns) in 64-bit integers."""
        return (codes - zero) @ (self.weight.astype(np.int64) - self.zero.astype(np.int64))


def products(path: Path) -> list[Product]:
    """All quantised products of a file."""
    model = onnx.load(str(path))
    found = [Product(model, node) for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert len(found) >= 14  # two layers of six, the projection of the features and the head
    return found


def run(path: Path, one: Product, kind: str, folder: Path, options: Any = None) -> tuple[bool, bool, str]:
    """Whether the engine's integers and its scaled floats are exact, and by which operator the latter came.

    The first is MatMulInteger alone; the second is what the engine makes of the whole chain.
    """
    x = inputs(kind, one.weight.shape[0])
    codes, scale, zero = quantised(x)
    if kind != "noise":
        assert codes.min() == 255  # nothing smaller: it is the worst case
    exact = one.exact(codes, zero)
    alone, chain, fused = (folder / name for name in ("alone.onnx", "chain.onnx", "fused.onnx"))
    extract(path, [one.bytes, one.byte_zero], one.result, alone)
    feeds = {one.bytes: codes.astype(np.uint8)[None], one.byte_zero: np.array(zero, dtype=np.uint8)}
    (integers,) = session(alone, options).run(None, feeds)
    extract(path, [one.floats], one.scaled, chain)
    options = options or onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(fused)
    (floats,) = session(chain, options).run(None, {one.floats: x[None]})
    kinds = {node.op_type for node in onnx.load(str(fused)).graph.node}
    expected = exact.astype(np.float32) * (scale * one.scale)
    close = np.allclose(floats[0], expected, rtol=1e-6, atol=1e-6 * float(np.abs(expected).max()))
    return bool(np.array_equal(integers[0], exact)), close, " ".join(sorted(kinds))


def extract(path: Path, sources: list[str], target: str, out: Path) -> None:
    onnx.utils.extract_model(str(path), str(out), sources, [target], check_model=False)


def session(path: Path, options: Any = None) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", FEEDS)
def test_products_of_the_shipped_file_are_those_of_integers(shipped: Path, kind: str, tmp_path: Path) -> None:
    for one in products(shipped / ONNX_NAME):
        integers, floats, kinds = run(shipped / ONNX_NAME, one, kind, tmp_path)
        assert integers and floats, one.result
        assert "DynamicQuantizeMatMul" in kinds  # what serves is the fused operator


def test_weights_of_8_bits_saturate_where_16_bits_are_summed_in(
    with_8_bit_weights: Path, tmp_path: Path
) -> None:
    """The same test tells the two forms apart: on this CPU the old one fails it, unless it has VNNI."""
    path = with_8_bit_weights / ONNX_NAME
    found = [run(path, one, FEEDS[0], tmp_path)[:2] for one in products(path)]
    if sums_in_32_bits():
        assert set(found) == {(True, True)}
    else:
        assert set(found) == {(False, False)}


def test_an_older_file_is_exact_in_our_recogniser(with_8_bit_weights: Path, tmp_path: Path) -> None:
    """Versions that are published have weights of 8 bits; they are read with what makes their products exact."""
    path = with_8_bit_weights / ONNX_NAME
    recogniser = OnnxRecogniser(with_8_bit_weights)
    for one in products(path):
        for kind in FEEDS:
            options = recogniser.session.get_session_options()
            integers, floats, _ = run(path, one, kind, tmp_path, options)
            assert integers and floats, one.result


def test_no_sum_of_two_products_leaves_16_bits(shipped: Path) -> None:
    """Whatever the input: its bytes go up to 255. And the range is used, so that nothing more is lost."""
    for one in products(shipped / ONNX_NAME):
        assert one.weight.dtype == np.int8
        weights = np.abs(one.weight.astype(np.int64))
        assert 2 * 255 * weights.max() < 2**15
        assert (weights.max(axis=0) == 64).all()


def test_zero_points_are_not_all_zero(shipped: Path) -> None:
    """Where they are, ONNX Runtime has another operator on ARM with SME, which quantises every row by itself."""
    assert all(one.zero.any() for one in products(shipped / ONNX_NAME))
