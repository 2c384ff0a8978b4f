"""Cross-entropy over a vocabulary in readable PyTorch: the truth for tests, and what runs on a CPU."""

import torch
import torch.nn.functional as F

from malgil_kernels.cross_entropy.options import LossOptions


def cross_entropy_reference(
    logits: torch.Tensor,
    target: torch.Tensor,
    options: LossOptions,
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """PyTorch's cross-entropy of the capped logits plus z_loss · lse² per row; at least float32 inside.

    Args:
        logits: (rows, vocab).
        target: (rows,).
        options: see there.
        num_items: what "mean" divides by; None for the number of rows that are not ignored.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if options.softcap is not None:
        wide = options.softcap * torch.tanh(wide / options.softcap)
    kept = target != options.ignore_index
    loss = F.cross_entropy(
        wide,
        target.long(),
        ignore_index=options.ignore_index,
        label_smoothing=options.label_smoothing,
        reduction="sum",
    )
    if options.z_loss:
        loss = loss + options.z_loss * torch.logsumexp(wide, dim=-1)[kept].square().sum()
    if options.reduction == "mean":
        loss = loss / (kept.sum() if num_items is None else num_items)
    return loss
