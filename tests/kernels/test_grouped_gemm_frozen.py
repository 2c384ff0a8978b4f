"""Frozen experts: quantised weights in every format, and a LoRA of each expert, against float64."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.grouped_gemm import (
    grouped_gemm,
    grouped_gemm_reference,
    lora_grouped_gemm,
    lora_grouped_gemm_reference,
)
from malgil_kernels.grouped_gemm.frozen_triton_op import (
    lora_grouped_gemm_triton,
    quantised_grouped_gemm_triton,
)
from malgil_kernels.grouped_gemm.launch_frozen import (
    experts_of,
    launch_frozen_input_gradient,
    launch_frozen_product,
)
from malgil_kernels.quantise import quantise_q8_0, reference, stack_rows
from malgil_kernels.testing import DTYPES, TOLERANCE, check_op, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

FORMATS = {
    "int8": reference.quantise_int8_reference,
    "fp8 rows": lambda w: reference.quantise_fp8_reference(w, False),
    "fp8 blocks": lambda w: reference.quantise_fp8_reference(w, True),
    "int4 32": lambda w: reference.quantise_int4_reference(w, 32, True),
    "int4 64 with zero": lambda w: reference.quantise_int4_reference(w, 64, False),
    "int4 128 with zero": lambda w: reference.quantise_int4_reference(w, 128, False),
    "nf4": lambda w: reference.quantise_nf4_reference(w, "cuda"),
}
UNEVEN = [5, 0, 40, 1]  # tokens of each expert


def values(*shape, seed, dtype, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).to(dtype).to(DEVICE)


def offsets_of(lengths):
    ends = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    return torch.tensor(ends, dtype=torch.int32, device=DEVICE)


def weight_of(form, experts, rows, columns, dtype=torch.float32):
    """The weight, and the experts' matrices in float64."""
    w = values(experts * rows, columns, seed=rows + columns, dtype=dtype, scale=0.05)
    if form == "dense":
        w = w.view(experts, rows, columns)
        return w, w.double()
    weight = FORMATS[form](w)
    return weight, weight.dequantise(torch.float64).view(experts, rows, columns)


