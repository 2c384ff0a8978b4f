"""The choice of an implementation, and its reason, as a table."""

import importlib.util

import pytest
import torch

from malgil_kernels.dispatch import select

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


@pytest.fixture(autouse=True)
def fresh_choice(monkeypatch):
    select.cache_clear()
    monkeypatch.delenv("MALGIL_KERNELS", raising=False)
    yield
    select.cache_clear()


@needs_triton
@pytest.mark.parametrize(
    ("wish", "dtype", "device", "implementation", "reason"),
    [
        ("", torch.bfloat16, "cuda", "triton", "CUDA"),
        ("", torch.bfloat16, "cpu", "reference", "not cpu"),
        ("", torch.float64, "cuda", "reference", "float64"),
        ("reference", torch.bfloat16, "cuda", "reference", "MALGIL_KERNELS"),
        ("triton", torch.float32, "cpu", "triton", "MALGIL_KERNELS"),
    ],
)
def test_choice(monkeypatch, wish, dtype, device, implementation, reason):
    monkeypatch.setenv("MALGIL_KERNELS", wish)
    choice = select("rms_norm", dtype, device)
    assert choice.implementation == implementation
    assert reason in choice.reason


def test_without_triton_the_reference_runs_and_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    choice = select("rms_norm", torch.bfloat16, "cuda")
    assert choice.implementation == "reference"
    assert "malgil[kernels]" in choice.reason


def test_a_wrong_override_is_named(monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "fast")
    with pytest.raises(ValueError, match="'fast'"):
        select("rms_norm", torch.float32, "cpu")


def test_each_decision_is_logged_once(caplog):
    with caplog.at_level("INFO", logger="malgil.kernels"):
        select("rms_norm", torch.float32, "cpu")
        select("rms_norm", torch.float32, "cpu")
    assert len(caplog.records) == 1
