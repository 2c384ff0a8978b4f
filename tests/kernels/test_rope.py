"""Rotary position embedding: the kernel against the float64 reference and against transformers."""

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.rope import rope, rope_, rope_tables
from malgil_kernels.rope.reference import rope_reference
from malgil_kernels.testing import DTYPES, TOLERANCE, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def by_kernel(monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")


def random(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)


def tables(rows, half, scaling=1.0):
    inv_freq = 1.0 / 10_000 ** (torch.arange(half, device=DEVICE) / half)
    return rope_tables(inv_freq, torch.arange(rows, device=DEVICE), scaling)


def truth(x, cos, sin, interleaved=False):
    """x (batch, heads, seq, dim), tables (batch or 1, seq, half) → float64."""
    wide = x.detach().double().transpose(1, 2)
    return rope_reference(wide, cos.double(), sin.double(), interleaved).transpose(1, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("interleaved", (False, True), ids=("half", "interleaved"))
@pytest.mark.parametrize(
    ("batch", "seq", "dim", "half"), [(1, 1, 2, 1), (2, 5, 100, 50), (2, 3, 63, 24), (1, 2, 1000, 500)]
)
def test_forward_and_gradients_match_float64(batch, seq, dim, half, interleaved, dtype):
    q, k = random(batch, 5, seq, dim, dtype=dtype), random(batch, 2, seq, dim, dtype=dtype)
    cos, sin = tables(seq, half, scaling=1.2)
    leaves = [x.requires_grad_() for x in (q, k)]
    out = rope(q, k, cos, sin, interleaved=interleaved)
    dys = [random(*x.shape, dtype=dtype, seed=1) for x in out]
    grads = torch.autograd.grad(out, leaves, dys)
    for x, y, dy, dx in zip(leaves, out, dys, grads, strict=True):
        assert y.dtype == dtype
        assert relative_error(y, truth(x, cos[None], sin[None], interleaved)) <= TOLERANCE[dtype]
        assert relative_error(dx, truth(dy, cos[None], -sin[None], interleaved)) <= TOLERANCE[dtype]


def test_the_references_gradient_is_the_rotation_back():
    x = random(1, 3, 2, 6).double().requires_grad_()
    cos, sin = (table[None].double() for table in tables(3, 2, scaling=0.7))
    for interleaved in (False, True):
        assert torch.autograd.gradcheck(lambda x, i=interleaved: rope_reference(x, cos, sin, i), (x,))
        dy = random(1, 3, 2, 6, seed=5).double()
        (dx,) = torch.autograd.grad(rope_reference(x, cos, sin, interleaved), x, dy)
        assert relative_error(dx, rope_reference(dy, cos, -sin, interleaved)) <= 1e-12


def test_it_is_transformers_llama_with_full_width_tables_of_packed_documents():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e5, "original_max_position_embeddings": 64}
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, rope_parameters=yarn)
    embedding = LlamaRotaryEmbedding(config).to(DEVICE)
    assert embedding.attention_scaling > 1
    ids = torch.cat([torch.arange(n, device=DEVICE) for n in (5, 1, 9)])[None]
    q, k = random(1, 4, 15, 32), random(1, 2, 15, 32)
    cos, sin = embedding(q, ids)
    wanted = apply_rotary_pos_emb(q, k, cos, sin)
    for y, wish in zip(rope(q, k, cos[..., :16], sin[..., :16]), wanted, strict=True):
        assert relative_error(y, wish.double()) <= TOLERANCE[torch.float32]
    table = rope_tables(embedding.inv_freq, torch.arange(9, device=DEVICE), embedding.attention_scaling)
    for y, wish in zip(rope(q, k, *table, ids), wanted, strict=True):
        assert relative_error(y, wish.double()) <= TOLERANCE[torch.float32]


def test_it_is_transformers_gptj_with_partial_rotary_dims():
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb

    q, k = random(2, 7, 3, 20), random(2, 7, 3, 20, seed=1)  # (batch, seq, heads, dim)
    cos, sin = (table[None] for table in tables(7, 4))
    for x, y in zip((q, k), rope(q, k, cos, sin, heads_dim=2, interleaved=True), strict=True):
        turned = apply_rotary_pos_emb(x[..., :8], sin, cos)
        assert relative_error(y, torch.cat((turned, x[..., 8:]), -1).double()) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", (torch.int32, torch.int64), ids=str)