def check(form, lengths, rows, columns, dtype, rest=0, rank=0):
    experts, offsets = len(lengths), offsets_of(lengths)
    weight, matrices = weight_of(form, experts, rows, columns, dtype)
    x = values(sum(lengths) + rest, columns, seed=1, dtype=dtype).requires_grad_()
    if not rank:
        return check_op(
            lambda x: quantised_grouped_gemm_triton(x, weight, offsets),
            lambda x: grouped_gemm_reference(x, matrices, offsets),
            x,
        )
    a = values(experts, rank, columns, seed=2, dtype=dtype, scale=0.1).requires_grad_()
    b = values(experts, rows, rank, seed=3, dtype=dtype).requires_grad_()
    return check_op(
        lambda x, a, b: lora_grouped_gemm_triton(x, weight, offsets, a, b, 0.5),
        lambda x, a, b: lora_grouped_gemm_reference(x, matrices, offsets, a, b, 0.5),
        x,
        a,
        b,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_and_dtype_over_uneven_groups(form, dtype):
    check(form, UNEVEN, 63, 192, dtype, rest=2)  # 63 rows: an fp8 block lies in three experts


@pytest.mark.parametrize("form", ["dense", *FORMATS])
def test_a_lora_of_each_expert(form):
    check(form, UNEVEN, 60, 192, DTYPES[len(form) % 3], rest=2, rank=3)


@pytest.mark.parametrize("form", ["int8", "fp8 blocks", "int4 32", "nf4"])
@pytest.mark.parametrize("lengths", [[30, 20], [70, 9], [130]], ids=["32 a tile", "64 a tile", "128 a tile"])
def test_many_tokens_of_an_expert(form, lengths):
    check(form, lengths, 144, 128, torch.float16, rank=40 if form == "nf4" else 0)


@pytest.mark.parametrize(
    ("form", "rows", "columns"),
    [
        ("int8", 1, 1),
        ("int8", 63, 100),
        ("fp8 blocks", 130, 100),
        ("int4 32", 63, 100),
        ("int4 32", 16, 102),
        ("int4 64 with zero", 7, 63),
        ("int4 128 with zero", 1, 300),
        ("nf4", 63, 100),
        ("nf4", 3, 63),
        ("nf4", 1, 64),
        ("dense", 1, 1),
        ("dense", 63, 100),
    ],
)
def test_odd_sizes(form, rows, columns):
    if form != "dense":
        check(form, [3, 0, 33], rows, columns, torch.float32, rest=1)
    check(form, [1], rows, columns, torch.float32, rank=1)


@pytest.mark.parametrize("lengths", [[0, 0], [0, 0, 3], [1] * 9], ids=str)
@pytest.mark.parametrize("rest", [0, 3])
def test_empty_experts_and_tokens_of_nobody(lengths, rest):
    check("nf4", lengths, 16, 64, torch.float32, rest)
    check("int8", lengths, 16, 64, torch.float32, rest, rank=2)


def test_experts_quantised_apart_and_stacked():
    parts = [FORMATS["nf4"](values(256, 64, seed=n, dtype=torch.float32, scale=n + 1)) for n in range(3)]
    offsets, x = offsets_of([3, 1, 4]), values(8, 64, seed=9, dtype=torch.float32)
    y = quantised_grouped_gemm_triton(x, stack_rows(parts), offsets)
    for number, part in enumerate(parts):
        start, end = offsets[number], offsets[number + 1]
        wanted = x[start:end].double() @ part.dequantise(torch.float64).t()
        assert relative_error(y[start:end], wanted) <= TOLERANCE[torch.float32]


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy's, of the interpreter: 0 · inf
@pytest.mark.parametrize("rank", [0, 2])
def test_no_expert_reaches_into_another(rank):
    weight, _ = weight_of("int8", 3, 20, 64)
    scale = weight.scale.clone()
    scale[:20] = scale[40:] = torch.inf  # decoded outside its expert it would leave NaN
    weight = replace(weight, scale=scale)
    offsets = offsets_of([0, 5, 0])
    x = values(8, 64, seed=1, dtype=torch.float32).requires_grad_()  # the last 3 of nobody
    if rank:
        a, b = (values(*s, seed=2, dtype=torch.float32) for s in ((3, rank, 64), (3, 20, rank)))
        a[::2] = b[::2] = torch.inf
        y = lora_grouped_gemm_triton(x, weight, offsets, a, b, 0.5)
    else:
        y = quantised_grouped_gemm_triton(x, weight, offsets)
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert y[:5].ne(0).any() and y[5:].eq(0).all() and x.grad[5:].eq(0).all()


def test_int64_offsets_and_strides():
    offsets = offsets_of([3, 9]).long()
    weight, matrices = weight_of("nf4", 2, 24, 64)
    wide = values(12, 100, seed=1, dtype=torch.float32)
    x = wide[:, 3:67].requires_grad_()
    a = values(2, 64, 3, seed=2, dtype=torch.float32).transpose(1, 2).requires_grad_()
    b = values(2, 3, 24, seed=3, dtype=torch.float32).transpose(1, 2).requires_grad_()
    check_op(
        lambda x, a, b: lora_grouped_gemm_triton(x, weight, offsets, a, b, 0.5),
        lambda x, a, b: lora_grouped_gemm_reference(x, matrices, offsets, a, b, 0.5),
        x,
        a,
        b,
    )
    apart = values(2, 30, 80, seed=4, dtype=torch.float32)[:, :24, :64]  # no (48, 64) view of it
    check_op(
        lambda x, a, b: lora_grouped_gemm_triton(x, apart, offsets, a, b, 0.5),
        lambda x, a, b: lora_grouped_gemm_reference(x, apart.double(), offsets, a, b, 0.5),
        x,
        a,
        b,
    )


def test_an_output_gradient_of_any_strides():
    weight, matrices = weight_of("int8", 2, 16, 64)
    offsets = offsets_of([2, 3])
    x, a, b = (
        values(*s, seed=1, dtype=torch.float32).requires_grad_() for s in ((5, 64), (2, 3, 64), (2, 16, 3))
    )
    leaves = (x, a, b)
    wide = [tensor.detach().double().requires_grad_() for tensor in leaves]
    truth = lora_grouped_gemm_reference(wide[0], matrices, offsets, *wide[1:], 0.5)
    across = values(16, 5, seed=2, dtype=torch.float32).t()
    for dy in (across, torch.ones((), device=DEVICE).expand(5, 16)):
        y = lora_grouped_gemm_triton(x, weight, offsets, a, b, 0.5)
        wanted = torch.autograd.grad(truth, wide, dy.double(), retain_graph=True)
        for found, true in zip(torch.autograd.grad(y, leaves, dy), wanted, strict=True):
            assert relative_error(found, true) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize(
    ("form", "rows", "columns"), [("int8", 0, 64), ("int8", 8, 0), ("int4 64 with zero", 8, 0)]
)
def test_no_rows_or_no_columns(form, rows, columns):
    weight = FORMATS[form](torch.ones(2 * rows, columns, device=DEVICE))
    x = torch.ones(3, columns, device=DEVICE, requires_grad=True)
    y = quantised_grouped_gemm_triton(x, weight, offsets_of([1, 2]))
    y.sum().backward()
    assert y.shape == (3, rows) and y.eq(0).all()
    assert x.grad.shape == (3, columns) and x.grad.eq(0).all()


def test_the_gradients_asked_for_and_no_others():
    weight, _ = weight_of("int8", 2, 16, 64)
    x, a, b = (values(*s, seed=1, dtype=torch.float32) for s in ((5, 64), (2, 3, 64), (2, 16, 3)))
    offsets = offsets_of([2, 3])
    every = [tensor.clone().requires_grad_() for tensor in (x, a, b)]
    lora_grouped_gemm_triton(every[0], weight, offsets, *every[1:], 0.5).square().sum().backward()
    for number in range(3):
        one = [tensor.clone().requires_grad_(n == number) for n, tensor in enumerate((x, a, b))]
        lora_grouped_gemm_triton(one[0], weight, offsets, *one[1:], 0.5).square().sum().backward()
        assert [tensor.grad is not None for tensor in one] == [n == number for n in range(3)]
        assert torch.equal(one[number].grad, every[number].grad)


def test_the_same_bits_twice():
    weight, _ = weight_of("nf4", 2, 40, 64)
    results = []
    for _ in range(2):
        leaves = [
            values(*s, seed=1, dtype=torch.float32).requires_grad_()
            for s in ((40, 64), (2, 3, 64), (2, 40, 3))
        ]
        y = lora_grouped_gemm_triton(leaves[0], weight, offsets_of([33, 7]), *leaves[1:], 0.5)
        y.square().sum().backward()
        results.append((y.detach(), *(leaf.grad for leaf in leaves)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_weight_is_never_in_memory_and_neither_is_x_kept(monkeypatch):
    weight, _ = weight_of("nf4", 4, 64, 256)
    x = values(8, 256, seed=1, dtype=torch.float32).requires_grad_()
    offsets, made, saved = offsets_of([3, 3, 1, 1]), [], []
    for name in ("empty", "empty_like", "zeros"):
        plain = getattr(torch, name)

        def allocate(*size, plain=plain, **more):
            made.append(plain(*size, **more))
            return made[-1]

        monkeypatch.setattr(torch, name, allocate)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        y = quantised_grouped_gemm_triton(x, weight, offsets)
    y.sum().backward()
    assert max(tensor.numel() for tensor in made) == 8 * 256  # y and dx; W has 65,536
    assert sum(tensor.numel() for tensor in saved) == 5  # the offsets


def test_weights_beyond_two_to_the_31_elements():
    weight, matrices = weight_of("int8", 2, 2, 64)
    stride = 2**30 + 64  # from row to row: the second expert lies at 2^31 bytes
    storage = torch.empty(3 * stride + 64, dtype=torch.int8, device=DEVICE)  # untouched pages take no memory
    codes = storage.as_strided((4, 64), (stride, 1)).copy_(weight.values)
    w = experts_of(weight, 2)
    w = w._replace(about=w.about._replace(pointers=(codes, *w.about.pointers[1:]), row_stride=stride))
    x, dy = values(5, 64, seed=1, dtype=torch.float32), values(5, 2, seed=2, dtype=torch.float32)
    offsets = offsets_of([2, 3])
    y, dx = launch_frozen_product(x, w, offsets), launch_frozen_input_gradient(dy, w, offsets)
    wanted = grouped_gemm_reference(x.double(), matrices, offsets)
    assert relative_error(y, wanted) <= TOLERANCE[torch.float32]
    wanted = grouped_gemm_reference(dy.double(), matrices.transpose(1, 2), offsets)
    assert relative_error(dx, wanted) <= TOLERANCE[torch.float32]


def test_the_references_gradient_is_right():
    weight, _ = weight_of("int4 32", 3, 3, 8, torch.float64)
    x, a, b = (
        values(*shape, seed=i, dtype=torch.float64).requires_grad_()
        for i, shape in enumerate(((4, 8), (3, 2, 8), (3, 3, 2)))
    )
    offsets = offsets_of([2, 0, 1])
    assert torch.autograd.gradcheck(
        lambda x, a, b: lora_grouped_gemm_reference(x, weight, offsets, a, b, 0.5), (x, a, b)
    )


@pytest.mark.parametrize("wish", ["triton", "reference"])
@pytest.mark.parametrize("form", ["dense", "int8"])
def test_the_public_functions_do_what_dispatch_says(monkeypatch, wish, form):
    monkeypatch.setenv("MALGIL_KERNELS", wish)
    weight, matrices = weight_of(form, 2, 8, 16)
    x, offsets = values(5, 16, seed=1, dtype=torch.float32), offsets_of([3, 2])
    a, b = (values(*s, seed=2, dtype=torch.float32) for s in ((2, 3, 16), (2, 8, 3)))
    wanted = grouped_gemm_reference(x.double(), matrices, offsets)
    assert relative_error(grouped_gemm(x, weight, offsets), wanted) <= TOLERANCE[torch.float32]
    wanted = lora_grouped_gemm_reference(x.double(), matrices, offsets, a.double(), b.double(), 2)
    y = lora_grouped_gemm(x, weight, offsets, a, b, 2)
    assert relative_error(y, wanted) <= TOLERANCE[torch.float32]


def test_wrong_quantised_weights_are_named():
    x, offsets = torch.ones(4, 8), torch.tensor([0, 2, 4])
    weight = reference.quantise_int8_reference(torch.ones(12, 8))
    trained = replace(weight, scale=weight.scale.clone().requires_grad_())
    cases = [
        (ValueError, r"x has shape \(4, 7\) and weight \(12, 8\)", (torch.ones(4, 7), weight, offsets)),
        (ValueError, "weight has 12 rows, offsets 6 numbers: .* of 5 experts", (x, weight, torch.arange(6))),
        (ValueError, "weight has 0 experts: must be 1 to 1024", (x, weight, offsets[:1])),
        (ValueError, r"int64 of shape \(1, 3\)", (x, weight, offsets[None])),
        (ValueError, "offsets is torch.float32", (x, weight, offsets.float())),
        (ValueError, "x is torch.int32: must be one of", (x.int(), weight, offsets)),
        (ValueError, "x has inner stride 4", (torch.ones(8, 4).t(), weight, offsets)),
        (ValueError, "weight is on meta", (x, weight.to("meta"), offsets)),
        (ValueError, r"weight.scale requires a gradient: .* Next: detach", (x, trained, offsets)),
        (TypeError, "q8_0, a file format", (torch.ones(2, 32), quantise_q8_0(torch.ones(6, 32)), offsets)),
    ]
    for error, said, arguments in cases:
        with pytest.raises(error, match=said):
            grouped_gemm(*arguments)


def test_a_wrong_lora_is_named():
    x, weight, offsets = torch.ones(4, 8), torch.ones(2, 6, 8), torch.tensor([0, 2, 4])
    a, b = torch.ones(2, 3, 8), torch.ones(2, 6, 3)
    trained = weight.clone().requires_grad_()
    cases = [
        (r"weight \(6, 8\)", (x, weight[0], offsets, a, b)),
        ("weight requires a gradient: W is frozen", (x, trained, offsets, a, b)),
        (r"a has shape \(1, 3, 8\): must be \(2, rank, 8\)", (x, weight, offsets, a[:1], b)),
        (r"a has shape \(3, 8\)", (x, weight, offsets, a[0], b)),
        (r"b has shape \(2, 5, 3\): must be \(2, 6, 3\)", (x, weight, offsets, a, b[:, :5])),
        ("a is torch.float16 on cpu: must be torch.float32", (x, weight, offsets, a.half(), b)),
        ("b is torch.float32 on meta", (x, weight, offsets, a, b.to("meta"))),
        ("a has rank 129", (x, weight, offsets, torch.ones(2, 129, 8), torch.ones(2, 6, 129))),
        ("a has rank 0", (x, weight, offsets, a[:, :0], b[..., :0])),
    ]
    for said, arguments in cases:
        with pytest.raises(ValueError, match=said):
            lora_grouped_gemm(*arguments, 1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("experts", [8, 128])
@pytest.mark.parametrize("form", ["dense", *FORMATS])
def test_the_shapes_of_a_mixture(form, experts):
    generator = torch.Generator().manual_seed(experts)
    lengths = torch.randint(0, 8192 // experts, (experts,), generator=generator).tolist()
    for rank in (16,) if form == "dense" else (0, 16):
        check(form, lengths, 768, 2048, torch.bfloat16, rest=100, rank=rank)
