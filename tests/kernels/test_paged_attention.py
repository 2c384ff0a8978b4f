"""Paged decoding: the kernels against the float64 reference."""

import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels.paged_attention import paged_attention, triton_op
from malgil_kernels.paged_attention.reference import paged_attention_reference
from malgil_kernels.paged_attention.triton_op import paged_attention_triton, splits_for
from malgil_kernels.testing import DTYPES, check_op

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def cache_of(lengths, heads, kv_heads, dim, block_size, dtype):
    """A query, a cache whose blocks lie in random order, with more of them than are used, and its tables."""
    generator = torch.Generator().manual_seed(sum(lengths) + dim)
    width = -(-max(lengths) // block_size) + 1
    blocks = len(lengths) * width + 3
    query = torch.randn(len(lengths), heads, dim, generator=generator).to(dtype).to(DEVICE)
    cache = torch.randn(2, blocks, block_size, kv_heads, dim + 8, generator=generator).to(dtype).to(DEVICE)
    table = torch.randperm(blocks, generator=generator)[: len(lengths) * width].view(-1, width)
    numbers = (table.to(torch.int32).to(DEVICE), torch.tensor(lengths, dtype=torch.int32, device=DEVICE))
    return query, cache[0, ..., :dim], cache[1, ..., :dim], *numbers


@pytest.fixture
def short_splits(monkeypatch):
    monkeypatch.setattr(triton_op, "SHORTEST_SPLIT", 64)


def compare(inputs, first_keys=None, softcap=None, window=None):
    settings = (first_keys, inputs[0].shape[-1] ** -0.5, softcap, window)
    return check_op(
        lambda *x: paged_attention_triton(*x, *settings),
        lambda *x: paged_attention_reference(*x, *settings),
        *inputs,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_contexts_of_every_length(dtype, short_splits):
    compare(cache_of((5, 0, 200, 1, 64), 4, 2, 32, 16, dtype))


@pytest.mark.parametrize("dim", (64, 80, 128, 192, 256))
def test_head_dims_and_a_block_size_that_is_no_power_of_two(dim, short_splits):
    compare(cache_of((63, 100), 6, 2, dim, 7, torch.float16), softcap=3.0)


def test_window_and_first_keys(short_splits):
    inputs = cache_of((63, 150, 9, 20), 3, 1, 16, 16, torch.bfloat16)
    first = torch.tensor([10, 149, 0, 20], dtype=torch.int32, device=DEVICE)  # the last sees nothing
    compare(inputs, window=40)
    compare(inputs, first_keys=first)
    compare(inputs, first_keys=first, window=30)


def test_what_lies_past_a_context_is_never_read():
    query, keys, values, table, lengths = cache_of((5, 20), 2, 1, 16, 16, torch.float32)
    true = paged_attention_triton(query, keys, values, table, lengths, None, 0.25)
    dirty = [x.clone() for x in (keys, values)]
    for cache in dirty:
        used = torch.zeros(cache.shape[:2], dtype=torch.bool)
        for row, length in zip(table.tolist(), lengths.tolist(), strict=True):
            for key in range(length):
                used[row[key // 16], key % 16] = True
        cache[~used.to(DEVICE)] = float("nan")
    assert torch.equal(paged_attention_triton(query, *dirty, table, lengths, None, 0.25), true)


def test_blocks_past_two_to_the_31():
    memory = torch.empty(2**31 + 2**16, dtype=torch.float16, device=DEVICE)  # virtual; few pages are touched
    query, keys, values, table, lengths = cache_of((10,), 2, 1, 16, 8, torch.float16)
    far = []
    for number, cache in enumerate((keys, values)):
        view = memory.as_strided((3, 8, 1, 16), (2**30, 16, 16, 1), number * 4096)
        view.copy_(cache[:3])
        far.append(view)
    table = torch.tensor([[2, 1]], dtype=torch.int32, device=DEVICE)
    true = paged_attention_triton(query, keys, values, table, lengths, None, 0.25)
    assert torch.equal(paged_attention_triton(query, *far, table, lengths, None, 0.25), true)


def test_same_bits_twice_and_an_empty_batch(short_splits):
    inputs = cache_of((5, 200), 2, 1, 16, 16, torch.float16)
    first, again = (paged_attention_triton(*inputs, None, 0.25) for _ in range(2))
    assert torch.equal(first, again)
    none = [x[:0] if i in (0, 3, 4) else x for i, x in enumerate(inputs)]
    assert paged_attention_triton(*none, None, 0.25).shape == (0, 2, 16)


def test_splits_fill_the_gpu_and_are_never_short():
    assert splits_for(8192, 64 * 8, torch.device("cpu")) == 5  # 2,112 programs wanted, 512 pairs
    assert splits_for(100, 1, torch.device("cpu")) == 1
    assert splits_for(1_000_000, 1, torch.device("cpu")) == triton_op.MOST_SPLITS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query": torch.zeros(2, 4, 300)}, "query has shape"),
        ({"query": torch.zeros(2, 3, 16)}, "kv_heads a divisor"),
        ({"query": torch.zeros(2, 16, 4).mT}, "query has inner stride 4"),
        ({"query": torch.zeros(2, 4, 16).requires_grad_()}, "query requires a gradient"),
        ({"key_cache": torch.zeros(3, 8, 2, 16).half()}, "key_cache is torch.float16"),
        ({"value_cache": torch.zeros(4, 8, 2, 16)}, "value_cache has shape"),
        ({"block_tables": torch.zeros(2, 3)}, "block_tables is torch.float32"),
        ({"block_tables": torch.zeros(3, 3, dtype=torch.int32)}, "block_tables has shape"),
        ({"context_lengths": torch.zeros(2, dtype=torch.int64)}, "context_lengths is torch.int64"),
        ({"first_keys": torch.zeros(3, dtype=torch.int32)}, "first_keys has shape"),
        ({"window": 0}, "window is 0"),
        ({"scale": 0.0}, "scale is 0"),
    ],
)
def test_a_wrong_argument_is_named(change, named):
    right = {"query": torch.zeros(2, 4, 16)}
    right |= {name: torch.zeros(3, 8, 2, 16) for name in ("key_cache", "value_cache")}
    right |= {"block_tables": torch.zeros(2, 3, dtype=torch.int32)}
    right |= {"context_lengths": torch.zeros(2, dtype=torch.int32)}
    with pytest.raises((ValueError, TypeError), match=named):
        paged_attention(**(right | change))
    assert paged_attention(**right).eq(0).all()