def test_packed_tokens_of_one_projection_rotate_in_place_between_guards(dtype):
    qkv = random(23, 6 + 2 + 2, 16)  # (tokens, heads, dim): q, k and v side by side
    before = qkv.clone()
    ids = torch.cat([torch.arange(n, device=DEVICE) for n in (7, 1, 15)]).to(dtype)
    cos, sin = tables(15, 6)
    q, k = rope_(qkv[:, :6], qkv[:, 6:8], cos, sin, ids)
    assert q.data_ptr() == qkv.data_ptr()
    wanted = truth(before[None].transpose(1, 2), cos[ids.long()][None], sin[ids.long()][None])
    wanted = wanted.transpose(1, 2)[0, :, :8]
    assert relative_error(torch.cat((q, k), 1), wanted) <= TOLERANCE[torch.float32]
    assert torch.equal(qkv[:, 8:], before[:, 8:])
    assert torch.equal(qkv[..., 12:], before[..., 12:])


def test_position_ids_of_a_batch_may_be_shared_or_its_own():
    q, k = random(2, 3, 4, 8), random(2, 1, 4, 8)
    cos, sin = tables(6, 4)
    for ids in (
        torch.tensor([[5, 0, 1, 2]]),
        torch.tensor([[0, 1, 0, 1], [3, 4, 5, 0]]),
        torch.tensor([2, 0, 0, 1]),
    ):
        rows = ids.reshape(-1, 4).to(DEVICE)
        for x, y in zip((q, k), rope(q, k, cos, sin, ids.to(DEVICE)), strict=True):
            assert relative_error(y, truth(x, cos[rows], sin[rows])) <= TOLERANCE[torch.float32]


def test_memory_layout_is_kept_and_any_outer_stride_read():
    q = random(2, 9, 4, 32)[:, ::2].transpose(1, 2)  # (batch, heads, seq, dim) as projections leave it
    k = random(2, 5, 1, 32).transpose(1, 2)
    cos, sin = random(1, 5, 64)[..., :16], random(1, 5, 64, seed=3)[..., :16]
    for x, y in zip((q, k), rope(q, k, cos, sin), strict=True):
        assert relative_error(y, truth(x, cos, sin)) <= TOLERANCE[torch.float32]
        assert y.transpose(1, 2).is_contiguous()


def test_in_place_on_views_trains_as_the_other_form_does():
    x, weight = random(1, 6, 8), random(48, 8, seed=2).requires_grad_()
    cos, sin = tables(6, 4)
    grads = []
    for op in (rope, rope_):
        qk = (x @ weight.t()).view(1, 6, 6, 8).transpose(1, 2)
        q, k = op(qk[:, :4], qk[:, 4:], cos, sin)
        grads.append(torch.autograd.grad((q * q).sum() + k.sin().sum(), weight)[0])
    assert relative_error(grads[1], grads[0].double()) <= TOLERANCE[torch.float32]


def test_in_place_tells_autograd_that_the_old_values_are_gone():
    q, k = (random(1, 2, 3, 8, seed=i).requires_grad_() for i in (0, 1))
    squared = q * 2
    loss = (squared**2).sum()  # saves what is about to be overwritten
    rope_(squared, k * 1, *tables(3, 4))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("mode", ("triton", "reference"))
def test_what_would_lose_a_leaf_or_write_twice_is_refused(monkeypatch, mode):
    monkeypatch.setenv("MALGIL_KERNELS", mode)
    q, leaf = random(1, 2, 3, 8), random(1, 2, 3, 8).requires_grad_()
    with pytest.raises(ValueError, match="k is a leaf that requires grad"):
        rope_(q, leaf, *tables(3, 4))
    with pytest.raises(ValueError, match="q is a leaf that requires grad, or a view"):
        rope_(leaf[:, :1], q, *tables(3, 4))
    with pytest.raises(ValueError, match="elements share memory"):
        rope_(q[:, :1].expand(1, 4, 3, 8), q, *tables(3, 4))
    with torch.no_grad():
        rope_(leaf, q, *tables(3, 4))


def test_a_position_off_the_table_is_loud(monkeypatch):
    q, k = random(3, 2, 8), random(3, 1, 8)
    for bad in (-1, 5):
        ids = torch.tensor([0, bad, 4], device=DEVICE)
        out = rope(q, k, *tables(5, 4), ids)
        assert all(torch.equal(y.isnan().all(-1).any(-1), ids.eq(bad)) for y in out)
    monkeypatch.setenv("MALGIL_KERNELS", "reference")
    with pytest.raises(ValueError, match=r"position_ids go from 0 to 5: must be rows of the table, 0 to 4"):
        rope(q, k, *tables(5, 4), ids)


