"""A tiny model as a folder and as GGUF, made once."""

from pathlib import Path

import pytest

from tasks.gguf.convert import convert
from tasks.settings import ConvertLlm
from tests import tiny_llm


@pytest.fixture(scope="session")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm.write_model(tmp_path_factory.mktemp("inference") / "merged")


@pytest.fixture(scope="session")
def gguf_file(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(ConvertLlm(name="tiny"), merged=merged, gguf_f16=tmp_path_factory.mktemp("f16"))
