"""Layer norm, alone and with GELU behind it: kernels against the float64 reference, every gradient."""

import pytest
import torch

pytest.importorskip("triton")

import malgil_kernels
from malgil_kernels.layer_norm.reference import layer_norm_reference
from malgil_kernels.layer_norm.triton_op import LONGEST_BACKWARD, frames_inside, layer_norm_triton
from malgil_kernels.layer_norm_gelu.reference import layer_norm_gelu_reference
from malgil_kernels.row_tiles import LONGEST
from malgil_kernels.testing import AWKWARD_SIZES, DTYPES, TOLERANCE, check_op, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPS = ("layer_norm", "layer_norm_gelu")
REFERENCE = {"layer_norm": layer_norm_reference, "layer_norm_gelu": layer_norm_gelu_reference}


def random(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(n * 7919**i for i, n in enumerate(shape)))
    return torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)


def inputs(rows, hidden, dtype):
    weight, bias = random(hidden, dtype=dtype, seed=1), random(hidden, dtype=dtype, seed=2)
    return random(rows, hidden, dtype=dtype).requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def check(op, x, *channels, weight=True, bias=True):
    """`channels` are the weight and the bias that are there."""

    def call(function, x, channels):
        given = iter(channels)
        return function(x, next(given) if weight else None, next(given) if bias else None)

    wide = x.detach().double()
    r = torch.rsqrt(wide.var(dim=-1, unbiased=False, keepdim=True) + 1e-5)
    return check_op(
        lambda x, *c: call(lambda *a: layer_norm_triton(*a, 1e-5, op == "layer_norm_gelu"), x, c),
        lambda x, *c: call(lambda *a: REFERENCE[op](*a, 1e-5), x, c),
        x,
        *channels,
        # dx is a difference of nearly equal terms where a row is short: r·w bounds its rounding
        terms={0: r * channels[0].double() if weight else r} if x.numel() else None,
    )


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", AWKWARD_SIZES)
@pytest.mark.parametrize("rows", (1, 5))
def test_forward_and_every_gradient_match_float64(rows, hidden, dtype, op):
    check(op, *inputs(rows, hidden, dtype))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("weight", "bias"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("hidden", (100, LONGEST + 100))
def test_weight_and_bias_are_optional(op, hidden, weight, bias):
    x, w, b = inputs(3, hidden, torch.float32)
    channels = [tensor for tensor, given in ((w, weight), (b, bias)) if given]
    check(op, x, *channels, weight=weight, bias=bias)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", (LONGEST_BACKWARD + 100, LONGEST + 1000))
def test_rows_that_do_not_fit_in_registers(hidden, dtype, op):
    check(op, *inputs(2, hidden, dtype))


def test_the_longest_row():
    check("layer_norm", *inputs(1, 65_536, torch.bfloat16))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("frames", "channels"), [(2, 1), (37, 63), (40, 100), (17, 512)])
def test_a_convolutions_layout_is_read_and_kept(frames, channels, dtype, op):
    _, weight, bias = inputs(1, channels, dtype)
    x = random(3, channels, frames, dtype=dtype).transpose(1, 2).requires_grad_()
    assert frames_inside(x)
    check(op, x, weight, bias)
    y = layer_norm_triton(x, weight, bias, 1e-5)
    assert y.stride() == x.stride()


def test_a_convolutions_layout_may_be_a_slice():
    _, weight, bias = inputs(1, 10, torch.float32)
    x = random(2, 20, 33)[:, ::2, 1:30].transpose(1, 2)
    assert frames_inside(x)
    check("layer_norm_gelu", x.requires_grad_(), weight, bias)


def test_more_channels_than_a_tile_has_are_copied():
    _, weight, bias = inputs(1, 600, torch.float32)
    x = random(2, 600, 5).transpose(1, 2).requires_grad_()
    assert not frames_inside(x)
    check("layer_norm", x, weight, bias)


@pytest.mark.parametrize("hidden", (100, 600))
def test_more_tiles_than_backward_programs_are_all_summed(hidden, monkeypatch):
    monkeypatch.setattr("malgil_kernels.row_tiles.multiprocessors", lambda device: 1)
    check("layer_norm_gelu", *inputs(150 if hidden == 100 else 19, hidden, torch.float32))
    if hidden == 100:
        _, weight, bias = inputs(1, hidden, torch.float32)
        check("layer_norm", random(3, hidden, 30).transpose(1, 2).requires_grad_(), weight, bias)


def test_strided_input_is_read_by_its_strides():
    base = random(6, 40)
    _, weight, bias = inputs(1, 16, torch.float32)
    for view in (base[::2, :16], base[:, ::2][:, :16], base.reshape(2, 3, 40).transpose(0, 1)[..., :16]):
        check("layer_norm", view.detach().requires_grad_(), weight, bias)


def test_a_gradient_with_strides_of_zero_is_read_by_them():
    x, weight, bias = inputs(4, 30, torch.float32)
    layer_norm_triton(x, weight, bias, 1e-5, True).sum().backward()
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    layer_norm_gelu_reference(*wide, 1e-5).sum().backward()
    for got, wanted in zip((x, weight, bias), wide, strict=True):
        assert relative_error(got.grad, wanted.grad) <= TOLERANCE[torch.float32]