@pytest.mark.parametrize("mode", ("triton", "reference"))
def test_both_implementations_agree_through_the_public_function(monkeypatch, mode):
    monkeypatch.setenv("MALGIL_KERNELS", mode)
    q, k, ids = random(4, 3, 8), random(4, 1, 8), torch.tensor([0, 1, 0, 2], device=DEVICE)
    cos, sin = tables(3, 3)
    wanted = [
        truth(x[None].transpose(1, 2), cos[ids][None], sin[ids][None]).transpose(1, 2)[0] for x in (q, k)
    ]
    for op in (rope, rope_):
        out = op(q, k, cos, sin, ids)
        assert all(relative_error(y, w) <= TOLERANCE[torch.float32] for y, w in zip(out, wanted, strict=True))


def test_every_element_is_written(monkeypatch):
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda x: empty_like(x).fill_(float("nan")))
    q, k = (random(2, heads, 3, 11).requires_grad_() for heads in (3, 2))
    out = rope(q, k, *tables(3, 4))
    grads = torch.autograd.grad(out, (q, k), [torch.ones_like(x) for x in out])
    assert not any(x.isnan().any() for x in (*out, *grads))


def test_the_same_bits_twice():
    q, k = random(2, 4, 9, 32, dtype=torch.bfloat16), random(2, 2, 9, 32, dtype=torch.bfloat16)
    first, second = (rope(q, k, *tables(9, 16)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_tokens_give_no_tokens():
    q, k = (torch.empty(2, heads, 0, 8, device=DEVICE, requires_grad=True) for heads in (2, 1))
    out = rope(q, k, *tables(0, 4))
    torch.autograd.backward([x.sum() for x in out])
    assert out[1].shape == q.grad[:, :1].shape == (2, 1, 0, 8)


def test_offsets_over_31_bits():
    rows = torch.empty(
        3 * 2**30, dtype=torch.bfloat16, device=DEVICE
    )  # on a CPU only three pages become real
    q = rows.as_strided((3, 1, 8), (2**30 + 2**10, 8, 1))  # a stride of 31 bits: the product needs more
    q.copy_(random(3, 1, 8))
    k = q.clone()
    wanted, _ = rope(k, k, *tables(3, 4))
    with torch.no_grad():
        rope_(q, k, *tables(3, 4))
    assert torch.equal(q, wanted)


def good():
    cos, sin = tables(3, 4)
    ids = torch.zeros(1, 3, dtype=torch.int64, device=DEVICE)
    return {"q": random(1, 2, 3, 8), "k": random(1, 1, 3, 8), "cos": cos, "sin": sin, "position_ids": ids}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(3, 8)}, "q has shape"),
        ({"heads_dim": 3}, "heads_dim is 3"),
        ({"k": torch.zeros(1, 1, 4, 8)}, "k has shape"),
        ({"k": torch.zeros(1, 1, 3, 8, dtype=torch.float16)}, "k is torch.float16"),
        ({"q": torch.zeros(1, 2, 8, 3).transpose(2, 3)}, "q has inner stride 3"),
        ({"q": torch.zeros(1, 2, 3, 8).int(), "k": torch.zeros(1, 2, 3, 8).int()}, "q is torch.int32"),
        ({"sin": torch.zeros(3, 3)}, "sin is"),
        ({"cos": torch.zeros(3, 4, device="meta")}, "cos is torch.float32 on meta"),
        ({"cos": torch.zeros(3, 4).requires_grad_()}, "cos requires grad"),
        ({"cos": torch.zeros(3, 8), "sin": torch.zeros(3, 8)}, "pass cos"),
        ({"position_ids": None, "cos": torch.zeros(2, 4), "sin": torch.zeros(2, 4)}, "1 x 3 tokens"),
        ({"cos": torch.zeros(1, 3, 4), "sin": torch.zeros(1, 3, 4)}, "with position_ids"),
        ({"position_ids": torch.zeros(2, 3).long()}, "position_ids has shape"),
        ({"position_ids": torch.zeros(1, 3)}, "position_ids is torch.float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_named(change, message):
    moved = {
        n: x.to(DEVICE) if isinstance(x, torch.Tensor) and x.device.type == "cpu" else x
        for n, x in change.items()
    }
    with pytest.raises(ValueError, match=message):
        rope(**(good() | moved))


@pytest.mark.gpu
def test_a_long_packed_batch_of_llama():
    q, k = random(32_768, 32, 128, dtype=torch.bfloat16), random(32_768, 8, 128, dtype=torch.bfloat16)
    ids = torch.arange(32_768, device=DEVICE) % 1_000
    cos, sin = tables(1_000, 64)
    for x, y in zip((q, k), rope(q, k, cos, sin, ids), strict=True):
        wanted = rope_reference(x[None], cos[ids][None], sin[ids][None], False)[0]
        assert relative_error(y, wanted.double()) <= TOLERANCE[torch.bfloat16]
