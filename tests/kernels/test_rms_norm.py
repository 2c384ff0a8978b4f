"""RMSNorm: the kernel against the float64 reference, in the interpreter without a GPU, on it with one."""

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.rms_norm import rms_norm
from malgil_kernels.rms_norm.reference import rms_norm_reference
from malgil_kernels.rms_norm.triton_op import rms_norm_triton
from malgil_kernels.row_tiles import LONGEST
from malgil_kernels.testing import AWKWARD_SIZES, DTYPES, TOLERANCE, check_op, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VARIANTS = ("llama", "gemma")


def inputs(rows, hidden, dtype):
    generator = torch.Generator().manual_seed(rows * 7919 + hidden)
    x = torch.randn(rows, hidden, generator=generator).to(dtype).to(DEVICE)
    weight = (torch.randn(hidden, generator=generator) + 1).to(dtype).to(DEVICE)
    return x.requires_grad_(), weight.requires_grad_()


def check(x, weight, variant="llama"):
    # dx is a difference of nearly equal terms where a row is short: r·g bounds its rounding
    gain = weight.double() + (variant == "gemma")
    r = torch.rsqrt(x.detach().double().square().mean(dim=-1, keepdim=True) + 1e-6)
    return check_op(
        lambda x, w: rms_norm_triton(x, w, 1e-6, variant),
        lambda x, w: rms_norm_reference(x, w, 1e-6, variant),
        x,
        weight,
        terms={0: r * gain} if x.numel() else None,
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", AWKWARD_SIZES)
@pytest.mark.parametrize("rows", (1, 5))
def test_forward_and_every_gradient_match_float64(rows, hidden, dtype, variant):
    check(*inputs(rows, hidden, dtype), variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_do_not_fit_in_registers(dtype, variant):
    check(*inputs(3, LONGEST + 1000, dtype), variant)


def test_the_longest_row():
    check(*inputs(2, 65_536, torch.bfloat16))


@pytest.mark.parametrize(("hidden", "rows"), [(1, 1100), (500, 43), (600, 19)])
def test_more_tiles_than_backward_programs_are_all_summed(hidden, rows, monkeypatch):
    monkeypatch.setattr("malgil_kernels.row_tiles.multiprocessors", lambda device: 1)
    check(*inputs(rows, hidden, torch.float32))


def test_strided_input_is_read_by_its_strides():
    base = torch.randn(6, 40, device=DEVICE)
    weight = torch.randn(16, device=DEVICE)
    for view in (
        base[::2, :16],
        base[:, 4:20],
        base.t()[:40, :].t()[:, 8:24],
        base[:, ::2][:, :16],
        base[:1, :16].expand(6, 16),
        base.reshape(2, 3, 40).transpose(0, 1)[..., :16],
    ):
        check(view.detach().requires_grad_(), weight.requires_grad_())


def test_a_weight_of_another_dtype_leaves_the_result_in_xs():
    x, _ = inputs(3, 100, torch.bfloat16)
    weight = torch.randn(100, device=DEVICE, requires_grad=True)
    assert rms_norm(x, weight).dtype == rms_norm_triton(x, weight, 1e-6).dtype == torch.bfloat16
    check(x, weight)


@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (2, 0, 8)])
def test_empty_input_gives_empty_output_and_a_zero_gradient(shape):
    x = torch.empty(shape, device=DEVICE, requires_grad=True)
    weight = torch.ones(shape[-1], device=DEVICE, requires_grad=True)
    rms_norm_triton(x, weight, 1e-6).sum().backward()
    assert x.grad.shape == shape
    assert weight.grad.eq(0).all()


def test_offsets_beyond_two_to_the_31_are_not_wrapped():
    # the third row begins 2^31 elements after the first, by a stride that 32 bits hold; three pages are touched
    try:
        memory = torch.empty(2**31 + 64, dtype=torch.bfloat16, device=DEVICE)
    except (RuntimeError, torch.OutOfMemoryError):
        pytest.skip("4 GiB of address space are not to be had")
    x = memory.as_strided((3, 64), (2**30, 1))
    x.copy_(torch.randn(3, 64))
    weight = torch.randn(64, device=DEVICE, dtype=torch.bfloat16)
    wide, dy = x.double().requires_grad_(), torch.randn(3, 64, device=DEVICE).bfloat16()
    y, truth = (
        rms_norm_triton(x.requires_grad_(), weight, 1e-6),
        rms_norm_reference(wide, weight.double(), 1e-6),
    )
    assert relative_error(y, truth) <= TOLERANCE[torch.bfloat16]
    [dx], [true] = torch.autograd.grad(y, x, dy), torch.autograd.grad(truth, wide, dy.double())
    assert relative_error(dx, true) <= TOLERANCE[torch.bfloat16]


def test_the_same_input_gives_the_same_bits():
    first, second = (inputs(70, 100, torch.float32) for _ in range(2))
    for x, weight in (first, second):
        rms_norm_triton(x, weight, 1e-6).square().sum().backward()
    assert torch.equal(first[0].grad, second[0].grad)
    assert torch.equal(first[1].grad, second[1].grad)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_references_own_gradient(variant):
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm_reference(x, w, 1e-6, variant), (x, weight))


@pytest.mark.parametrize(("variant", "module"), [("llama", "LlamaRMSNorm"), ("gemma", "GemmaRMSNorm")])
def test_the_reference_is_the_librarys(variant, module):
    if variant == "llama":
        from transformers.models.llama.modeling_llama import LlamaRMSNorm as Theirs
    else:
        from transformers.models.gemma.modeling_gemma import GemmaRMSNorm as Theirs
    x, weight = torch.randn(3, 64).bfloat16(), torch.randn(64).bfloat16()
    theirs = Theirs(64, eps=1e-6).bfloat16()
    theirs.weight.data.copy_(weight)
    assert torch.equal(theirs(x), rms_norm_reference(x, weight, 1e-6, variant))


@pytest.mark.parametrize(
    ("x", "weight", "variant", "error", "said"),
    [
        (torch.randn(2, 8), torch.ones(4), "llama", ValueError, r"weight has shape \(4,\): must be \(8,\)"),
        (torch.randn(2, 8), torch.ones(3, 8), "llama", ValueError, r"must be \(8,\)"),
        (torch.tensor(1.0), torch.ones(1), "llama", ValueError, r"x has shape \(\)"),
        (torch.empty(1, 65_537), torch.empty(65_537), "llama", ValueError, "65537: must be at most 65536"),
        (torch.ones(2, 8).int(), torch.ones(8), "llama", TypeError, "x is torch.int32"),
        (torch.ones(2, 8), torch.ones(8).int(), "llama", TypeError, "weight is torch.int32"),
        (torch.ones(2, 8), torch.ones(8, device="meta"), "llama", ValueError, "weight is on meta"),
        (torch.ones(2, 8), torch.ones(8), "qwen", ValueError, "'qwen': must be one of llama, gemma"),
    ],
)
def test_what_does_not_fit_is_named(x, weight, variant, error, said):
    with pytest.raises(error, match=said):
        rms_norm(x, weight, variant=variant)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", (192, 4096, 8192, 32_768))
def test_training_sizes(hidden, dtype):
    check(*inputs(4096, hidden, dtype))
