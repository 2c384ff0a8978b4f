"""Real calls of `linear_cross_entropy` for the compile check; its products are cuBLAS's, so H is small."""

from collections.abc import Callable, Iterator

import torch

from malgil_kernels.cross_entropy.options import LossOptions
from malgil_kernels.linear_cross_entropy.triton_op import linear_cross_entropy_triton


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls of which only the targets' number is read."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        yield f"{name}, vocab 128256, weight trained", _call(dtype, 128_256, LossOptions(), trained=True)
    gemma = _call(torch.bfloat16, 262_144, LossOptions(softcap=30.0), trained=False)
    yield "bfloat16, vocab 262144, softcap, weight frozen", gemma


def _call(dtype: torch.dtype, vocab: int, options: LossOptions, trained: bool) -> Callable[[], object]:
    def call() -> object:
        hidden = torch.empty(16, 32, dtype=dtype).requires_grad_()
        weight = torch.empty(vocab, 32, dtype=dtype).requires_grad_(trained)
        target = torch.empty(16, dtype=torch.int64)
        loss = linear_cross_entropy_triton(hidden, weight, target, options, max_labels=16)
        torch.autograd.backward([loss])
        return loss

    return call
