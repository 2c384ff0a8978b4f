"""Residual add + RMSNorm: y, the next residual and every gradient against the float64 reference."""

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.add_rms_norm import add_rms_norm
from malgil_kernels.add_rms_norm.reference import add_rms_norm_reference
from malgil_kernels.add_rms_norm.triton_op import add_rms_norm_triton
from malgil_kernels.row_tiles import LONGEST
from malgil_kernels.testing import AWKWARD_SIZES, DTYPES, check_op

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VARIANTS = ("llama", "gemma")


def inputs(rows, hidden, dtype):
    generator = torch.Generator().manual_seed(rows * 7919 + hidden)
    x, residual = (torch.randn(rows, hidden, generator=generator).to(dtype).to(DEVICE) for _ in range(2))
    weight = (torch.randn(hidden, generator=generator) + 1).to(dtype).to(DEVICE)
    return x.requires_grad_(), residual.requires_grad_(), weight.requires_grad_()


def check(x, residual, weight, variant="llama"):
    h = (x + residual).detach().double()
    r = torch.rsqrt(h.square().mean(dim=-1, keepdim=True) + 1e-6)
    bound = r * (weight.double() + (variant == "gemma"))
    return check_op(
        lambda x, residual, w: add_rms_norm_triton(x, residual, w, 1e-6, variant),
        lambda x, residual, w: add_rms_norm_reference(x, residual, w, 1e-6, variant),
        x,
        residual,
        weight,
        terms={0: bound, 1: bound} if x.numel() else None,
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", (*AWKWARD_SIZES, LONGEST + 1000))
@pytest.mark.parametrize("rows", (1, 5))
def test_both_outputs_and_every_gradient_match_float64(rows, hidden, dtype, variant):
    check(*inputs(rows, hidden, dtype), variant)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float16,
        # Triton's interpreter truncates to bfloat16 where a GPU rounds
        pytest.param(torch.bfloat16, marks=pytest.mark.gpu),
    ],
    ids=str,
)
def test_the_sum_is_what_plain_addition_gives_to_the_bit(dtype):
    x, residual, weight = inputs(4, 100, dtype)
    _, h = add_rms_norm_triton(x, residual, weight, 1e-6)
    assert torch.equal(h, x + residual)


@pytest.mark.parametrize("used", [0, 1])
def test_an_output_that_nobody_uses_costs_no_gradient(used):
    x, residual, weight = inputs(4, 100, torch.float32)
    add_rms_norm_triton(x, residual, weight, 1e-6)[used].square().sum().backward()
    wide = [t.detach().double().requires_grad_() for t in (x, residual, weight)]
    add_rms_norm_reference(*wide, 1e-6)[used].square().sum().backward()
    for got, wanted in zip((x, residual, weight), wide, strict=True):
        assert (got.grad is None) == (wanted.grad is None)
        if got.grad is not None:
            torch.testing.assert_close(got.grad.double(), wanted.grad, rtol=1e-5, atol=1e-5)


def test_strided_input_is_read_by_its_strides():
    base, weight = torch.randn(6, 80, device=DEVICE), torch.randn(16, device=DEVICE).requires_grad_()
    for x, residual in (
        (base[::2, :16], base[1::2, 20:36]),
        (base[:, ::2][:, :16], base[:1, :16].expand(6, 16)),
    ):
        check(x.detach().requires_grad_(), residual.detach().requires_grad_(), weight)


@pytest.mark.parametrize("shape", [(0, 8), (3, 0)])
def test_empty_input_gives_empty_output_and_a_zero_gradient(shape):
    x, residual = (torch.empty(shape, device=DEVICE, requires_grad=True) for _ in range(2))
    weight = torch.ones(shape[-1], device=DEVICE, requires_grad=True)
    y, h = add_rms_norm_triton(x, residual, weight, 1e-6)
    (y + h).sum().backward()
    assert x.grad.shape == residual.grad.shape == shape
    assert weight.grad.eq(0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_references_own_gradient(variant):
    x, residual = (torch.randn(3, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    function = lambda *tensors: add_rms_norm_reference(*tensors, 1e-6, variant)  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, residual, weight))


@pytest.mark.parametrize(
    ("residual", "error", "said"),
    [
        (torch.ones(2, 4), ValueError, r"residual has shape \(2, 4\): must be x's, \(2, 8\)"),
        (torch.ones(2, 8).bfloat16(), TypeError, "residual is torch.bfloat16: must be x's dtype"),
        (torch.ones(2, 8, device="meta"), ValueError, "residual is on meta"),
    ],
)
def test_a_residual_that_does_not_fit_is_named(residual, error, said):
    with pytest.raises(error, match=said):
        add_rms_norm(torch.ones(2, 8), residual, torch.ones(8))


def test_the_public_function_takes_the_dispatchers_choice(monkeypatch):
    x, residual, weight = inputs(3, 64, torch.float32)
    monkeypatch.setenv("MALGIL_KERNELS_ADD_RMS_NORM", "triton")
    y, h = add_rms_norm(x, residual, weight)
    wanted_y, wanted_h = add_rms_norm_reference(x, residual, weight, 1e-6)
    torch.testing.assert_close(y, wanted_y)
    assert torch.equal(h, wanted_h)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", (192, 4096, 32_768))
def test_training_sizes(hidden, dtype):
    check(*inputs(4096, hidden, dtype))
