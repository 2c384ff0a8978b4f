"""Benchmarks of attention: packed sequences in training, one long row, and decoding from a paged cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.kernel_bench.peers import normal
from benchmarks.kernel_bench.problem import Asked, Problem
from malgil_kernels import attention, paged_attention
from malgil_kernels.attention.reference import attention_reference
from malgil_kernels.attention.rule import causal_rule
from malgil_kernels.paged_attention.reference import paged_attention_reference

BF16 = torch.bfloat16
# heads, key heads, head dim, lengths of the packed sequences; the figure asked for is the first row's
PACKED: tuple[tuple[int, int, int, tuple[int, ...]], ...] = (
    (32, 8, 128, (16_384,)),
    (32, 8, 128, (4_096,) * 4),
    (32, 8, 128, (257, 1_023, 63, 3_000, 800, 2_049, 512, 8_680)),
    (32, 8, 64, (16_384,)),
    (16, 8, 256, (8_192,)),
)
PACKED_QUICK: tuple[tuple[int, int, int, tuple[int, ...]], ...] = ((2, 1, 16, (5, 17)),)
# sequences, context, query heads, key heads, head dim, block size
PAGED = ((64, 8_192, 32, 8, 128, 16), (8, 32_768, 32, 8, 128, 16))
PAGED_QUICK = ((2, 40, 4, 2, 16, 16),)


def problems(quick: bool) -> Iterator[Problem]:
    """Packed training attention, forward alone and with backward; then paged decoding."""
    for heads, kv_heads, dim, lengths in PACKED_QUICK if quick else PACKED:
        for backward in (False, True):
            yield _packed(heads, kv_heads, dim, lengths, backward)
    for size in PAGED_QUICK if quick else PAGED:
        yield _paged(*size)


def _packed(heads: int, kv_heads: int, dim: int, lengths: Sequence[int], backward: bool) -> Problem:
    single = len(lengths) == 1

    def inputs(lengths: Sequence[int], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        total = sum(lengths)
        q, k, v = (normal((total, n, dim), BF16, generator) for n in (heads, kv_heads, kv_heads))
        starts = torch.tensor([0, *lengths], device=generator.device).cumsum(0).to(torch.int32)
        return q, k, v, starts

    def ours(q: Any, k: Any, v: Any, starts: Any) -> Any:
        return attention(q, k, v, starts, max_seqlen=max(lengths))[0]

    # the document mask costs nothing where the lengths are equal: then SDPA gets a batch without padding
    equal = len(set(lengths)) == 1

    def sdpa(backend: SDPBackend) -> Callable[..., Any]:
        def call(q: Any, k: Any, v: Any, starts: Any) -> Any:
            count = starts.numel() - 1
            batch = [x.view(count, -1, x.shape[1], dim).transpose(1, 2) for x in (q, k, v)]
            with sdpa_kernel(backend):
                y = scaled_dot_product_attention(*batch, is_causal=True, enable_gqa=True)
            return y.transpose(1, 2).reshape(q.shape)

        return call

    def one_by_one(q: Any, k: Any, v: Any, starts: Any) -> Any:
        parts = [
            scaled_dot_product_attention(
                *(x[a:b].transpose(0, 1)[None] for x in (q, k, v)), is_causal=True, enable_gqa=True
            )[0].transpose(0, 1)
            for a, b in zip(starts.tolist()[:-1], starts.tolist()[1:], strict=True)
        ]
        return torch.cat(parts)

    def reference(q: Any, k: Any, v: Any, starts: Any) -> Any:
        return attention_reference(q, k, v, starts, starts, causal_rule(True, None), dim**-0.5, None)[0]

    small = [33, 1, 64] if not equal else [50] * min(len(lengths), 3)
    implementations: dict[str, Callable[..., Any]] = {"malgil": ours}
    if equal:
        implementations |= {
            "sdpa flash": sdpa(SDPBackend.FLASH_ATTENTION),
            "sdpa cudnn": sdpa(SDPBackend.CUDNN_ATTENTION),
        }
    else:
        implementations["sdpa, one by one"] = one_by_one
    pairs = sum(n * (n + 1) // 2 for n in lengths)  # that a causal mask leaves
    asked = Asked()
    if single and dim == 128:
        asked = Asked(ratios={"sdpa flash": 1.0}, tflops=350.0 if backward else 450.0)
    return Problem(
        op="attention",
        size=f"{_lengths(lengths)}, {heads}+{kv_heads} heads of {dim}, causal, bf16",
        make=lambda generator, _: inputs(lengths, generator),
        make_small=lambda generator, _: inputs(small, generator),
        implementations=implementations,
        reference=reference,
        dtype=BF16,
        asked=asked,
        backward=backward,
        bytes_moved=2 * dim * sum(lengths) * (2 * heads + 2 * kv_heads) * (3 if backward else 1),
        flops=4 * heads * dim * pairs * (7 if backward else 2) // 2,  # two products forward, five backward
    )


def _lengths(lengths: Sequence[int]) -> str:
    if len(set(lengths)) == 1:
        return f"{len(lengths)} x {lengths[0]:,}"
    return f"{len(lengths)} sequences of {min(lengths):,} to {max(lengths):,}"


def _paged(sequences: int, context: int, heads: int, kv_heads: int, dim: int, block: int) -> Problem:
    def inputs(sequences: int, context: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        width = -(-context // block)
        query = normal((sequences, heads, dim), BF16, generator, grad=False)
        cache = [
            normal((sequences * width, block, kv_heads, dim), BF16, generator, grad=False) for _ in range(2)
        ]
        order = torch.randperm(sequences * width, generator=generator, device=generator.device)
        tables = order.to(torch.int32).view(sequences, width)
        lengths = torch.full((sequences,), context, dtype=torch.int32, device=generator.device)
        return query, *cache, tables, lengths

    def ours(query: Any, keys: Any, values: Any, tables: Any, lengths: Any) -> Any:
        return paged_attention(query, keys, values, tables, lengths)

    def gathered(query: Any, keys: Any, values: Any, tables: Any, lengths: Any) -> Any:
        # what is left without a paged kernel: make the cache dense, then SDPA under a mask of lengths
        dense = [x[tables.long()].flatten(1, 2).transpose(1, 2) for x in (keys, values)]
        seen = torch.arange(dense[0].shape[2], device=query.device) < lengths[:, None]
        return scaled_dot_product_attention(
            query[:, :, None], *dense, attn_mask=seen[:, None, None], enable_gqa=True
        )[:, :, 0]

    def reference(query: Any, keys: Any, values: Any, tables: Any, lengths: Any) -> Any:
        return paged_attention_reference(query, keys, values, tables, lengths, None, dim**-0.5)

    return Problem(
        op="paged_attention",
        size=f"{sequences} x {context:,} keys, {heads}+{kv_heads} heads of {dim}, blocks of {block}, bf16",
        make=lambda generator, _: inputs(sequences, context, generator),
        make_small=lambda generator, _: inputs(min(sequences, 3), min(context, 77), generator),
        implementations={"malgil": ours, "eager": gathered},
        reference=reference,
        dtype=BF16,
        asked=Asked(copy=0.8) if sequences == 64 else Asked(),
        backward=False,
        bytes_moved=2 * 2 * sequences * context * kv_heads * dim,
        flops=4 * sequences * context * heads * dim,
        graph=True,
    )
