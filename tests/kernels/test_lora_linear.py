"""LoRA linear: every format and path against float64 of the dequantised weight, forward and gradients."""

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.lora_linear import (
    blocks,
    lora_linear,
    lora_linear_grouped,
    lora_linear_grouped_reference,
    lora_linear_reference,
    row_bounds,
    triton_op,
)
from malgil_kernels.quantise import quantise_q8_0, reference, stack_rows
from malgil_kernels.testing import DTYPES, TOLERANCE, check_op, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

FORMATS = {
    "dense": lambda w: w,
    "int8": reference.quantise_int8_reference,
    "fp8 rows": lambda w: reference.quantise_fp8_reference(w, False),
    "fp8 blocks": lambda w: reference.quantise_fp8_reference(w, True),
    "int4 32": lambda w: reference.quantise_int4_reference(w, 32, True),
    "int4 64 with zero": lambda w: reference.quantise_int4_reference(w, 64, False),
    "int4 128 with zero": lambda w: reference.quantise_int4_reference(w, 128, False),
    "nf4": lambda w: reference.quantise_nf4_reference(w, "cuda"),
}
PATHS = {1: "decode", 20: "decode", 40: "tiles", 70: "tiles", 33: "blocks"}  # tokens: path


def values(*shape, seed, dtype, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).to(dtype).to(DEVICE)


def weight_of(form, rows, columns, dtype):
    return FORMATS[form](values(rows, columns, seed=rows + columns, dtype=dtype, scale=0.05))


def wide_matrix(weight):
    return weight.double() if isinstance(weight, torch.Tensor) else weight.dequantise(torch.float64)


def check(form, tokens, rows, columns, rank, dtype, fused=True, bias=True):
    weight = weight_of(form, rows, columns, dtype)
    matrix = wide_matrix(weight)
    x = values(tokens, columns, seed=1, dtype=dtype).requires_grad_()
    # not one whose product with x is near 0: over one row and rank 1 the gradient of B is that product alone,
    # and how it rounds depends on the order in which a BLAS adds
    a = values(rank, columns, seed=8, dtype=dtype, scale=0.1).requires_grad_()
    b = values(rows, rank, seed=3, dtype=dtype).requires_grad_()
    more = (values(rows, seed=4, dtype=dtype).requires_grad_(),) if bias else ()

    def kernel(x, a, b, bias=None):
        return triton_op.lora_linear_triton(x, weight, a, b, 0.5, bias, [(0, rows)], None, fused)

    def truth(x, a, b, bias=None):
        return lora_linear_reference(x, matrix, a, b, 0.5, bias)

    return check_op(kernel, truth, x, a, b, *more)


@pytest.mark.parametrize("tokens", PATHS)
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_on_every_path(form, tokens):
    dtype = DTYPES[(tokens + len(form)) % 3]  # each format meets each dtype on some path
    fused = PATHS[tokens] != "blocks"
    weight = weight_of(form, 60, 192, dtype)
    path = triton_op.choose_path(triton_op.operands(weight), tokens, 192, fused)
    assert path == ("matmul" if form == "dense" and not fused else PATHS[tokens])
    check(form, tokens, 60, 192, 3, dtype, fused)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [5, 40])
def test_nf4_in_every_dtype(tokens, dtype):
    check("nf4", tokens, 100, 128, 16, dtype)


@pytest.mark.parametrize(
    ("form", "rows", "columns"),
    [
        ("dense", 63, 100),
        ("int8", 1, 300),
        ("fp8 blocks", 130, 100),
        ("int4 32", 63, 100),
        ("int4 128 with zero", 1, 300),
        ("int4 64 with zero", 7, 63),
        ("nf4", 63, 100),
        ("nf4", 3, 63),
        ("int8", 1, 1),
        ("dense", 1, 1),
    ],
)
def test_odd_sizes(form, rows, columns):
    for tokens in (1, 35):
        check(form, tokens, rows, columns, 1, torch.float32, bias=tokens == 1)


def test_many_splits_are_all_added():
    form, columns = "int8", 1024  # 8 steps: two splits
    check(form, 3, 20, columns, 5, torch.float32)
    x, weight = values(3, columns, seed=1, dtype=torch.float32), weight_of(form, 20, columns, torch.float32)
    a, b = (values(*shape, seed=2, dtype=torch.float32) for shape in ((5, columns), (20, 5)))
    arguments = (x, weight, a, b, 0.5, None, [(0, 20)], None, True)
    assert torch.equal(triton_op.lora_linear_triton(*arguments), triton_op.lora_linear_triton(*arguments))


def test_blocks_are_cut_and_put_together(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 128 * 128 * 4)  # one unit of rows, or of columns, at a time
    check("nf4", 5, 300, 128, 4, torch.float32, fused=False)
    check("int4 64 with zero", 5, 200, 160, 4, torch.float32, fused=False)


