"""The room's environment: interpreted without a GPU, no override of the dispatcher, `gpu` tests skipped."""

import os

import pytest
import torch

from malgil_kernels import dispatch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton looks when it is first imported and at each @triton.jit


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def fresh_choice(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALGIL_KERNELS")]:
        monkeypatch.delenv(name)
    dispatch._choose.cache_clear()
    dispatch._log.cache_clear()
    yield
    dispatch._choose.cache_clear()
