"""Real calls of `rope` for the compile check: Llama 3 8B, Gemma's heads of 256, GPT-J's partial pairs."""

from collections.abc import Callable, Iterator

import torch

from malgil_kernels.rope.triton_op import Tables, rope_triton


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls whose tensors' values are never read."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        yield f"{name}, half, 32+8 heads of 128", _train(dtype, (32, 8, 128), 64, interleaved=False)
    yield "bfloat16, half, 16+8 heads of 256", _train(torch.bfloat16, (16, 8, 256), 128, interleaved=False)
    yield (
        "bfloat16, interleaved, 16+16 heads of 256, 64 rotated",
        _train(torch.bfloat16, (16, 16, 256), 32, interleaved=True),
    )
    yield "bfloat16, half, packed, in place", _decode


def _train(
    dtype: torch.dtype, heads: tuple[int, int, int], half: int, interleaved: bool
) -> Callable[[], object]:
    def call() -> object:
        q_heads, k_heads, dim = heads
        q = torch.empty(1, 256, q_heads, dim, dtype=dtype).transpose(1, 2).requires_grad_()
        k = torch.empty(1, 256, k_heads, dim, dtype=dtype).transpose(1, 2).requires_grad_()
        cos, sin = torch.empty(1, 256, half), torch.empty(1, 256, half)
        out = rope_triton(q, k, Tables(cos, sin, None, interleaved), heads_dim=1, in_place=False)
        torch.autograd.backward(out, [torch.empty_like(x) for x in out])
        return out

    return call


def _decode() -> object:
    q, k = (torch.empty(256, heads, 128, dtype=torch.bfloat16) for heads in (32, 8))
    cos, sin = torch.empty(1, 4096, 64), torch.empty(1, 4096, 64)
    positions = torch.empty(1, 256, dtype=torch.int64)
    return rope_triton(q, k, Tables(cos, sin, positions, interleaved=False), heads_dim=1, in_place=True)
