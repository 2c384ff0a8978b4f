"""Real calls of paged decoding for the compile check."""

from collections.abc import Callable, Iterator

import torch

from malgil_kernels.paged_attention.triton_op import paged_attention_triton

BATCH, CONTEXT, BLOCK_SIZE = 64, 8_192, 16


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """The sizes of a served 8B model, and each tile; the name becomes the table's row."""
    for dim in (64, 80, 128, 256):
        yield f"bf16, 8k context, head dim {dim}", _call(dim, torch.bfloat16)
    yield "fp16, 8k context, head dim 128", _call(128, torch.float16)
    yield "fp32, 8k context, head dim 128", _call(128, torch.float32)
    yield "bf16, window and softcap, head dim 256", _call(256, torch.bfloat16, 50.0, 4_096)


def _call(
    dim: int, dtype: torch.dtype, softcap: float | None = None, window: int | None = None
) -> Callable[[], object]:
    def call() -> object:
        blocks = CONTEXT // BLOCK_SIZE
        query = torch.empty(BATCH, 32, dim, dtype=dtype)
        cache = torch.empty(blocks, BLOCK_SIZE, 8, dim, dtype=dtype)
        tables = torch.empty(BATCH, blocks, dtype=torch.int32)
        lengths = torch.empty(BATCH, dtype=torch.int32)
        return paged_attention_triton(query, cache, cache, tables, lengths, None, dim**-0.5, softcap, window)

    return call
