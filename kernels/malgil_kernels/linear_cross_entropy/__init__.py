"""Cross-entropy of hidden states through the output projection, without ever holding the logits."""

import torch

from malgil_kernels.cross_entropy.options import LossOptions, check_num_items, check_target
from malgil_kernels.dispatch import select
from malgil_kernels.linear_cross_entropy.reference import linear_cross_entropy_reference

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
    num_items: int | torch.Tensor | None = None,
    max_labels: int | None = None,
    weight_gradient_dtype: torch.dtype | None = torch.float32,
    chunk: int | None = None,
) -> torch.Tensor:
    """`cross_entropy` of hidden · weightᵀ, computed over chunks of tokens.

    Rows that are ignored are not computed at all: no logits, no gradient product (Liger-Kernel computes them
    and multiplies by zeros). A weight that needs no gradient, as under LoRA, costs neither time nor memory
    for one. The arithmetic of memory and time is in `triton_op.py`.

    Args:
        hidden: (..., H), the last layer's output.
        weight: (V, H) in hidden's dtype, frozen or trained. Logits are rounded to that dtype, as a linear
            layer's are.
        target: (...) int32 or int64 class indices, already shifted; off the vocabulary as in `cross_entropy`.
        ignore_index, label_smoothing, softcap, z_loss, reduction, num_items: as in `cross_entropy`.
        max_labels: an upper bound of the targets that are not ignored, known to who made the batch. Without
            it the host waits for the GPU once, to count them; with it there is no wait, and one that is too
            low makes the loss NaN.
        weight_gradient_dtype: what the weight's gradient is summed in over chunks: float32, or None for the
            weight's own (half of the memory; each chunk's addition rounds). It arrives in the weight's dtype.
        chunk: tokens per chunk; None chooses by memory.

    Returns:
        The loss, a scalar in float32 (float64 for float64 inputs).

    Raises:
        ValueError: an argument outside the above.
        RuntimeError: a second backward (the gradients are scaled where they lie).

    Deterministic. On a CPU the reference runs, which holds the logits of the rows that count.
    Source: the chunks are Liger-Kernel's idea, arXiv:2410.10989; the loss is that of `cross_entropy`.
    """
    options = LossOptions(ignore_index, label_smoothing, softcap, z_loss, reduction)
    _check(hidden, weight, weight_gradient_dtype)
    check_target(target, tuple(hidden.shape[:-1]), hidden.device)
    check_num_items(num_items, options)
    for name, count in (("max_labels", max_labels), ("chunk", chunk)):
        if count is not None and count < 1:
            raise ValueError(f"{name}={count}: must be at least 1, or None")
    tokens = hidden.reshape(-1, hidden.shape[-1])
    if select("linear_cross_entropy", dtype=hidden.dtype, device=hidden.device).implementation == "triton":
        from malgil_kernels.linear_cross_entropy.triton_op import linear_cross_entropy_triton

        return linear_cross_entropy_triton(
            tokens,
            weight,
            target.reshape(-1),
            options,
            num_items,
            max_labels,
            weight_gradient_dtype,
            chunk,
        )
    return linear_cross_entropy_reference(tokens, weight, target.reshape(-1), options, num_items)


def _check(hidden: torch.Tensor, weight: torch.Tensor, weight_gradient_dtype: torch.dtype | None) -> None:
    if hidden.ndim < 2 or hidden.shape[-1] == 0 or not hidden.dtype.is_floating_point:
        raise ValueError(f"hidden is {hidden.dtype} {tuple(hidden.shape)}: must be floating-point, (..., H)")
    if weight.ndim != 2 or weight.shape[1] != hidden.shape[-1] or weight.shape[0] == 0:
        raise ValueError(f"weight has shape {tuple(weight.shape)}: must be (vocab, {hidden.shape[-1]})")
    if weight.dtype != hidden.dtype or weight.device != hidden.device:
        raise ValueError(
            f"weight is {weight.dtype} on {weight.device}: must be {hidden.dtype} on {hidden.device}, as "
            "hidden. Next: under autocast pass weight.to(hidden.dtype)"
        )
    if weight_gradient_dtype not in (None, torch.float32, weight.dtype):
        raise ValueError(f"weight_gradient_dtype={weight_gradient_dtype}: must be torch.float32 or None")
