"""Packed attention: the kernels against the float64 reference, in the interpreter without a GPU, on it with one."""

import math

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels import dispatch
from malgil_kernels.attention import attention
from malgil_kernels.attention.reference import attention_reference
from malgil_kernels.attention.rule import Rule, causal_rule
from malgil_kernels.attention.triton_op import attention_triton
from malgil_kernels.testing import AWKWARD_SIZES, DTYPES, TOLERANCE, check_op, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CAUSAL = causal_rule(True, None)


def starts_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(DEVICE)


def tensors(rows, keys, heads, kv_heads, dim, dtype):
    """q, k and v as slices of a fused projection give them: rows further apart than they are long."""
    generator = torch.Generator().manual_seed(rows * 31 + keys * 7 + dim)
    made = []
    for count, number in ((rows, heads), (keys, kv_heads), (keys, kv_heads)):
        wide = torch.randn(count, number * dim + 8, generator=generator).to(dtype).to(DEVICE)
        made.append(wide[:, : number * dim].view(count, number, dim).requires_grad_())
    return made


def compare(lengths, key_lengths, heads, kv_heads, dim, dtype, rule, softcap=None):
    """Errors of the kernels, forward and backward, under poison; fails where one is over the tolerance."""
    starts, key_starts = starts_of(lengths), starts_of(key_lengths)
    settings = (rule, dim**-0.5, softcap)

    def kernel(q, k, v):
        return attention_triton(q, k, v, starts, key_starts, max(lengths, default=0), *settings)[0]

    def truth(q, k, v):
        return attention_reference(q, k, v, starts, key_starts, *settings)[0]

    q, k, v = tensors(sum(lengths), sum(key_lengths), heads, kv_heads, dim, dtype)
    terms = {}
    if (
        tuple(lengths) == tuple(key_lengths) == (1,)
    ):  # of one key: both gradients are p·(dp − δ) with dp = δ, so 0
        terms = {0: k.detach() * dim**-0.5, 1: q.detach() * dim**-0.5}
    return check_op(kernel, truth, q, k, v, terms=terms)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_packed_sequences_forward_and_every_gradient(dtype):
    lengths = (5, 0, 40, 1, 23) if dtype == torch.float32 else (5, 0, 100, 1, 63)
    compare(lengths, lengths, 4, 2, 32, dtype, CAUSAL)


@pytest.mark.parametrize(
    ("rule", "softcap"),
    [
        (causal_rule(True, 20), 2.0),
        (causal_rule(False, None), None),
        (causal_rule(False, 7), None),
        (Rule(chunk=16, left=32, right=5), None),
    ],
    ids=("window and softcap", "bidirectional", "left window alone", "chunks"),
)
def test_every_rule(rule, softcap):
    # long enough for key tiles that every row of a query tile sees, and for some that none sees
    compare((5, 290), (5, 290), 1, 1, 16, torch.float16, rule, softcap)


def test_a_soft_cap_in_float32():
    compare((3, 40), (3, 40), 1, 1, 16, torch.float32, causal_rule(True, 20), 2.0)


@pytest.mark.parametrize("rule", [CAUSAL, causal_rule(True, 10)], ids=("causal", "window"))
def test_other_lengths_of_keys_and_rows_without_a_key(rule):
    """The first rows of a sequence with fewer keys than queries see nothing: 0 and gradients of 0, no NaN."""
    compare((5, 40, 0, 100, 63), (7, 0, 12, 120, 30), 2, 1, 80, torch.float16, rule)


@pytest.mark.parametrize("dim", (64, 80, 96, 128, 160, 192, 256))
def test_head_dims(dim):
    compare((70,), (70,), 1, 1, dim, torch.bfloat16, CAUSAL)


@pytest.mark.parametrize("dim", (32, 128, 256))
def test_the_tiles_of_other_gpus(dim, monkeypatch):
    """Without a GPU the tiles are Hopper's; these are Ampere's and Ada's."""
    monkeypatch.setattr(dispatch, "_assumed", dispatch.Hardware(capability=80, multiprocessors=108))
    compare((70,), (70,), 1, 1, dim, torch.bfloat16, CAUSAL)


