"""Projection + cross-entropy in chunks: against the float64 reference and transformers, with its memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from malgil_kernels.cross_entropy import LossOptions
from malgil_kernels.linear_cross_entropy import linear_cross_entropy
from malgil_kernels.linear_cross_entropy.reference import linear_cross_entropy_reference
from malgil_kernels.linear_cross_entropy.triton_op import chunk_tokens
from malgil_kernels.testing import DTYPES, TOLERANCE, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EVERYTHING = {"label_smoothing": 0.2, "softcap": 4.0, "z_loss": 0.02}


@pytest.fixture(autouse=True)
def by_kernel(monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")


def inputs(tokens, hidden, vocab, dtype=torch.float32, ignored=slice(2, None, 3)):
    """Leaves whose logits are of order 1, and targets of which some are ignored."""
    generator = torch.Generator().manual_seed(tokens * 7919 + hidden * 31 + vocab)
    x = torch.randn(tokens, hidden, generator=generator).to(dtype).to(DEVICE).requires_grad_()
    weight = torch.randn(vocab, hidden, generator=generator) / hidden**0.5
    target = torch.randint(vocab, (tokens,), generator=generator)
    target[ignored] = -100
    return x, weight.to(dtype).to(DEVICE).requires_grad_(), target.to(DEVICE)


def truth(x, weight, target, scale=1.0, num_items=None, **options):
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    loss = linear_cross_entropy_reference(*wide, target, LossOptions(**options), num_items)
    return loss, *torch.autograd.grad(loss * scale, wide)


class Made(TorchDispatchMode):
    """Sizes in bytes of the storages that operations make, largest first in `sizes`."""

    def __init__(self, *known):
        super().__init__()
        self.storages = {x.untyped_storage().data_ptr(): None for x in known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for x in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                self.storages.setdefault(storage.data_ptr(), storage.nbytes())
        return results

    @property
    def sizes(self):
        return sorted((size for size in self.storages.values() if size), reverse=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", ({}, {"reduction": "sum"}, EVERYTHING), ids=("mean", "sum", "all"))
@pytest.mark.parametrize(
    ("tokens", "hidden", "vocab", "chunk"), [(1, 1, 1, 1), (7, 63, 100, 3), (5, 100, 1000, None)]
)
def test_loss_and_gradients_match_float64(tokens, hidden, vocab, chunk, options, dtype):
    x, weight, target = inputs(tokens, hidden, vocab, dtype)
    wanted = truth(x, weight, target, scale=0.5, **options)
    loss = linear_cross_entropy(x, weight, target, chunk=chunk, **options)
    dx, dw = torch.autograd.grad(loss * 0.5, (x, weight))
    assert loss.dtype == torch.float32
    assert (dx.dtype, dw.dtype) == (dtype, dtype)
    assert relative_error(loss, wanted[0], terms=wanted[0].clamp_min(1.0)) <= TOLERANCE[dtype]
    terms = torch.ones(()) if vocab == 1 else None  # p − 1 of one class is 0
    assert relative_error(dx, wanted[1], terms) <= TOLERANCE[dtype]
    assert relative_error(dw, wanted[2], terms) <= TOLERANCE[dtype]
    assert dx[target == -100].eq(0).all()


@pytest.mark.parametrize("sums", (torch.float32, None), ids=str)
def test_the_weights_gradient_is_summed_over_many_chunks(sums):
    x, weight, target = inputs(24, 16, 40, torch.bfloat16)
    loss = linear_cross_entropy(x, weight, target, chunk=2, weight_gradient_dtype=sums)
    dx, dw = torch.autograd.grad(loss, (x, weight))
    wanted = truth(x, weight, target)
    assert relative_error(dx, wanted[1]) <= TOLERANCE[torch.bfloat16]
    # each of eight sums in bfloat16 rounds once more
    assert relative_error(dw, wanted[2]) <= TOLERANCE[torch.bfloat16] * (1 if sums else 2)


def test_only_what_is_trained_gets_a_gradient():
    x, weight, target = inputs(5, 8, 20)
    wanted = truth(x, weight, target)
    frozen = linear_cross_entropy(x, weight.detach(), target)
    assert relative_error(torch.autograd.grad(frozen, x)[0], wanted[1]) <= TOLERANCE[torch.float32]
    fixed = linear_cross_entropy(x.detach(), weight, target)
    assert relative_error(torch.autograd.grad(fixed, weight)[0], wanted[2]) <= TOLERANCE[torch.float32]
    assert not linear_cross_entropy(x.detach(), weight.detach(), target).requires_grad


@pytest.mark.parametrize("trained", (False, True), ids=("frozen", "trained"))
@pytest.mark.parametrize("ignored", (slice(0), slice(0, 9)), ids=("all count", "completion only"))
def test_memory_is_one_chunk_of_logits_and_no_gradient_that_is_not_wanted(trained, ignored):
    tokens, hidden, vocab, chunk = 12, 16, 2_000, 2
    x, weight, target = inputs(tokens, hidden, vocab, ignored=ignored)
    weight.requires_grad_(trained)
    with Made(x, weight, target) as made:
        linear_cross_entropy(x, weight, target, chunk=chunk).backward()
    logits, dw = 4 * chunk * vocab, 4 * vocab * hidden
    large = [size for size in made.sizes if size > 4 * tokens * hidden]
    assert [size for size in large if size != dw] == [logits]
    assert (dw in large) is trained
    with Made(x, weight, target) as made, torch.no_grad():
        linear_cross_entropy(x, weight, target, chunk=chunk)
    assert [size for size in made.sizes if size >= 4 * tokens * hidden] == [logits]


def test_ignored_rows_are_not_computed(monkeypatch):
    multiplied = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, **kw: multiplied.append(a.shape[0]) or mm(a, b, **kw))
    x, weight, target = inputs(40, 8, 30, ignored=slice(0, 34))
    with torch.no_grad():
        x[:34] = float("nan")  # whoever computes with them shows it
    loss = linear_cross_entropy(x, weight, target, chunk=4)
    loss.backward()
    assert multiplied == [4, 4, 2, 2]  # logits and dx of the six rows that count
    wanted = truth(x[34:], weight, target[34:])
    for result, wish in zip((loss, x.grad[34:], weight.grad), wanted, strict=True):
        assert relative_error(result, wish) <= TOLERANCE[torch.float32]
    assert x.grad[:34].eq(0).all()


def test_a_bound_of_labels_saves_the_count_and_too_low_a_one_is_loud():
    x, weight, target = inputs(9, 8, 30)  # six count
    wanted = truth(x, weight, target)
    for bound in (6, 7, 9, 100):
        loss = linear_cross_entropy(x, weight, target, max_labels=bound)
        for result, wish in zip((loss, *torch.autograd.grad(loss, (x, weight))), wanted, strict=True):
            assert relative_error(result, wish) <= TOLERANCE[torch.float32]
    assert linear_cross_entropy(x, weight, target, max_labels=5).isnan()


def test_chunks_have_the_documented_sizes():
    assert chunk_tokens(32_768, 4096, 128_256, rounds_weight_gradient=False) == 1024  # Liger's
    assert chunk_tokens(32_768, 4096, 128_256, rounds_weight_gradient=True) == 4096
    assert chunk_tokens(2_048, 4096, 128_256, rounds_weight_gradient=False) == 256
    assert chunk_tokens(4_500, 4096, 128_256, rounds_weight_gradient=True) == 2304  # even, not 4096 + 404
    assert chunk_tokens(5, 8, 30, rounds_weight_gradient=False) == 5
    assert chunk_tokens(0, 8, 30, rounds_weight_gradient=True) == 0
    for tokens in range(1, 3_000, 97):
        assert 0 < chunk_tokens(tokens, 64, 1000, False) <= tokens


def test_it_is_transformers_causal_loss_of_a_whole_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=96
    )
    model = LlamaForCausalLM(config).to(DEVICE)
    ids = torch.randint(96, (2, 7), device=DEVICE)
    labels = ids.clone()
    labels[0, :5] = -100
    wanted = model(ids, labels=labels).loss
    wanted.backward()
    wishes = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    hidden = model.model(ids).last_hidden_state
    shifted = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    loss = linear_cross_entropy(hidden, model.lm_head.weight, shifted)
    loss.backward()
    assert relative_error(loss, wanted.double()) <= TOLERANCE[torch.float32]
    for name, parameter in model.named_parameters():
        # two float32 passes through the whole model are compared
        assert relative_error(parameter.grad, wishes[name].double()) <= 5 * TOLERANCE[torch.float32], name


def test_the_references_gradient():
    x, weight, target = inputs(5, 3, 6)
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    options = LossOptions(**EVERYTHING)
    assert torch.autograd.gradcheck(lambda a, b: linear_cross_entropy_reference(a, b, target, options), wide)


def test_a_second_backward_raises():
    x, weight, target = inputs(4, 8, 20)
    loss = linear_cross_entropy(x, weight, target)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_float16_gradients_do_not_vanish_before_the_loss_scale():
    x = torch.ones(2, 4, dtype=torch.float16, device=DEVICE)
    weight = torch.zeros(4000, 4, dtype=torch.float16, device=DEVICE).requires_grad_()
    target = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    loss = linear_cross_entropy(x, weight, target, num_items=1_000_000)
    (dw,) = torch.autograd.grad(loss * 65_536, weight)
    wanted = 2 * 65_536 / 4e9
    assert (dw[1:].double() / wanted - 1).abs().max() <= 0.01


@pytest.mark.parametrize("bound", (None, 3))
def test_all_rows_ignored_is_pytorchs_nan_with_zero_gradients(bound):
    x, weight, target = inputs(3, 8, 20, ignored=slice(None))
    loss = linear_cross_entropy(x, weight, target, max_labels=bound)
    assert loss.isnan()
    assert all(gradient.eq(0).all() for gradient in torch.autograd.grad(loss, (x, weight)))
    assert linear_cross_entropy(x[:0], weight, target[:0], reduction="sum") == 0


def test_strided_hidden_states_and_every_element_written(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **kw: empty(*size, **kw).fill_(float("nan")))
    base = torch.randn(2, 12, 20, device=DEVICE).requires_grad_()
    _, weight, target = inputs(12, 8, 30, ignored=slice(0))
    x = base[:, ::2, 4:12]  # (2, 6, 8), as a slice of packed hidden states
    loss = linear_cross_entropy(x, weight, target.view(2, 6), chunk=5)
    dx, dw = torch.autograd.grad(loss, (x, weight))
    wanted = truth(x.reshape(12, 8), weight, target)
    for result, wish in zip((loss, dx.reshape(12, 8), dw), wanted, strict=True):
        assert relative_error(result, wish) <= TOLERANCE[torch.float32]


def test_the_same_bits_twice():
    results = []
    for _ in range(2):
        x, weight, target = inputs(9, 16, 50, torch.bfloat16)
        loss = linear_cross_entropy(x, weight, target, chunk=2)
        results.append((loss, *torch.autograd.grad(loss, (x, weight))))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("mode", ("triton", "reference"))
def test_both_implementations_agree_through_the_public_function(monkeypatch, mode):
    monkeypatch.setenv("MALGIL_KERNELS", mode)
    x, weight, target = inputs(6, 8, 30)
    loss = linear_cross_entropy(x.view(2, 3, 8), weight, target.view(2, 3), num_items=17, **EVERYTHING)
    wanted = truth(x, weight, target, num_items=17, **EVERYTHING)
    for result, wish in zip((loss, *torch.autograd.grad(loss, (x, weight))), wanted, strict=True):
        assert relative_error(result, wish) <= TOLERANCE[torch.float32]


def test_what_does_not_fit_is_named():
    x, weight, target = inputs(3, 8, 20)
    for call, message in (
        (lambda: linear_cross_entropy(x[0], weight, target), "hidden is"),
        (lambda: linear_cross_entropy(x.int(), weight, target), "hidden is torch.int32"),
        (
            lambda: linear_cross_entropy(x, weight.t(), target),
            r"weight has shape \(8, 20\): must be \(vocab, 8",
        ),
        (lambda: linear_cross_entropy(x, weight.half(), target), r"weight.to\(hidden.dtype\)"),
        (lambda: linear_cross_entropy(x, weight.to("meta"), target), "on meta"),
        (lambda: linear_cross_entropy(x, weight, target[:2]), "target has shape"),
        (lambda: linear_cross_entropy(x, weight, target, softcap=-1.0), "softcap=-1.0"),
        (lambda: linear_cross_entropy(x, weight, target, max_labels=0), "max_labels=0"),
        (lambda: linear_cross_entropy(x, weight, target, chunk=0), "chunk=0"),
        (
            lambda: linear_cross_entropy(x, weight, target, weight_gradient_dtype=torch.float16),
            "weight_gradient_dtype=torch.float16",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.gpu
@pytest.mark.parametrize(("trained", "most_gb"), [(False, 0.56), (True, 3.6)])
def test_the_documented_peak_at_32768_tokens(trained, most_gb):
    x = torch.randn(32_768, 4096, dtype=torch.bfloat16, device=DEVICE).requires_grad_()
    weight = torch.randn(128_256, 4096, dtype=torch.bfloat16, device=DEVICE).div_(64).requires_grad_(trained)
    target = torch.randint(128_256, (32_768,), device=DEVICE)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_cross_entropy(x, weight, target).backward()
    assert (torch.cuda.max_memory_allocated() - before) / 1e9 <= most_gb
