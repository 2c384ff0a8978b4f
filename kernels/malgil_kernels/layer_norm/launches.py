"""Real calls of layer_norm for the compile check: an encoder's rows, a convolution's layout, long rows."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from malgil_kernels.layer_norm.triton_op import layer_norm_triton

ROWS = 8192
SHAPES = (
    (torch.bfloat16, 192),
    (torch.bfloat16, 1024),
    (torch.bfloat16, 4096),
    (torch.bfloat16, 8192),
    (torch.bfloat16, 32_768),
    (torch.float16, 1024),
    (torch.float32, 1024),
    (torch.float32, 4096),
    (torch.float32, 32_768),
)
FRAMES = 16_000  # 16 utterances of 5 s leave the first convolution with 15,999 each: an odd number


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Forward and backward of each shape, with weight and bias, without, and after a convolution."""
    yield from rows(use_gelu=False)
    x = partial(torch.empty, ROWS, 1024, dtype=torch.bfloat16)
    yield (
        "bfloat16 1024, no weight, no bias",
        lambda: layer_norm_triton(x().requires_grad_(), None, None, 1e-5).backward(x()),
    )


def rows(use_gelu: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    """What layer_norm and layer_norm_gelu launch alike."""
    for dtype, hidden in SHAPES:
        yield f"{str(dtype)[6:]} {hidden}", partial(forward_backward, dtype, (ROWS, hidden), use_gelu)
    for dtype, frames in (
        (torch.bfloat16, FRAMES),
        (torch.bfloat16, FRAMES - 1),
        (torch.float32, FRAMES - 1),
    ):
        name = f"{str(dtype)[6:]} 512 channels, {frames} frames inside"
        yield name, partial(forward_backward, dtype, (16, 512, frames), use_gelu)


def forward_backward(dtype: torch.dtype, shape: tuple[int, ...], use_gelu: bool) -> None:
    """One training step's launches; three sizes are a convolution's output, transposed for the norm."""
    x, dy = (torch.empty(shape, dtype=dtype) for _ in range(2))
    if len(shape) == 3:
        x, dy = x.transpose(1, 2), dy.transpose(1, 2)
    weight, bias = (torch.empty(x.shape[-1], dtype=dtype).requires_grad_() for _ in range(2))
    layer_norm_triton(x.requires_grad_(), weight, bias, 1e-5, use_gelu).backward(dy)
