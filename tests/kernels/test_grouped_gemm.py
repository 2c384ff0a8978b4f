"""The grouped product: each expert's tokens against float64, empty experts, tokens of nobody, every gradient."""

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.grouped_gemm import grouped_gemm, grouped_gemm_reference
from malgil_kernels.grouped_gemm.triton_op import grouped_gemm_triton
from malgil_kernels.testing import DTYPES, TOLERANCE, check_op, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs(lengths, rows, columns, dtype, rest=0):
    generator = torch.Generator().manual_seed(rows * 7919 + columns)
    tokens = sum(lengths) + rest
    x = torch.randn(tokens, columns, generator=generator).to(dtype).to(DEVICE).requires_grad_()
    weight = (
        torch.randn(len(lengths), rows, columns, generator=generator).to(dtype).to(DEVICE).requires_grad_()
    )
    ends = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    return x, weight, torch.tensor(ends, dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("lengths", "rows", "columns", "rest"),
    [
        ([5, 0, 40, 1], 63, 100, 0),
        ([0, 0, 3], 1, 63, 4),
        ([130], 20, 70, 0),
        ([0, 0], 8, 16, 0),
        ([0, 0], 8, 16, 3),
        ([1] * 9, 16, 16, 1),
    ],
    ids=str,
)
def test_forward_and_every_gradient_match_float64(lengths, rows, columns, rest, dtype):
    x, weight, offsets = inputs(lengths, rows, columns, dtype, rest)
    check_op(grouped_gemm_triton, grouped_gemm_reference, x, weight, offsets)


def test_int64_offsets_and_strides():
    x, weight, offsets = inputs([3, 9], 24, 48, torch.float32)
    strided_x = torch.cat([x, x], dim=1).detach()[:, :48].requires_grad_()
    strided_w = torch.cat([weight, weight], dim=1).detach()[:, :24].requires_grad_()
    check_op(grouped_gemm_triton, grouped_gemm_reference, strided_x, strided_w, offsets.long())


def test_the_same_bits_twice():
    x, weight, offsets = inputs([33, 7], 40, 64, torch.float32)
    results = []
    for _ in range(2):
        x.grad = weight.grad = None
        y = grouped_gemm_triton(x, weight, offsets)
        y.square().sum().backward()
        results.append((y.detach().clone(), x.grad.clone(), weight.grad.clone()))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_token_beyond_two_to_the_31_elements():
    storage = torch.empty(2**31 + 4096, dtype=torch.int8)  # pages that nobody touches take no memory
    x = storage.view(torch.float16).as_strided((2, 32), (2**30 + 1024, 1))
    x.copy_(torch.randn(2, 32))
    _, weight, offsets = inputs([1, 1], 16, 32, torch.float16)
    wanted = grouped_gemm_reference(x.double(), weight.double(), offsets)
    assert relative_error(grouped_gemm_triton(x, weight, offsets), wanted) <= TOLERANCE[torch.float16]


def test_the_references_gradient_is_right():
    x, weight, offsets = inputs([2, 0, 1], 3, 4, torch.float64, rest=1)
    assert torch.autograd.gradcheck(lambda x, w: grouped_gemm_reference(x, w, offsets), (x, weight))


@pytest.mark.parametrize("wish", ["triton", "reference"])
def test_the_public_function_does_what_dispatch_says(monkeypatch, wish):
    monkeypatch.setenv("MALGIL_KERNELS", wish)
    x, weight, offsets = inputs([3, 2], 8, 16, torch.float32)
    wanted = grouped_gemm_reference(x.double(), weight.double(), offsets)
    assert relative_error(grouped_gemm(x, weight, offsets), wanted) <= TOLERANCE[torch.float32]


def test_wrong_arguments_are_named():
    x, weight, offsets = torch.ones(4, 8), torch.ones(2, 6, 8), torch.tensor([0, 2, 4])
    cases = [
        (r"x has shape \(4, 7\)", (torch.ones(4, 7), weight, offsets)),
        (r"weight \(6, 8\)", (x, weight[0], offsets)),
        (r"int64 of shape \(2,\)", (x, weight, offsets[:2])),
        ("offsets is torch.float32", (x, weight, offsets.float())),
        ("x is torch.float16 and weight torch.float32", (x.half(), weight, offsets)),
        ("x has inner stride 4", (torch.ones(8, 4).t(), weight, offsets)),
        ("1 to 1024", (x, torch.ones(1025, 1, 8), offsets)),
        ("weight is on meta", (x, weight.to("meta"), offsets)),
    ]
    for said, arguments in cases:
        with pytest.raises(ValueError, match=said):
            grouped_gemm(*arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("experts", [8, 128])
def test_the_shapes_of_a_mixture(experts):
    generator = torch.Generator().manual_seed(experts)
    lengths = torch.randint(0, 8192 // experts, (experts,), generator=generator).tolist()
    x, weight, offsets = inputs(lengths, 2048, 1024, torch.bfloat16, rest=100)
    check_op(grouped_gemm_triton, grouped_gemm_reference, x, weight, offsets)