@pytest.mark.parametrize("size", AWKWARD_SIZES)
def test_awkward_sizes(size):
    compare((size,), (size,), 1, 1, 16, torch.float16, CAUSAL)


@pytest.mark.parametrize(
    ("lengths", "key_lengths"),
    [((0, 0), (0, 0)), ((4,), (0,)), ((0,), (4,))],
    ids=("empty sequences", "no keys", "no queries"),
)
def test_nothing_to_attend_to(lengths, key_lengths):
    compare(lengths, key_lengths, 2, 1, 16, torch.float16, CAUSAL)


def test_no_sequence_at_all():
    q, k, v = tensors(0, 3, 2, 1, 16, torch.float16)
    out, lse = attention_triton(q, k, v, starts_of(()), starts_of(()), 0, CAUSAL, 0.25)
    assert out.shape == (0, 2, 16)
    assert lse.shape == (2, 0)
    out.sum().backward()
    assert k.grad.eq(0).all()


def test_many_tiny_documents_share_tiles():
    lengths = [1 + i % 5 for i in range(70)]
    compare(lengths, lengths, 1, 1, 16, torch.float16, CAUSAL)


def test_lse_and_rows_past_the_last_sequence():
    q, k, v = tensors(12, 12, 2, 1, 16, torch.float32)
    starts, key_starts = starts_of((6, 4)), starts_of((3, 4))
    out, lse = attention_triton(q, k, v, starts, key_starts, 6, CAUSAL, 0.25)
    _, wanted = attention_reference(q.double(), k.double(), v.double(), starts, key_starts, CAUSAL, 0.25)
    assert torch.equal(lse.isinf(), wanted.isinf())
    assert wanted.isinf()[:, [0, 1, 2, 10, 11]].all()
    seen = wanted.isfinite()
    assert relative_error(lse[seen], wanted[seen]) <= TOLERANCE[torch.float32]
    out.sum().backward()
    assert out[[0, 1, 2, 10, 11]].eq(0).all()
    assert k.grad[[7, 8, 9, 10, 11]].eq(0).all()
    assert not lse.requires_grad


def test_rows_of_no_sequence_beside_blocks_that_need_no_mask():
    q, k, v = tensors(208, 208, 1, 1, 16, torch.float16)
    starts = starts_of((200,))
    out, _ = attention_triton(q, k, v, starts, starts, 200, causal_rule(False, None), 0.25)
    gradients = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    for x in (out, *gradients):
        assert x[200:].eq(0).all()
        assert x[:200].abs().amax(dim=(1, 2)).gt(0).all()


def test_offsets_past_two_to_the_31():
    """Rows, then heads, 2^30 elements apart: what thousands of documents · heads · dim come to."""
    memory = torch.empty(2**31 + 2**16, dtype=torch.float16, device=DEVICE)  # virtual; few pages are touched
    starts = starts_of((2, 1))
    for shape, strides in (((3, 1, 16), (2**30, 16, 1)), ((3, 3, 16), (16, 2**30, 1))):
        plain = [x.detach() for x in tensors(3, 3, shape[1], shape[1], 16, torch.float16)]
        far = []
        for number, x in enumerate(plain):
            view = memory.as_strided(shape, strides, number * 1024)
            view.copy_(x)
            far.append(view.requires_grad_())
            memory = memory.detach()
        plain = [x.requires_grad_() for x in plain]
        dout = torch.ones(shape, dtype=torch.float16, device=DEVICE)
        out, _ = attention_triton(*far, starts, starts, 2, CAUSAL, 0.25)
        wanted, _ = attention_triton(*plain, starts, starts, 2, CAUSAL, 0.25)
        assert torch.equal(out, wanted)
        found = torch.autograd.grad(out, far, dout)
        for gradient, true in zip(found, torch.autograd.grad(wanted, plain, dout), strict=True):
            assert torch.equal(gradient, true)


