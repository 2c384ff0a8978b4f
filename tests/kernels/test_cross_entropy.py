"""Cross-entropy: the kernels against the float64 reference, PyTorch's own and transformers' loss."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from malgil_kernels.cross_entropy import LossOptions, cross_entropy
from malgil_kernels.cross_entropy.reference import cross_entropy_reference
from malgil_kernels.cross_entropy.triton_op import launch_backward, launch_forward
from malgil_kernels.testing import DTYPES, TOLERANCE, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "smoothed": {"label_smoothing": 0.1},
    "capped": {"softcap": 3.0},
    "z": {"z_loss": 0.01},
    "all": {"label_smoothing": 0.2, "softcap": 4.0, "z_loss": 0.02},
}


@pytest.fixture(autouse=True)
def by_kernel(monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")


def inputs(rows, vocab, dtype=torch.float32):
    """Logits, and targets of which every third is ignored."""
    generator = torch.Generator().manual_seed(rows * 7919 + vocab)
    logits = (2 * torch.randn(rows, vocab, generator=generator)).to(dtype).to(DEVICE)
    target = torch.randint(vocab, (rows,), generator=generator)
    target[2::3] = -100
    return logits, target.to(DEVICE)


def truth(logits, target, scale=1.0, **options):
    wide = logits.detach().double().requires_grad_()
    loss = cross_entropy_reference(wide, target, LossOptions(**options))
    return loss, torch.autograd.grad(loss * scale, wide)[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("in_place", (False, True), ids=("recomputed", "in place"))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize(("rows", "vocab"), [(1, 1), (5, 63), (4, 1000), (2, 9001)])
def test_loss_and_gradient_match_float64(rows, vocab, options, in_place, dtype):
    leaf, target = inputs(rows, vocab, dtype)
    logits = leaf.requires_grad_() * 1
    wanted_loss, wanted = truth(leaf, target, scale=0.5, **options)
    loss = cross_entropy(logits, target, gradient_in_place=in_place, **options)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss * 0.5, logits)
    assert gradient.dtype == dtype
    assert (gradient.data_ptr() == logits.data_ptr()) is in_place
    assert relative_error(loss, wanted_loss, terms=wanted_loss.clamp_min(1.0)) <= TOLERANCE[torch.float32]
    terms = None if vocab > 1 else torch.ones(())  # p − 1 of one class is 0
    assert relative_error(gradient, wanted, terms=terms) <= TOLERANCE[dtype]
    assert gradient[2::3].eq(0).all()


def test_the_reference_is_pytorchs_with_the_extras_by_hand():
    logits, target = inputs(7, 11)
    logits = logits.double()
    wanted = F.cross_entropy(logits, target, label_smoothing=0.3)
    assert torch.allclose(cross_entropy_reference(logits, target, LossOptions(label_smoothing=0.3)), wanted)
    capped = 2.5 * torch.tanh(logits / 2.5)
    by_hand = [
        -torch.log_softmax(row, 0)[label] + 0.1 * torch.logsumexp(row, 0) ** 2
        for row, label in zip(capped, target, strict=True)
        if label != -100
    ]
    options = LossOptions(softcap=2.5, z_loss=0.1)
    assert torch.allclose(cross_entropy_reference(logits, target, options), sum(by_hand) / len(by_hand))
    assert torch.allclose(cross_entropy_reference(logits, target, options, 20), sum(by_hand) / 20)
    everything = LossOptions(label_smoothing=0.2, softcap=2.5, z_loss=0.1)
    assert torch.autograd.gradcheck(
        lambda x: cross_entropy_reference(x, target, everything), (logits.requires_grad_(),)
    )


@pytest.mark.parametrize("in_place", (False, True), ids=("recomputed", "in place"))
def test_it_is_transformers_loss_with_the_global_batchs_count(in_place):
    from transformers.loss.loss_utils import ForCausalLMLoss

    leaf = torch.randn(2, 6, 50, device=DEVICE).requires_grad_()
    labels = torch.randint(50, (2, 6), device=DEVICE)
    labels[0, :4] = -100
    for count in (None, torch.tensor(17, device=DEVICE)):
        wanted = ForCausalLMLoss(leaf, labels, 50, num_items_in_batch=count)
        logits = leaf * 1
        shifted = F.pad(labels, (0, 1), value=-100)[:, 1:]
        loss = cross_entropy(logits, shifted, num_items=count, gradient_in_place=in_place)
        assert relative_error(loss, wanted.double()) <= TOLERANCE[torch.float32]
        (gradient,), (wish,) = torch.autograd.grad(loss, leaf), torch.autograd.grad(wanted, leaf)
        assert relative_error(gradient, wish.double()) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("in_place", (False, True), ids=("recomputed", "in place"))
def test_a_slice_of_a_padded_vocabulary_is_read_and_written_by_its_stride(in_place):
    padded = torch.randn(6, 48, device=DEVICE)
    before = padded.clone()
    target = torch.tensor([3, 39, -100, 0, 7, 7], dtype=torch.int32, device=DEVICE)
    leaf = padded.clone().requires_grad_()
    whole = leaf * 1
    loss = cross_entropy(whole[:, 2:42], target, gradient_in_place=in_place)
    (gradient,) = torch.autograd.grad(loss, leaf)
    wanted_loss, wanted = truth(before[:, 2:42], target)
    assert relative_error(loss, wanted_loss) <= TOLERANCE[torch.float32]
    assert relative_error(gradient[:, 2:42], wanted) <= TOLERANCE[torch.float32]
    assert torch.equal(whole[:, :2], before[:, :2])
    assert torch.equal(whole[:, 42:], before[:, 42:])
    transposed = before.t().contiguous().t().requires_grad_()  # inner stride 6: copied first
    assert relative_error(cross_entropy(transposed, target), truth(before, target)[0]) <= 2e-6


def test_in_place_says_so_to_autograd():
    leaf, target = inputs(4, 20)
    leaf.requires_grad_()
    logits = leaf * 1
    square = (logits**2).sum()
    loss = cross_entropy(logits, target, gradient_in_place=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.backward()  # saved what the forward overwrote
    torch.autograd.grad(loss, leaf, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_nothing_is_overwritten_where_no_gradient_is_wanted():
    leaf, target = inputs(4, 20)
    logits = leaf.clone()
    cross_entropy(logits, target, gradient_in_place=True)
    with torch.no_grad():
        cross_entropy((leaf.requires_grad_() * 1), target, gradient_in_place=True)
        cross_entropy(logits.requires_grad_() * 1, target, gradient_in_place=True)
    assert torch.equal(logits, leaf)


@pytest.mark.parametrize("in_place", (False, True), ids=("recomputed", "in place"))
def test_float16_gradients_do_not_vanish_before_the_loss_scale(in_place):
    leaf = torch.zeros(2, 4000, dtype=torch.float16, device=DEVICE).requires_grad_()
    target = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    loss = cross_entropy(leaf * 1, target, num_items=1_000_000, gradient_in_place=in_place)
    (gradient,) = torch.autograd.grad(loss * 65_536, leaf)
    assert torch.allclose(
        gradient[:, 1:].double(), torch.tensor(65_536 / 4e9, device=DEVICE).double(), rtol=0.01
    )


@pytest.mark.parametrize("in_place", (False, True), ids=("recomputed", "in place"))
def test_all_rows_ignored_is_pytorchs_nan_with_a_zero_gradient(in_place):
    leaf = torch.randn(3, 10, device=DEVICE).requires_grad_()
    target = torch.full((3,), 5, device=DEVICE)
    loss = cross_entropy(leaf * 1, target, ignore_index=5, gradient_in_place=in_place)
    assert loss.isnan()
    assert torch.autograd.grad(loss, leaf)[0].eq(0).all()
    assert cross_entropy(leaf, target, ignore_index=5, reduction="sum") == 0


@pytest.mark.parametrize("in_place", (False, True), ids=("recomputed", "in place"))
def test_a_target_off_the_vocabulary_is_loud(monkeypatch, in_place):
    leaf = torch.randn(3, 10, device=DEVICE).requires_grad_()
    for bad in (-1, 10):
        target = torch.tensor([1, bad, 2], device=DEVICE)
        loss = cross_entropy(leaf * 1, target, gradient_in_place=in_place)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.isnan()
        assert gradient.isnan().all(-1).tolist() == [False, True, False]
    if DEVICE == "cpu":
        monkeypatch.setenv("MALGIL_KERNELS", "reference")
        with pytest.raises(IndexError):
            cross_entropy(leaf, target)


@pytest.mark.parametrize("in_place", (False, True), ids=("recomputed", "in place"))
def test_masked_and_large_logits_stay_finite(in_place):
    leaf = torch.randn(3, 5000, device=DEVICE)
    leaf[0, :4999] = float("-inf")  # one class left
    leaf[1] *= 1e4
    leaf[2, :4200] = float("-inf")  # whole blocks
    target = torch.tensor([4999, int(leaf[1].argmax()), 4500], device=DEVICE)
    wanted_loss, wanted = truth(leaf, target)
    loss = cross_entropy(leaf.requires_grad_() * 1, target, gradient_in_place=in_place)
    assert relative_error(loss, wanted_loss) <= TOLERANCE[torch.float32]
    gradient = torch.autograd.grad(loss, leaf)[0]
    assert relative_error(gradient, wanted) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize(("in_place", "options"), [(False, "plain"), (True, "all")])
def test_a_vocabulary_of_262144_in_many_blocks(in_place, options):
    logits, _ = inputs(1, 262_144, torch.bfloat16)
    target = torch.tensor([262_143], device=DEVICE)
    wanted_loss, wanted = truth(logits, target, **OPTIONS[options])
    held = logits.requires_grad_() * 1
    loss = cross_entropy(held, target, gradient_in_place=in_place, **OPTIONS[options])
    assert relative_error(loss, wanted_loss) <= TOLERANCE[torch.float32]
    assert relative_error(torch.autograd.grad(loss, held)[0], wanted) <= TOLERANCE[torch.bfloat16]


def test_every_element_is_written(monkeypatch):
    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda x, **kw: empty_like(x, **kw).fill_(float("nan")))
    monkeypatch.setattr(torch, "empty", lambda *size, **kw: empty(*size, **kw).fill_(float("nan")))
    logits, target = inputs(4, 5000)
    options, scale = LossOptions(), torch.ones((), device=DEVICE)
    loss, lse = launch_forward(logits, target, options, gradient=False)
    gradient = launch_backward(logits, target, lse, scale, options)
    assert not any(x.isnan().any() for x in (loss, lse, gradient))


def test_the_same_bits_twice():
    logits, target = inputs(5, 300, torch.bfloat16)
    results = []
    for _ in range(2):
        held = logits.clone().requires_grad_()
        loss = cross_entropy(held, target, label_smoothing=0.1)
        results.append((loss, torch.autograd.grad(loss, held)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_no_rows_give_pytorchs_answers():
    logits = torch.empty(0, 8, device=DEVICE, requires_grad=True)
    target = torch.empty(0, dtype=torch.int64, device=DEVICE)
    assert cross_entropy(logits, target).isnan()
    loss = cross_entropy(logits, target, reduction="sum")
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == (0, 8)


def test_offsets_over_31_bits():
    far = torch.empty(3 * 2**30, dtype=torch.bfloat16, device=DEVICE)  # on a CPU only three pages become real
    logits = far.as_strided((3, 100), (2**30 + 2**10, 1))  # a stride of 31 bits: the product needs more
    small, _ = inputs(3, 100, torch.bfloat16)
    logits.copy_(small)
    target = torch.tensor([5, 99, 7], device=DEVICE)
    held = [x.requires_grad_() for x in (small.clone(), logits.detach())]
    losses = [cross_entropy(x, target) for x in held]
    assert torch.equal(*losses)
    scale = torch.ones((), device=DEVICE)
    lse = launch_forward(small, target, LossOptions(), gradient=False)[1]
    wanted = launch_backward(small, target, lse, scale, LossOptions())
    assert torch.equal(launch_backward(logits.detach(), target, lse, scale, LossOptions()), wanted)
    launch_forward(logits.detach(), target, LossOptions(), gradient=True)
    assert relative_error(logits, wanted.double()) <= TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("mode", ("triton", "reference"))
def test_both_implementations_agree_through_the_public_function(monkeypatch, mode):
    monkeypatch.setenv("MALGIL_KERNELS", mode)
    logits, target = inputs(6, 40)
    loss = cross_entropy(logits.view(2, 3, 40), target.view(2, 3), **OPTIONS["all"])
    assert relative_error(loss, truth(logits, target, **OPTIONS["all"])[0]) <= TOLERANCE[torch.float32]


def test_what_does_not_fit_is_named():
    logits, target = inputs(3, 8)
    leaf = logits.clone().requires_grad_()
    for call, message in (
        (lambda: cross_entropy(logits[0], target), "logits is"),
        (lambda: cross_entropy(logits.int(), target), "logits is torch.int32"),
        (lambda: cross_entropy(logits[:, :0], target), "logits is"),
        (lambda: cross_entropy(logits, target[:2]), r"target has shape \(2,\): must be \(3,\)"),
        (lambda: cross_entropy(logits, target.float()), "target is torch.float32"),
        (lambda: cross_entropy(logits, target.to("meta")), "on meta"),
        (lambda: cross_entropy(logits, target, label_smoothing=1.0), "label_smoothing=1.0"),
        (lambda: cross_entropy(logits, target, softcap=0.0), "softcap=0.0"),
        (lambda: cross_entropy(logits, target, z_loss=-1.0), "z_loss=-1.0"),
        (lambda: cross_entropy(logits, target, reduction="none"), "reduction='none'"),
        (lambda: cross_entropy(logits, target, num_items=0), "num_items=0"),
        (lambda: cross_entropy(logits, target, num_items=torch.ones(2)), "num_items has shape"),
        (lambda: cross_entropy(logits, target, num_items=3, reduction="sum"), "only 'mean' divides"),
        (lambda: cross_entropy(leaf, target, gradient_in_place=True), "logits is a leaf"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(dataclasses.FrozenInstanceError):
        LossOptions().softcap = 1.0


@pytest.mark.gpu
def test_more_than_2_31_logits():
    logits = torch.empty(16_384, 262_144, dtype=torch.bfloat16, device=DEVICE).normal_()
    target = torch.randint(262_144, (16_384,), device=DEVICE)
    last = slice(-64, None)
    wanted_loss, wanted = truth(logits[last], target[last], reduction="sum")
    loss, _ = launch_forward(logits, target, LossOptions(), gradient=True)
    assert relative_error(loss[last].sum(), wanted_loss) <= 5 * TOLERANCE[torch.float32]
    assert relative_error(logits[last], wanted) <= TOLERANCE[torch.bfloat16]
