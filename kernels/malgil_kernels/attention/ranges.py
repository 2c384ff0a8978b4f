"""Visible ranges of packed sequences: for each query row its first and last key, and the inverse for each key.

    query i of a sequence sees the keys [lo_i, hi_i);  key j is seen by the queries [lo'_j, hi'_j)

The rule of `rule.py` in both directions, in one launch and without a look at the lengths on the host. The
attention kernels know nothing but these ranges, so a tile of 128 rows holds the end of one document, several
short ones and the start of the next: thousands of documents of 20 tokens fill tiles as one long one does, and
the grid depends on the number of rows alone. 16 bytes per row against heads · dim · 2 bytes of a row itself.
"""

import torch
import triton
import triton.language as tl

from malgil_kernels.attention.rule import Ranges, Rule

BLOCK = 1024
PROGRAMS_PER_SEQUENCE = 16


@triton.jit
def visible_ranges_kernel(
    q_start_ptr,
    q_end_ptr,
    k_start_ptr,
    k_end_ptr,
    query_lo_ptr,
    query_hi_ptr,
    key_lo_ptr,
    key_hi_ptr,
    total_q,
    total_k,
    chunk,
    left,
    right,
    CHUNKED: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sequence = tl.program_id(0)
    # never past the tensors, whatever the bounds are
    q_start = tl.minimum(tl.load(q_start_ptr + sequence), total_q)
    q_length = tl.minimum(tl.load(q_end_ptr + sequence), total_q) - q_start
    k_start = tl.minimum(tl.load(k_start_ptr + sequence), total_k)
    k_length = tl.minimum(tl.load(k_end_ptr + sequence), total_k) - k_start
    shift = k_length - q_length  # the last query stands at the last key
    for first in range(tl.program_id(1) * BLOCK, q_length, tl.num_programs(1) * BLOCK):
        row = first + tl.arange(0, BLOCK)
        own = row + shift
        if CHUNKED:
            own = own // chunk * chunk
        lo = tl.zeros([BLOCK], dtype=tl.int32)
        hi = tl.zeros([BLOCK], dtype=tl.int32) + k_length
        if LEFT:
            lo = tl.maximum(own - left, 0)
        if RIGHT:
            hi = tl.minimum(tl.maximum(own + chunk + right, 0), k_length)
        tl.store(query_lo_ptr + q_start + row, k_start + lo, mask=row < q_length)
        tl.store(query_hi_ptr + q_start + row, k_start + hi, mask=row < q_length)
    for first in range(tl.program_id(1) * BLOCK, k_length, tl.num_programs(1) * BLOCK):
        key = first + tl.arange(0, BLOCK)
        lo = tl.zeros([BLOCK], dtype=tl.int32)
        hi = tl.zeros([BLOCK], dtype=tl.int32) + q_length
        if RIGHT:
            own = key - right
            if CHUNKED:
                own = tl.maximum(own, 0) // chunk * chunk
            lo = tl.maximum(own - shift, 0)
        if LEFT:
            own = key + left
            if CHUNKED:
                own = own // chunk * chunk
            hi = tl.minimum(tl.maximum(own + chunk - shift, 0), q_length)
        tl.store(key_lo_ptr + k_start + key, q_start + lo, mask=key < k_length)
        tl.store(key_hi_ptr + k_start + key, q_start + hi, mask=key < k_length)


def launch_ranges(
    q_bounds: tuple[torch.Tensor, torch.Tensor],
    k_bounds: tuple[torch.Tensor, torch.Tensor],
    total_q: int,
    total_k: int,
    longest: int,
    rule: Rule,
) -> Ranges:
    """The ranges of sequences that do not overlap; rows outside every sequence see nothing and are not seen.

    Args:
        q_bounds, k_bounds: where each sequence starts and ends in q's rows and in k's, (sequences,) int32 each.
        longest: about how many rows the longest sequence has; it sizes the grid, the result is the same.
    """
    # one zeroed buffer: rows of no sequence keep [0, 0)
    buffer = torch.zeros(2 * (total_q + total_k), dtype=torch.int32, device=q_bounds[0].device)
    ranges = Ranges(*buffer.split([total_q, total_q, total_k, total_k]))
    sequences = q_bounds[0].shape[0]
    far = max(total_q, total_k)  # a bound beyond every row, which int32 holds
    if sequences > 0:
        programs = min(max(triton.cdiv(longest, BLOCK), 1), PROGRAMS_PER_SEQUENCE)
        visible_ranges_kernel[(sequences, programs)](
            *q_bounds,
            *k_bounds,
            *ranges,
            total_q,
            total_k,
            min(rule.chunk, far + 1),
            min(rule.left or 0, far),
            min(rule.right or 0, far),
            CHUNKED=rule.chunk > 1,
            LEFT=rule.left is not None,
            RIGHT=rule.right is not None,
            BLOCK=BLOCK,
            num_warps=4,
        )
    return ranges
