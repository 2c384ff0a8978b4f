"""A tiny base model and prepared rows, made once."""

from pathlib import Path

import pytest

from tests import tiny_llm


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm.write_model(tmp_path_factory.mktemp("llm") / "base")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm.write_prepared(tmp_path_factory.mktemp("llm") / "prepared")
