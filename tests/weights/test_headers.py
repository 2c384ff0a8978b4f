"""GGUF and ONNX files are read before the native libraries see them: what is wrong is named, and they load."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import pytest

from tasks.artifacts import read_json, sha256_file, write_json
from tasks.asr.engines.acoustic import OnnxAcoustic
from tasks.asr.engines.onnx_model import ONNX_NAME, OnnxRecogniser
from tasks.asr.export import export
from tasks.errors import ModelError
from tasks.gguf.convert import convert
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.llm.from_gguf import convert_gguf
from tasks.settings import ConvertLlm, ExportAsr
from tasks.weights.gguf_header import check_gguf, read_header
from tests import tiny_llm
from tests.asr.tiny_models import foreign_checkpoint

AUDIO = np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32)


@pytest.fixture(scope="module")
def whole_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    merged = tiny_llm.write_model(folder / "merged")
    return convert(ConvertLlm(name="tiny"), merged=merged, gguf_f16=folder)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    checkpoint = foreign_checkpoint(folder / "checkpoint")
    bounds = ExportAsr(opset=17, max_logit_difference=1e-2, max_relative_difference_int8=0.5)
    export(bounds, checkpoint=checkpoint, out_dir=folder / "shipped")
    return folder / "shipped"


def rewritten(
    source: Path, target: Path, *, drop: str = "", add: dict[str, Any] | None = None, shapes: dict[str, Any] | None = None,
    numbers: dict[str, int] | None = None,
) -> Path:  # fmt: skip
    """A GGUF of other tensors or numbers, whole otherwise, written by gguf's own writer."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind, value = field.types[0], (numbers or {}).get(name, field.contents())
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, kind, sub)
    tensors = {t.name: np.array(t.data) for t in reader.tensors if t.name != drop} | (add or {})
    for name, data in tensors.items():
        writer.add_tensor(name, (shapes or {}).get(name, data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_the_header_is_what_ggufs_own_reader_finds(whole_gguf: Path) -> None:
    ours, theirs = read_header(whole_gguf), gguf.GGUFReader(whole_gguf)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert dict(ours.metadata) == fields
    found = {name: (t.shape, t.kind, t.start, t.bytes) for name, t in ours.tensors.items()}
    assert found == {
        t.name: (tuple(map(int, t.shape)), t.tensor_type.name, t.data_offset, t.n_bytes)
        for t in theirs.tensors
    }


GGUF: dict[str, tuple[dict[str, Any], str]] = {
    "a tensor less": ({"drop": "blk.1.attn_q.weight"}, r"1 tensor is missing \(blk\.1\.attn_q\.weight\)"),
    "a tensor more": (
        {"add": {"blk.7.ffn_up.weight": np.ones((96, 64), np.float16)}},
        r"1 is unexpected \(blk\.7",
    ),
    "another shape": (
        {"shapes": {"output_norm.weight": np.ones(32, np.float32)}},
        r"output_norm\.weight is 32 instead of 64",
    ),
    "more layers than it has": ({"numbers": {"llama.block_count": 3}}, r"9 tensors are missing \(blk\.2\."),
    "no layers": ({"numbers": {"llama.block_count": 0}}, r"llama\.block_count is 0"),
    "no heads": ({"numbers": {"llama.attention.head_count": 0}}, r"llama\.attention\.head_count is 0"),
    "an end token that it does not have": (
        {"numbers": {"tokenizer.ggml.eos_token_id": 70_000}},
        r"tokenizer\.ggml\.eos_token_id is 70000, of 605 tokens",
    ),
}


@pytest.mark.parametrize("kind", GGUF)
def test_a_gguf_is_whole_or_refused_by_both_that_read_one(
    kind: str, whole_gguf: Path, tmp_path: Path
) -> None:
    changes, says = GGUF[kind]
    broken = rewritten(whole_gguf, tmp_path / "broken.gguf", **changes)
    with pytest.raises(ModelError, match=says):
        LlamaCppEngine(broken, slots=1)
    with pytest.raises(ModelError, match=says):
        convert_gguf(broken, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_factors_of_the_rotary_embedding_are_not_dropped_silently(whole_gguf: Path, tmp_path: Path) -> None:
    """llama.cpp uses them; the folder that is made of the file would not have them."""
    scaled = rewritten(
        whole_gguf, tmp_path / "f.gguf", add={"rope_freqs.weight": np.full(8, 2.0, np.float32)}
    )
    LlamaCppEngine(scaled, slots=1)
    with pytest.raises(ModelError, match=r"1 tensor has no place \(rope_freqs\.weight\)"):
        convert_gguf(scaled, tmp_path / "folder")


BYTES: dict[str, tuple[Callable[[bytearray], Any], str]] = {
    "no GGUF": (lambda d: d.__setitem__(slice(0, 4), b"GGML"), "does not begin with GGUF"),
    "a version to come": (lambda d: d.__setitem__(slice(4, 8), struct.pack("<I", 9)), "version 9"),
    "countless tensors": (lambda d: d.__setitem__(slice(8, 16), b"\xff" * 8), "claims 18446744073709551615 tensors"),
    "a text beyond the end": (lambda d: d.__setitem__(slice(24, 32), struct.pack("<Q", 1 << 40)), "a key of"),
    "a token twice": (lambda d: d.__setitem__(d.find(b"<|im_end|>"), ord("<")) or swap(d), "stand twice"),
    "cut off": (lambda d: d.__delitem__(slice(len(d) - 64, None)), "the file is cut off"),
    "cut off in its header": (lambda d: d.__delitem__(slice(3_000, None)), "claims|ends within"),
}  # fmt: skip


def swap(data: bytearray) -> None:
    """The token "!" becomes '"', which is there too."""
    place = data.find(struct.pack("<Q", 1) + b"!") + 8
    data[place] = ord('"')


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_that_would_end_llama_cpp_or_hang_a_reader_are_named(
    kind: str, whole_gguf: Path, tmp_path: Path
) -> None:
    spoil, says = BYTES[kind]
    data = bytearray(whole_gguf.read_bytes())
    spoil(data)
    (tmp_path / "f.gguf").write_bytes(data)
    for load in (
        lambda: LlamaCppEngine(tmp_path / "f.gguf", slots=1),
        lambda: convert_gguf(tmp_path / "f.gguf", tmp_path),
    ):
        with pytest.raises(ModelError, match=says):
            load()


def test_a_cut_off_gguf_and_the_advice_works(whole_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / whole_gguf.name
    path.write_bytes(whole_gguf.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut off") as caught:
        check_gguf(path)
    assert "copy it again" in caught.value.next_step
    shutil.copyfile(whole_gguf, path)
    assert LlamaCppEngine(path, slots=1).vocabulary_size() == 605


def no_weight(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0]


def elsewhere(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"


def resized(model: onnx.ModelProto) -> None:
    next(w for w in model.graph.initializer if len(w.dims) == 2).dims[0] += 1


def metadata(**changes: str | None) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        held = {entry.key: entry.value for entry in model.metadata_props} | changes
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {key: value for key, value in held.items() if value is not None})

    return change


def renamed(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "audio"
    for node in model.graph.node:
        node.input[:] = ["audio" if name == "input_values" else name for name in node.input]


ONNX: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "a weight less": (no_weight, r"1 weight is missing \("),
    "a weight in another file": (elsewhere, "is kept in another file"),
    "another size": (resized, "has other bytes than that takes"),
    "another input": (renamed, "its inputs are audio instead of input_values"),
    "no metadata": (
        metadata(vocabulary=None, blank_id=None),
        r"2 entries of its metadata are missing \(blank_id, vocabulary\)",
    ),
    "a torn vocabulary": (metadata(vocabulary='{"a": 0,'), "its metadata are torn"),
    "a vocabulary with a hole": (metadata(vocabulary='{"a": 0, "b": 2}'), "not numbered from 0"),
    "a blank that is no number": (metadata(blank_id="zero"), "its metadata are torn"),
    "a search that is unknown": (metadata(symbol_names='{"x": 1}'), "its metadata are torn"),
}


@pytest.mark.parametrize("kind", ONNX)
def test_an_onnx_file_is_whole_or_refused(kind: str, shipped: Path, tmp_path: Path) -> None:
    change, says = ONNX[kind]
    folder = Path(shutil.copytree(shipped, tmp_path / "shipped"))
    model = onnx.load(folder / ONNX_NAME)
    change(model)
    (folder / ONNX_NAME).write_bytes(model.SerializeToString())
    write_json(
        folder / "malgil.json",
        read_json(folder / "malgil.json") | {"sha256": sha256_file(folder / ONNX_NAME)},
    )
    for load in (OnnxRecogniser, OnnxAcoustic):
        with pytest.raises(ModelError, match=says):
            load(folder)


def test_a_graph_that_cannot_be_computed_is_said(shipped: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shipped, tmp_path / "shipped"))
    model = onnx.load(folder / ONNX_NAME)
    node = next(node for node in model.graph.node if node.op_type == "Conv" and len(node.input) == 3)
    bias = next(weight for weight in model.graph.initializer if weight.name == node.input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.zeros(3, np.float32), bias.name))
    (folder / ONNX_NAME).write_bytes(model.SerializeToString())
    write_json(
        folder / "malgil.json",
        read_json(folder / "malgil.json") | {"sha256": sha256_file(folder / ONNX_NAME)},
    )
    with pytest.raises(ModelError, match="cannot be"):
        OnnxRecogniser(folder).transcribe([AUDIO])
    assert len(OnnxRecogniser(shipped).transcribe([AUDIO])) == 1
