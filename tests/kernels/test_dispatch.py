"""The choice of an implementation, and its reason, as a table."""

import importlib.util

import pytest
import torch

from malgil_kernels import dispatch
from malgil_kernels.dispatch import Hardware, multiprocessors, select
from malgil_kernels.thresholds import FACTS, RULES

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture
def hopper(monkeypatch):
    monkeypatch.setattr(dispatch, "hardware", lambda device: Hardware(90, 132))


def choose(op, dtype=BF16, device="cuda", **facts):
    return select(op, dtype=dtype, device=device, **facts)


@needs_triton
@pytest.mark.parametrize(
    ("wish", "dtype", "device", "implementation", "reason"),
    [
        ("", BF16, "cuda", "triton", "CUDA"),
        ("", BF16, "cpu", "reference", "not cpu"),
        ("", torch.float64, "cuda", "reference", "float64"),
        ("reference", BF16, "cuda", "reference", "MALGIL_KERNELS=reference"),
        ("triton", FP32, "cpu", "triton", "MALGIL_KERNELS=triton"),
        ("triton", torch.float64, "cuda", "reference", "float64"),
    ],
)
def test_choice(monkeypatch, hopper, wish, dtype, device, implementation, reason):
    monkeypatch.setenv("MALGIL_KERNELS", wish)
    choice = choose("rms_norm", dtype, device)
    assert choice.implementation == implementation
    assert reason in choice.reason


@needs_triton
@pytest.mark.parametrize(
    ("facts", "implementation", "reason"),
    [
        ({"rows": 1, "format": "nf4"}, "triton", "at most 512"),
        ({"rows": 512, "format": "int8"}, "triton", "at most 512"),
        ({"rows": 513, "format": "nf4"}, "dequantise+gemm", "over 512"),
        ({"rows": 64, "format": "bf16"}, "triton", "not quantised"),
        ({"rows": 65, "format": "bf16"}, "dequantise+gemm", "nothing to dequantise"),
        ({"format": "nf4"}, "triton", "at most 512"),
    ],
)
def test_quantised_matrix_products_go_by_rows(hopper, facts, implementation, reason):
    choice = choose("lora_linear", **facts)
    assert choice.implementation == implementation
    assert reason in choice.reason
    assert "estimate, unmeasured" in choice.reason


DENSE = {"head_dim": 128, "phase": "training", "packed": False, "length": 4096}


@needs_triton
@pytest.mark.parametrize(
    ("facts", "implementation", "reason"),
    [
        ({}, "sdpa:cudnn", "sm_90"),
        ({"capability": 80}, "sdpa:flash", "before sm_90"),
        ({"head_dim": 256}, "sdpa:flash", "over 128"),
        ({"dtype": FP32}, "sdpa:efficient", "float32"),
        ({"length": 512}, "sdpa:flash", "at most 512"),
        ({"phase": "decoding"}, "sdpa:flash", "decoding"),
        ({"phase": "decoding", "paged": True}, "triton", "block table"),
        ({"packed": True}, "triton", "packed"),
        ({"packed": True, "dtype": FP32}, "triton", "packed"),
        ({"softcap": True}, "triton", "soft cap"),
        ({"window": True}, "triton", "sliding window"),
        ({"window": True, "length": 100}, "sdpa:efficient", "mask"),
        ({"head_dim": 8}, "sdpa:math", "outside 16–256"),
        ({"head_dim": 512, "packed": True}, "reference", "packed"),
        ({"head_dim": 512, "paged": True}, "reference", "block table"),
        ({"head_dim": 512, "softcap": True}, "reference", "soft cap"),
    ],
)
def test_attention_goes_by_phase_packing_length_head_dim_and_hardware(
    monkeypatch, facts, implementation, reason
):
    given = DENSE | facts
    monkeypatch.setattr(dispatch, "hardware", lambda device: Hardware(given.pop("capability", 90), 132))
    choice = choose("attention", **{k: v for k, v in given.items() if k != "capability"})
    assert choice.implementation == implementation
    assert reason in choice.reason


@needs_triton
@pytest.mark.parametrize(
    ("every", "one", "facts", "implementation", "reason"),
    [
        ("reference", "triton", DENSE, "triton", "MALGIL_KERNELS_ATTENTION=triton"),
        ("", "sdpa:flash", DENSE, "sdpa:flash", "MALGIL_KERNELS_ATTENTION=sdpa:flash"),
        ("triton", "", DENSE, "triton", "MALGIL_KERNELS=triton"),
        ("", "reference", DENSE | {"packed": True}, "reference", "MALGIL_KERNELS_ATTENTION=reference"),
        ("", "sdpa:flash", DENSE | {"packed": True}, "triton", "sdpa:flash cannot be followed"),
        ("triton", "", DENSE | {"head_dim": 512}, "sdpa:math", "triton cannot be followed"),
    ],
)
def test_a_variable_overrides_but_for_what_cannot_be(
    monkeypatch, hopper, every, one, facts, implementation, reason
):
    monkeypatch.setenv("MALGIL_KERNELS", every)
    monkeypatch.setenv("MALGIL_KERNELS_ATTENTION", one)
    choice = choose("attention", **facts)
    assert choice.implementation == implementation
    assert reason in choice.reason


def test_without_triton_the_reference_runs_and_says_what_to_install(monkeypatch, hopper):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    choice = choose("rms_norm")
    assert choice.implementation == "reference"
    assert "malgil[kernels]" in choice.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALGIL_KERNELS", "fast"), ("MALGIL_KERNELS", "sdpa:flash"), ("MALGIL_KERNELS_RMS_NORM", "x")],
)
def test_a_wrong_override_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}='{value}': must be one of reference, triton"):
        choose("rms_norm", FP32, "cpu")


def test_a_fact_that_the_op_has_not_is_named():
    with pytest.raises(ValueError, match="row of lora_linear: must be among format, rows"):
        choose("lora_linear", FP32, "cpu", row=3)


@needs_triton
def test_each_decision_is_logged_once(caplog, hopper):
    with caplog.at_level("INFO", logger="malgil.kernels"):
        for rows in (1, 2, 600, 700, 3):
            choose("lora_linear", rows=rows, format="nf4")
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "lora_linear on cuda torch.bfloat16: triton",
        "lora_linear on cuda torch.bfloat16: dequantise+gemm",
    ]


def test_every_rule_can_be_reached_by_facts_of_its_op():
    for op, rules in RULES.items():
        for rule in rules:
            assert rule.when.keys() <= FACTS[op] | {"dtype", "capability"}, rule
            assert all(comparison in dispatch.COMPARISONS for comparison, _ in rule.when.values())
            assert rule.limit or rule.source or rule.when.keys() == {"dtype"}, f"{rule}: what set it?"
        assert not rules[-1].when, f"{op}: the last rule must hold for everything"


def test_without_a_gpu_launchers_plan_for_an_h100():
    assert multiprocessors("cpu") == 132
