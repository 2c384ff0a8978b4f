"""SwiGLU and GeGLU: the kernels against the float64 reference and against transformers' own MLPs."""

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.glu import ACTIVATIONS, glu, glu_halves
from malgil_kernels.glu.reference import glu_reference
from malgil_kernels.testing import AWKWARD_SIZES, DTYPES, TOLERANCE, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def by_kernel(monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")


def random(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (2 * torch.randn(*shape, generator=generator)).to(dtype).to(DEVICE)


def truth(gate, up, dy, activation):
    wide = [x.detach().double().requires_grad_() for x in (gate, up)]
    y = glu_reference(*wide, activation)
    return y, *torch.autograd.grad(y, wide, dy.double())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("width", AWKWARD_SIZES)
@pytest.mark.parametrize("rows", (1, 5))
def test_forward_and_gradients_match_float64(rows, width, activation, dtype):
    gate, up, dy = (random(rows, width, dtype=dtype, seed=i) for i in range(3))
    leaves = [x.requires_grad_() for x in (gate, up)]
    y = glu(gate, up, activation)
    results = (y, *torch.autograd.grad(y, leaves, dy))
    for result, wanted in zip(results, truth(gate, up, dy, activation), strict=True):
        assert result.dtype == dtype
        assert relative_error(result, wanted) <= TOLERANCE[dtype]


@pytest.mark.parametrize("in_place", (False, True), ids=("new", "in place"))
@pytest.mark.parametrize("width", (63, 1030))
def test_halves_of_one_tensor_get_one_gradient(width, in_place):
    leaf, dy = random(2, 3, 2 * width).requires_grad_(), random(2, 3, width, seed=1)
    gate_up = leaf * 1
    y = glu_halves(gate_up, "gelu_tanh", gradient_in_place=in_place)
    (gradient,) = torch.autograd.grad(y, gate_up, dy)
    assert (gradient.data_ptr() == gate_up.data_ptr()) is in_place
    wanted_y, *halves = truth(*leaf.chunk(2, -1), dy, "gelu_tanh")
    assert relative_error(y, wanted_y) <= TOLERANCE[torch.float32]
    assert relative_error(gradient, torch.cat(halves, -1)) <= TOLERANCE[torch.float32]


def test_gradients_in_place_stay_inside_and_a_second_backward_raises():
    before = random(6, 40)
    leaf = before.clone().requires_grad_()
    whole = leaf * 1
    gate, up, dy = whole[:, 3:15], whole[:, 20:32], random(6, 12)
    y = glu(gate, up, gradient_in_place=True)
    (gradient,) = torch.autograd.grad(y, leaf, dy, retain_graph=True)
    _, wanted_dgate, wanted_dup = truth(before[:, 3:15], before[:, 20:32], dy, "silu")
    for columns, wanted in ((slice(3, 15), wanted_dgate), (slice(20, 32), wanted_dup)):
        assert relative_error(gradient[:, columns], wanted) <= TOLERANCE[torch.float32]
        assert torch.equal(whole[:, columns], gradient[:, columns])
    for guard in (slice(0, 3), slice(15, 20), slice(32, 40)):
        assert torch.equal(whole[:, guard], before[:, guard])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y, leaf, dy)


def test_another_function_that_needs_the_overwritten_values_raises():
    gate, up = (random(2, 8, seed=i).requires_grad_() * 1 for i in range(2))
    square = gate**2
    y = glu(gate, up, gradient_in_place=True)
    torch.autograd.grad(y.sum(), gate, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.sum().backward()


def test_any_stride_is_read():
    gate, up = random(6, 80)[::2, 8:72], random(64, 3, seed=1).t()
    for shape in ((3, 64), (3, 2, 32)):
        g, u = gate.unflatten(1, shape[1:]), up.unflatten(1, shape[1:])
        dy = torch.ones((), device=DEVICE).expand(shape)
        leaves = [x.detach().requires_grad_() for x in (g, u)]
        y = glu(*leaves, "gelu")
        results = (y, *torch.autograd.grad(y, leaves, dy))
        for result, wanted in zip(results, truth(g, u, dy, "gelu"), strict=True):
            assert relative_error(result, wanted) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_far_out_stay_finite(activation):
    gate = torch.tensor([-3e38, -1e20, -100.0, -0.0, 100.0, 1e20, 3e38], device=DEVICE).requires_grad_()
    up = torch.full_like(gate, 0.5).requires_grad_()
    y = glu(gate, up, activation)
    dgate, dup = torch.autograd.grad(y, (gate, up), torch.ones_like(y))
    wanted_y, wanted_dgate, _ = truth(gate.clamp(-1e30, 1e30), up, torch.ones_like(y), activation)
    assert torch.allclose(dgate, wanted_dgate.float())
    assert torch.allclose(y[:6], wanted_y[:6].float())
    assert dup.isfinite().all()


def test_the_references_gradient():
    gate, up = random(2, 3).double().requires_grad_(), random(2, 3, seed=1).double().requires_grad_()
    for activation in ACTIVATIONS:
        assert torch.autograd.gradcheck(lambda g, u, a=activation: glu_reference(g, u, a), (gate, up))


@pytest.mark.parametrize(("family", "activation"), [("llama", "silu"), ("gemma", "gelu_tanh")])
def test_it_is_transformers_mlp(family, activation):
    from transformers import GemmaConfig, LlamaConfig
    from transformers.models.gemma.modeling_gemma import GemmaMLP
    from transformers.models.llama.modeling_llama import LlamaMLP

    config, mlp = {"llama": (LlamaConfig, LlamaMLP), "gemma": (GemmaConfig, GemmaMLP)}[family]
    torch.manual_seed(0)
    mlp = mlp(config(hidden_size=24, intermediate_size=56, num_attention_heads=2)).to(DEVICE)
    x = random(2, 5, 24).requires_grad_()
    wanted = mlp(x)
    y = mlp.down_proj(glu(mlp.gate_proj(x), mlp.up_proj(x), activation, gradient_in_place=True))
    assert relative_error(y, wanted.double()) <= 2 * TOLERANCE[torch.float32]  # two float32 paths apart
    (wanted_dx,) = torch.autograd.grad(wanted.square().sum(), x)
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    assert relative_error(dx, wanted_dx.double()) <= 2 * TOLERANCE[torch.float32]


def test_every_element_is_written(monkeypatch):
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda x, **kw: empty_like(x, **kw).fill_(float("nan")))
    gate, up = random(3, 1100).requires_grad_(), random(3, 1100, seed=1).requires_grad_()
    y = glu(gate, up)
    results = (y, *torch.autograd.grad(y, (gate, up), torch.ones_like(gate)))
    assert not any(x.isnan().any() for x in results)


def test_the_same_bits_twice():
    gate, up = random(4, 100, dtype=torch.bfloat16), random(4, 100, dtype=torch.bfloat16, seed=1)
    assert torch.equal(glu(gate, up), glu(gate, up))


def test_no_rows_give_no_rows():
    for shape in ((0, 8), (3, 0), (2, 0, 8)):
        gate, up = (torch.empty(*shape, device=DEVICE, requires_grad=True) for _ in range(2))
        y = glu(gate, up)
        y.sum().backward()
        assert y.shape == gate.grad.shape == shape
    assert glu_halves(torch.empty(0, 8, device=DEVICE)).shape == (0, 4)


def test_offsets_over_31_bits():
    far = torch.empty(3 * 2**30, dtype=torch.bfloat16, device=DEVICE)  # on a CPU only three pages become real
    gate = far.as_strided((3, 16), (2**30 + 2**10, 1))  # a stride of 31 bits: the product needs more
    gate.copy_(random(3, 16))
    up = random(3, 16, dtype=torch.bfloat16)
    assert torch.equal(glu(gate, up), glu(gate.clone(), up))


@pytest.mark.parametrize("mode", ("triton", "reference"))
def test_both_implementations_agree_through_the_public_function(monkeypatch, mode):
    monkeypatch.setenv("MALGIL_KERNELS", mode)
    both = random(2, 3, 10)
    wanted = glu_reference(*both.double().chunk(2, -1), "silu")
    assert relative_error(glu_halves(both), wanted) <= TOLERANCE[torch.float32]
    assert relative_error(glu(*both.chunk(2, -1)), wanted) <= TOLERANCE[torch.float32]


def test_what_does_not_fit_is_named():
    x = torch.zeros(2, 4)
    leaf = x.clone().requires_grad_()
    for call, message in (
        (lambda: glu(x, x[:1]), "up is"),
        (lambda: glu(x, x.half()), "up is torch.float16"),
        (lambda: glu(x, x.to("meta")), "on meta"),
        (lambda: glu(x, x, "relu"), "activation='relu': must be one of silu"),
        (lambda: glu(x.int(), x.int()), "gate is torch.int32"),
        (lambda: glu_halves(torch.zeros(2, 3)), "must be even"),
        (lambda: glu(x, leaf, gradient_in_place=True), "up is a leaf"),
        (lambda: glu_halves(leaf[:, :2], gradient_in_place=True), "gate_up is a leaf"),
        (lambda: glu(x[:1].expand(2, 4), x, gradient_in_place=True), "elements share memory"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.gpu
def test_more_than_2_31_elements():
    gate = torch.empty(2**17 + 1, 2**14, dtype=torch.bfloat16, device=DEVICE).normal_()
    y = glu(gate, gate)
    for row in (0, 2**17):
        assert relative_error(y[row], glu_reference(gate[row], gate[row], "silu").double()) <= 1.6e-2