def test_a_large_mean_does_not_cancel_the_variance():
    x, weight, bias = inputs(3, 100, torch.float32)
    moved = (x.detach() + 1000).requires_grad_()
    y = layer_norm_triton(moved, weight, bias, 1e-5)
    # the rounding of a mean of 1000 is 2^-14 at most
    assert relative_error(y, layer_norm_reference(moved.double(), weight, bias, 1e-5)) < 2e-4


@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (2, 0, 8)])
def test_empty_input_gives_empty_output_and_zero_gradients(shape):
    x = torch.empty(shape, device=DEVICE, requires_grad=True)
    weight, bias = (torch.ones(shape[-1], device=DEVICE, requires_grad=True) for _ in range(2))
    layer_norm_triton(x, weight, bias, 1e-5).sum().backward()
    assert x.grad.shape == shape
    assert weight.grad.eq(0).all()
    assert bias.grad.eq(0).all()


def test_offsets_beyond_two_to_the_31_are_not_wrapped():
    # the third row begins 2^31 elements after the first, by a stride that 32 bits hold; three pages are touched
    try:
        memory = torch.empty(2**31 + 64, dtype=torch.bfloat16, device=DEVICE)
    except (RuntimeError, torch.OutOfMemoryError):
        pytest.skip("4 GiB of address space are not to be had")
    x = memory.as_strided((3, 64), (2**30, 1))
    x.copy_(torch.randn(3, 64))
    wide, dy = x.double().requires_grad_(), torch.randn(3, 64, device=DEVICE).bfloat16()
    y, truth = (
        layer_norm_triton(x.requires_grad_(), None, None, 1e-5),
        layer_norm_reference(wide, None, None, 1e-5),
    )
    assert relative_error(y, truth) <= TOLERANCE[torch.bfloat16]
    [dx], [true] = torch.autograd.grad(y, x, dy), torch.autograd.grad(truth, wide, dy.double())
    assert relative_error(dx, true) <= TOLERANCE[torch.bfloat16]


def test_the_same_input_gives_the_same_bits():
    first, second = (inputs(70, 100, torch.float32) for _ in range(2))
    for tensors in (first, second):
        layer_norm_triton(*tensors, 1e-5, True).square().sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("op", OPS)
def test_the_references_own_gradient(op):
    x, weight, bias = (t.detach().double().requires_grad_() for t in inputs(3, 7, torch.float32))
    assert torch.autograd.gradcheck(lambda *t: REFERENCE[op](*t, 1e-5), (x, weight, bias))


def test_the_reference_is_wav2vec2s_layer():
    from transformers import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2LayerNormConvLayer

    config = Wav2Vec2Config(
        conv_dim=(16,), conv_stride=(2,), conv_kernel=(3,), num_feat_extract_layers=1, conv_bias=True
    )
    layer = Wav2Vec2LayerNormConvLayer(config, layer_id=0).double()
    torch.nn.init.normal_(layer.layer_norm.weight)
    torch.nn.init.normal_(layer.layer_norm.bias)
    sound = random(2, 1, 50).double().cpu()
    normed = layer_norm_gelu_reference(
        layer.conv(sound).transpose(1, 2), layer.layer_norm.weight, layer.layer_norm.bias, 1e-5
    )
    assert relative_error(normed.transpose(1, 2), layer(sound)) <= TOLERANCE[torch.float64]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("weight", "bias", "error", "said"),
    [
        (torch.ones(4), None, ValueError, r"weight has shape \(4,\): must be \(8,\)"),
        (None, torch.ones(2, 8), ValueError, r"bias has shape \(2, 8\): must be \(8,\)"),
        (torch.ones(8).int(), None, TypeError, "weight is torch.int32: must be float32"),
        (None, torch.ones(8, device="meta"), ValueError, "bias is on meta: must be on x's device"),
    ],
)
def test_what_does_not_fit_is_named(op, weight, bias, error, said):
    with pytest.raises(error, match=said):
        getattr(malgil_kernels, op)(torch.ones(2, 8), weight, bias)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("wish", ["triton", "reference"])
def test_the_public_function_takes_the_dispatchers_choice(op, wish, monkeypatch):
    monkeypatch.setenv(f"MALGIL_KERNELS_{op.upper()}", wish)
    y = getattr(malgil_kernels, op)(*inputs(3, 64, torch.float32))
    assert ("LayerNormTriton" in str(y.grad_fn.next_functions)) == (wish == "triton")
    wanted = REFERENCE[op](*inputs(3, 64, torch.float32), 1e-5)
    torch.testing.assert_close(y, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", (192, 1024, 4096, 8192, 32_768))
def test_training_sizes(hidden, dtype, op):
    check(op, *inputs(4096, hidden, dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("frames", (16_000, 15_999))
def test_a_convolutions_output_at_training_size(frames, dtype):
    _, weight, bias = inputs(1, 512, dtype)
    check(
        "layer_norm_gelu", random(16, 512, frames, dtype=dtype).transpose(1, 2).requires_grad_(), weight, bias
    )
