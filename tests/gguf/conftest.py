"""A tiny merged model and its GGUF files, made once."""

from pathlib import Path

import pytest

from tasks.gguf.convert import convert
from tasks.gguf.quantise import quantise
from tasks.settings import ConvertLlm, QuantiseLlm
from tests import tiny_llm


@pytest.fixture(scope="session")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm.write_model(tmp_path_factory.mktemp("gguf") / "merged")


@pytest.fixture(scope="session")
def gguf_f16(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf_f16")
    convert(ConvertLlm(name="tiny"), merged=merged, gguf_f16=folder)
    return folder


@pytest.fixture(scope="session")
def gguf(gguf_f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised") / "gguf"
    quantise(QuantiseLlm(types=("Q8_0", "Q4_K_M")), gguf_f16=gguf_f16, gguf=folder)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm.write_prepared(tmp_path_factory.mktemp("prepared") / "llm")