def test_no_buffer_of_the_weights_size(monkeypatch):
    sizes = []
    plain = torch.empty
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 128 * 128 * 4)
    monkeypatch.setattr(torch, "empty", lambda *size, **more: (sizes.append(size), plain(*size, **more))[1])
    x = values(2, 256, seed=1, dtype=torch.float32).requires_grad_()
    a, b = (values(*shape, seed=2, dtype=torch.float32) for shape in ((2, 256), (256, 2)))
    weight = weight_of("nf4", 256, 256, torch.float32)
    y = triton_op.lora_linear_triton(x, weight, a, b, 1.0, None, [(0, 256)], None, False)
    y.sum().backward()
    counts = [torch.Size(size).numel() for size in sizes if all(isinstance(n, int) for n in size)]
    assert max(counts) == 256 * 256 // 2  # half of W, forward and backward


def test_strides_and_leading_dimensions():
    weight = weight_of("nf4", 40, 128, torch.float32)
    base = values(2, 6, 160, seed=1, dtype=torch.float32)
    a, b = (
        values(4, 136, seed=2, dtype=torch.float32)[:, :128],
        values(4, 40, seed=3, dtype=torch.float32).t(),
    )
    for x in (base[:, ::2, :128], base[:, :, 32:], base.transpose(0, 1)[..., :128], base[0, 0, :128]):
        y = triton_op.lora_linear_triton(x, weight, a, b, 0.5, None, [(0, 40)], None, True)
        assert y.shape == (*x.shape[:-1], 40)
        wanted = lora_linear_reference(x.double(), wide_matrix(weight), a.double(), b.double(), 0.5)
        assert relative_error(y, wanted) <= TOLERANCE[torch.float32]


def test_an_input_row_beyond_two_to_the_31_elements():
    storage = torch.empty(2**31 + 4096, dtype=torch.int8)  # pages that nobody touches take no memory
    x = storage.view(torch.float16).as_strided((2, 64), (2**30 + 1024, 1))
    x.copy_(values(2, 64, seed=1, dtype=torch.float16))
    weight = weight_of("int8", 20, 64, torch.float16)
    a, b = (values(*shape, seed=2, dtype=torch.float16) for shape in ((2, 64), (20, 2)))
    wanted = lora_linear_reference(x.double(), wide_matrix(weight), a.double(), b.double(), 0.5)
    y = triton_op.lora_linear_triton(x, weight, a, b, 0.5, None, [(0, 20)], None, True)
    assert relative_error(y, wanted) <= TOLERANCE[torch.float16]


@pytest.mark.parametrize("fused", [True, False])
def test_no_tokens_give_no_tokens_and_zero_gradients(fused):
    weight = weight_of("nf4", 16, 64, torch.float32)
    x = torch.empty(0, 64, device=DEVICE, requires_grad=True)
    a = torch.ones(2, 64, device=DEVICE, requires_grad=True)
    b = torch.ones(16, 2, device=DEVICE, requires_grad=True)
    y = triton_op.lora_linear_triton(x, weight, a, b, 0.5, None, [(0, 16)], None, fused)
    y.sum().backward()
    assert y.shape == (0, 16)
    assert x.grad.shape == (0, 64)
    assert a.grad.eq(0).all() and b.grad.eq(0).all()


@pytest.mark.parametrize(
    ("form", "tokens", "fused"),
    [
        ("nf4", 3, True),
        ("nf4", 40, True),
        ("nf4", 3, False),
        ("int4 64 with zero", 40, True),
        ("int8", 3, True),
    ],
)
def test_weights_of_other_widths_in_one_launch(form, tokens, fused):
    dtype, sizes, columns, rank = torch.float32, (256, 37, 27), 64, 3
    parts = [FORMATS[form](values(size, columns, seed=size, dtype=dtype)) for size in sizes[:1]]
    rest = FORMATS[form](
        values(64, columns, seed=5, dtype=dtype)
    )  # NF4's statistics would not end with 37 rows
    stack = stack_rows([*parts, rest])
    x = values(tokens, columns, seed=1, dtype=dtype).requires_grad_()
    a = [values(rank, columns, seed=10 + i, dtype=dtype).requires_grad_() for i in range(3)]
    b = [values(size, rank, seed=20 + i, dtype=dtype).requires_grad_() for i, size in enumerate(sizes)]
    matrix = stack.dequantise(torch.float64)

    def kernel(x, *both):
        ends = (256, 293, 320)
        segments = [(0, 256), (256, 293), (293, 320)]
        bounds = row_bounds(sizes, x.device)
        assert tuple(bounds.tolist()) == (0, *ends)
        y = triton_op.lora_linear_triton(
            x, stack, torch.cat(both[:3]), torch.cat(both[3:]), 0.5, None, segments, bounds, fused
        )
        return y.split(sizes, dim=-1)

    def truth(x, *both):
        return lora_linear_grouped_reference(x, matrix, both[:3], both[3:], 0.5)

    check_op(kernel, truth, x, *a, *b)