def test_same_bits_twice_and_whatever_the_neighbours_hold():
    q, k, v = tensors(90, 90, 2, 1, 16, torch.float16)
    starts = starts_of((40, 50))
    dout = torch.randn(90, 2, 16, device=DEVICE).half()

    def run(q, k, v, longest):
        out, _ = attention_triton(q, k, v, starts, starts, longest, CAUSAL, 0.25)
        return (out, *torch.autograd.grad(out, (q, k, v), dout))

    first = run(q, k, v, 50)
    for one, other in zip(first, run(q, k, v, 1), strict=True):  # longest sizes a grid, no more
        assert torch.equal(one, other)
    changed = [torch.cat([x[:40], 3 * x[40:]]) for x in (q, k, v)]
    for one, other in zip(first, run(*changed, 50), strict=True):
        assert torch.equal(one[:40], other[:40])


def test_any_inner_stride():
    q, k, v = (x.detach().mT.contiguous().mT for x in tensors(9, 9, 2, 2, 16, torch.float32))
    assert q.stride(-1) != 1
    starts = starts_of((9,))
    out, _ = attention_triton(q, k, v, starts, starts, 9, CAUSAL, 0.25)
    wanted, _ = attention_reference(q.double(), k.double(), v.double(), starts, starts, CAUSAL, 0.25)
    assert relative_error(out, wanted) <= TOLERANCE[torch.float32]


def test_the_reference_is_softmax_and_its_gradient_is_right():
    q, k, v = (x.detach().double().requires_grad_() for x in tensors(6, 6, 2, 1, 3, torch.float32))
    starts = starts_of((4, 2))

    def out(q, k, v):
        return attention_reference(q, k, v, starts, starts, causal_rule(True, 3), 0.5, 2.0)[0]

    assert torch.autograd.gradcheck(out, (q, k, v))
    scores = [2 * math.tanh(float(q[2, 1] @ k[j, 0]) * 0.5 / 2) for j in range(3)]
    total = sum(math.exp(s) for s in scores)
    by_hand = sum(math.exp(s) / total * v[j, 0] for j, s in enumerate(scores))
    assert torch.allclose(out(q, k, v)[2, 1], by_hand)


def test_the_public_function_takes_what_dispatch_says(monkeypatch):
    q, k, v = (x.detach() for x in tensors(20, 20, 2, 1, 16, torch.float32))
    starts = starts_of((13, 7))
    results = []
    for wish in ("reference", "triton"):
        monkeypatch.setenv("MALGIL_KERNELS", wish)
        results.append(attention(q, k, v, starts, max_seqlen=13, window=5, softcap=3.0))
    for one, other in zip(*results, strict=True):
        assert relative_error(one, other.double()) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({name: torch.zeros(4, 2, 300) for name in "qkv"}, "head dim must be 16 to 256"),
        ({name: torch.zeros(4, 2, 8) for name in "qkv"}, "head dim must be 16 to 256"),
        ({"q": torch.zeros(4, 2)}, "q has shape"),
        ({"q": torch.zeros(4, 3, 16)}, "kv_heads a divisor"),
        ({"k": torch.zeros(4, 2, 8)}, "k has shape"),
        ({"v": torch.zeros(5, 2, 16)}, "v has shape"),
        ({"v": torch.zeros(4, 2, 16).half()}, "v is torch.float16"),
        ({"k": torch.zeros(4, 2, 16, device="meta")}, "k is on meta"),
        ({"cu_seqlens_q": torch.tensor([0, 4])}, "cu_seqlens_q is torch.int64"),
        ({"cu_seqlens_k": torch.tensor([[0, 4]], dtype=torch.int32)}, "cu_seqlens_k has shape"),
        ({"cu_seqlens_k": torch.tensor([0, 1, 4], dtype=torch.int32)}, "cu_seqlens_k has 3 entries"),
        ({"window": 0}, "window is 0"),
        ({"softcap": 0.0}, "softcap is 0"),
        ({"scale": -1.0}, "scale is -1"),
    ],
)
def test_a_wrong_argument_is_named(change, named):
    right = {name: torch.zeros(4, 2, 16) for name in "qkv"}
    right |= {"cu_seqlens_q": torch.tensor([0, 4], dtype=torch.int32), "max_seqlen": 4}
    with pytest.raises((ValueError, TypeError), match=named):
        attention(**(right | change))


@pytest.mark.gpu
@pytest.mark.parametrize("dim", (64, 128, 256))
def test_long_sequences_on_a_gpu(dim):
    lengths = (3000, 1, 700, 395)
    compare(lengths, lengths, 8, 2, dim, torch.bfloat16, CAUSAL)
