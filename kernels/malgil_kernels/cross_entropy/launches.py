"""Real calls of `cross_entropy` for the compile check: Llama 3's, Gemma's and a small vocabulary."""

from collections.abc import Callable, Iterator

import torch

from malgil_kernels.cross_entropy.options import LossOptions
from malgil_kernels.cross_entropy.triton_op import cross_entropy_triton

EVERYTHING = LossOptions(label_smoothing=0.1, softcap=30.0, z_loss=1e-4)


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls whose tensors' values are never read."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        yield f"{name}, vocab 128256", _call(dtype, 128_256, LossOptions(), in_place=False)
        yield f"{name}, vocab 128256, in place", _call(dtype, 128_256, LossOptions(), in_place=True)
    for in_place in (False, True):
        name = "in place" if in_place else "recomputed"
        yield (
            f"bfloat16, vocab 262144, all options, {name}",
            _call(torch.bfloat16, 262_144, EVERYTHING, in_place),
        )
    yield "bfloat16, vocab 1000, in place", _call(torch.bfloat16, 1000, LossOptions(), in_place=True)


def _call(dtype: torch.dtype, vocab: int, options: LossOptions, in_place: bool) -> Callable[[], object]:
    def call() -> object:
        logits = torch.empty(16, vocab, dtype=dtype).requires_grad_()
        target = torch.empty(16, dtype=torch.int64)
        loss = cross_entropy_triton(logits, target, options, 16, in_place)
        torch.autograd.backward([loss])
        return loss

    return call
