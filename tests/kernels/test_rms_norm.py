"""RMSNorm: the kernel against the float64 reference, in the interpreter without a GPU, on it with one."""

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.rms_norm import rms_norm
from malgil_kernels.rms_norm.reference import rms_norm_reference
from malgil_kernels.rms_norm.triton_op import launch_forward, rms_norm_triton
from malgil_kernels.testing import AWKWARD_SIZES, TOLERANCE, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def inputs(rows, hidden, dtype):
    generator = torch.Generator().manual_seed(rows * 7919 + hidden)
    x = torch.randn(rows, hidden, generator=generator).to(dtype).to(DEVICE).requires_grad_()
    weight = (torch.randn(hidden, generator=generator) + 1).to(dtype).to(DEVICE).requires_grad_()
    dy = torch.randn(rows, hidden, generator=generator).to(dtype).to(DEVICE)
    return x, weight, dy


def truth(x, weight, dy):
    wide_x, wide_weight = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    y = rms_norm_reference(wide_x, wide_weight, 1e-6)
    y.backward(dy.double())
    return y, wide_x.grad, wide_weight.grad


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", AWKWARD_SIZES)
@pytest.mark.parametrize("rows", (1, 5))
def test_forward_and_every_gradient_match_float64(rows, hidden, dtype):
    x, weight, dy = inputs(rows, hidden, dtype)
    y = rms_norm_triton(x, weight, 1e-6)
    y.backward(dy)
    wanted_y, wanted_dx, wanted_dw = truth(x, weight, dy)
    r = torch.rsqrt(x.double().square().mean(dim=-1, keepdim=True) + 1e-6)
    assert relative_error(y, wanted_y) <= TOLERANCE[dtype]
    assert relative_error(x.grad, wanted_dx, terms=r * weight.double() * dy.double()) <= TOLERANCE[dtype]
    assert relative_error(weight.grad, wanted_dw) <= TOLERANCE[dtype]


def test_more_rows_than_backward_programs_are_all_summed():
    x, weight, dy = inputs(300, 16, torch.float32)
    rms_norm_triton(x, weight, 1e-6).backward(dy)
    assert relative_error(weight.grad, truth(x, weight, dy)[2]) <= TOLERANCE[torch.float32]


def test_strided_input_is_read_by_its_strides():
    base = torch.randn(6, 40, device=DEVICE)
    weight = torch.randn(16, device=DEVICE)
    for view in (base[::2, :16], base[:, 4:20], base.t()[:40, :].t()[:, 8:24]):
        assert (
            relative_error(
                rms_norm_triton(view, weight, 1e-6), rms_norm_reference(view.double(), weight.double(), 1e-6)
            )
            <= 2e-6
        )


def test_every_element_is_written(monkeypatch):
    monkeypatch.setattr(
        torch, "empty_like", lambda x, **_: torch.full(x.shape, float("nan"), dtype=x.dtype, device=x.device)
    )
    monkeypatch.setattr(torch, "empty", lambda *size, **kw: torch.full(size, float("nan"), **kw))
    y, r = launch_forward(torch.randn(3, 100, device=DEVICE), torch.ones(100, device=DEVICE), 1e-6)
    assert not y.isnan().any()
    assert not r.isnan().any()


def test_no_rows_give_no_rows_and_a_zero_gradient():
    x = torch.empty(0, 8, device=DEVICE, requires_grad=True)
    weight = torch.ones(8, device=DEVICE, requires_grad=True)
    rms_norm_triton(x, weight, 1e-6).sum().backward()
    assert x.grad.shape == (0, 8)
    assert weight.grad.eq(0).all()


@pytest.mark.parametrize("shape", [(4,), (3, 8)])
def test_a_weight_that_does_not_fit_is_named(shape):
    with pytest.raises(ValueError, match=r"must be \(8,\)"):
        rms_norm(torch.randn(2, 8), torch.ones(*shape))


def test_a_row_too_long_is_refused_before_any_launch():
    with pytest.raises(ValueError, match="at most 65536"):
        rms_norm_triton(torch.empty(1, 65_537, device=DEVICE), torch.empty(65_537, device=DEVICE), 1e-6)