@pytest.mark.parametrize("wish", ["triton", "reference"])
def test_the_public_functions_do_what_dispatch_says(monkeypatch, wish):
    monkeypatch.setenv("MALGIL_KERNELS", wish)
    weight = weight_of("int8", 24, 64, torch.float32)
    x = values(2, 3, 64, seed=1, dtype=torch.float32)
    a, b = (values(*shape, seed=2, dtype=torch.float32) for shape in ((2, 64), (24, 2)))
    bias = values(24, seed=3, dtype=torch.float32)
    wide = [tensor.double() for tensor in (x, wide_matrix(weight), a, b)]
    wanted = lora_linear_reference(*wide, 0.5, bias.double())
    assert relative_error(lora_linear(x, weight, a, b, 0.5, bias), wanted) <= TOLERANCE[torch.float32]
    down, up = [a, 2 * a], [b[:10], b[10:]]
    parts = lora_linear_grouped(x, weight, down, up, 0.5, bias)
    wanted = lora_linear_grouped_reference(
        wide[0], wide[1], [m.double() for m in down], [m.double() for m in up], 0.5, bias.double()
    )
    assert [part.shape[-1] for part in parts] == [10, 14]
    for part, true in zip(parts, wanted, strict=True):
        assert part.stride(-1) == 1
        assert relative_error(part, true) <= TOLERANCE[torch.float32]


def test_the_references_gradient_is_right():
    weight = weight_of("int4 32", 3, 8, torch.float64)
    x, a, b = (
        values(*shape, seed=i, dtype=torch.float64).requires_grad_()
        for i, shape in enumerate(((2, 8), (2, 8), (3, 2)))
    )
    assert torch.autograd.gradcheck(lambda x, a, b: lora_linear_reference(x, weight, a, b, 0.5), (x, a, b))


def test_wrong_arguments_are_named():
    weight = weight_of("int8", 6, 8, torch.float32)
    x, a, b = torch.ones(2, 8), torch.ones(2, 8), torch.ones(6, 2)
    cases = [
        (ValueError, r"x has shape \(2, 7\)", (torch.ones(2, 7), weight, a, b)),
        (ValueError, "x is torch.int32", (x.int(), weight, a, b)),
        (ValueError, r"a has shape \(2, 7\)", (x, weight, torch.ones(2, 7), b)),
        (ValueError, r"b has shape \(6, 3\)", (x, weight, a, torch.ones(6, 3))),
        (ValueError, "b has 5 rows: must have 6", (x, weight, a, torch.ones(5, 2))),
        (ValueError, "a is torch.float16", (x, weight, a.half(), b)),
        (ValueError, "a has rank 129", (x, weight, torch.ones(129, 8), torch.ones(6, 129))),
        (ValueError, "weight is torch.float16", (x, torch.ones(6, 8).half(), a, b)),
        (ValueError, "requires a gradient", (x, torch.ones(6, 8, requires_grad=True), a, b)),
        (ValueError, "inner stride 6", (x, torch.ones(8, 6).t(), a, b)),
        (TypeError, "q8_0, a file format", (torch.ones(2, 32), quantise_q8_0(torch.ones(6, 32)), a, b)),
        (ValueError, "weight is on cpu", (x.to("meta"), torch.ones(6, 8), a, b)),
    ]
    for error, said, arguments in cases:
        with pytest.raises(error, match=said):
            lora_linear(*arguments, 1.0)
    with pytest.raises(ValueError, match=r"bias is torch.float32 of shape \(5,\)"):
        lora_linear(x, weight, a, b, 1.0, torch.ones(5))
    with pytest.raises(ValueError, match="a holds 1 and b 2"):
        lora_linear_grouped(x, weight, [a], [b, b], 1.0)
    with pytest.raises(ValueError, match=r"ranks \[2, 1\]"):
        lora_linear_grouped(x, weight, [a, a[:1]], [b[:3], b[3:, :1]], 1.0)
    with pytest.raises(ValueError, match=r"\[6, 6\] rows: must add up to 6"):
        lora_linear_grouped(x, weight, [a, a], [b, b], 1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 8, 32, 64, 256, 512, 2048])
@pytest.mark.parametrize("form", FORMATS)
def test_the_shapes_of_an_8b_model(form, tokens):
    check(form, tokens, 14_336, 4096, 16, torch.bfloat16, fused=tokens <= 512)


@pytest.mark.gpu
def test_peak_memory_has_no_room_for_the_weight():
    weight = weight_of("nf4", 14_336, 4096, torch.bfloat16)
    x = values(64, 4096, seed=1, dtype=torch.bfloat16).requires_grad_()
    a, b = (values(*shape, seed=2, dtype=torch.bfloat16) for shape in ((16, 4096), (14_336, 16)))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    lora_linear_triton = triton_op.lora_linear_triton
    lora_linear_triton(x, weight, a, b, 1.0, None, [(0, 14_336)], None, False).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 14_336 * 4096 * 2 // 2
