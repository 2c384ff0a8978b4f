"""Cross-entropy over a vocabulary, from logits. With the projection that makes the logits fused in, it is
`linear_cross_entropy`."""

import torch

from malgil_kernels.cross_entropy.options import LossOptions, check_num_items, check_target
from malgil_kernels.cross_entropy.reference import cross_entropy_reference
from malgil_kernels.dispatch import select

__all__ = ["LossOptions", "cross_entropy"]


def cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
    num_items: int | torch.Tensor | None = None,
    gradient_in_place: bool = False,
) -> torch.Tensor:
    """Cross-entropy of logits (..., vocab), as `torch.nn.functional.cross_entropy` with what follows.

    Args:
        logits: (..., vocab), any row stride; an inner stride other than 1 is copied first. Ignored rows are
            not read.
        target: (...) int32 or int64 class indices, already shifted. One that is neither `ignore_index` nor
            in the vocabulary makes the loss and its row's gradient NaN on a GPU, and raises on a CPU.
        ignore_index: rows with this target count for nothing.
        label_smoothing: in [0, 1), spread evenly over the vocabulary.
        softcap: logits become softcap · tanh(logits / softcap) first (Gemma 2).
        z_loss: adds z_loss · lse² per row (PaLM).
        reduction: "mean" over the rows that are not ignored (NaN if there are none, as in PyTorch), or "sum".
        num_items: what "mean" divides by instead: the global batch's labels, under gradient accumulation.
        gradient_in_place: the kernel's forward overwrites `logits` with their gradient, and the backward
            multiplies that by its upstream gradient (reading nothing if that is 1). The contract: nobody
            reads the logits afterwards; what saved them raises in its backward, as does a second backward.
            Has no effect where no gradient is wanted, nor on the reference. In float16 the division by the
            number of rows waits for the backward, so that p / rows does not vanish before a loss scale.

    Returns:
        The loss, a scalar in float32 (float64 for float64 logits).

    Raises:
        ValueError: an argument outside the above, or gradients would overwrite a leaf.

    Deterministic.
    Source: Milakov and Gimelshein 2018, arXiv:1805.02867 (online softmax); PaLM, arXiv:2204.02311 (z-loss);
    Gemma 2, arXiv:2408.00118 (softcap).
    """
    options = LossOptions(ignore_index, label_smoothing, softcap, z_loss, reduction)
    if logits.ndim < 2 or logits.shape[-1] == 0 or not logits.dtype.is_floating_point:
        raise ValueError(
            f"logits is {logits.dtype} {tuple(logits.shape)}: must be floating-point, (..., vocab)"
        )
    check_target(target, tuple(logits.shape[:-1]), logits.device)
    check_num_items(num_items, options)
    base = logits if logits._base is None else logits._base
    if gradient_in_place and logits.requires_grad and base.is_leaf:
        raise ValueError(
            "logits is a leaf that requires grad, or a view of one: gradient_in_place would overwrite it. "
            "Next: leave gradient_in_place off"
        )
    rows = logits.reshape(-1, logits.shape[-1])
    if select("cross_entropy", dtype=logits.dtype, device=logits.device).implementation == "triton":
        from malgil_kernels.cross_entropy.triton_op import cross_entropy_triton

        return cross_entropy_triton(rows, target.reshape(-1), options, num_items, gradient_in_place)
    return cross_entropy_reference(rows, target.reshape(-1), options, num_items)
