"""What a cross-entropy over a vocabulary can be told; checked once, where it is built."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LossOptions:
    """Options of `cross_entropy` and `linear_cross_entropy`.

    Raises:
        ValueError: a value outside what its line says.
    """

    ignore_index: int = -100  # rows with this target count for nothing
    label_smoothing: float = 0.0  # in [0, 1): share of the target spread over the whole vocabulary
    softcap: float | None = None  # > 0: logits become softcap · tanh(logits / softcap), as in Gemma 2
    z_loss: float = 0.0  # ≥ 0: adds z_loss · lse² per row (PaLM, arXiv:2204.02311)
    reduction: str = "mean"  # over the rows that are not ignored, or "sum"

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing}: must be in [0, 1)")
        if self.softcap is not None and not (0 < self.softcap < math.inf):
            raise ValueError(f"softcap={self.softcap}: must be over 0, or None for no cap")
        if not 0 <= self.z_loss < math.inf:
            raise ValueError(f"z_loss={self.z_loss}: must be 0 or more")
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f"reduction={self.reduction!r}: must be 'mean' or 'sum'")


def check_target(target: torch.Tensor, rows: tuple[int, ...], device: torch.device) -> None:
    """Refuses a target that is not one class index for each row.

    Raises:
        ValueError: shape, dtype or device do not fit.
    """
    if tuple(target.shape) != rows:
        raise ValueError(f"target has shape {tuple(target.shape)}: must be {rows}, one index per row")
    if target.dtype not in (torch.int32, torch.int64) or target.device != device:
        raise ValueError(f"target is {target.dtype} on {target.device}: must be int32 or int64 on {device}")


def check_num_items(num_items: int | torch.Tensor | None, options: LossOptions) -> None:
    """Refuses a divisor that is not one positive number, or that "sum" would ignore.

    Raises:
        ValueError: see above; a tensor's value is not looked at.
    """
    if num_items is None:
        return
    if options.reduction != "mean":
        raise ValueError(f"num_items={num_items} with reduction='sum': only 'mean' divides")
    if isinstance(num_items, torch.Tensor):
        if num_items.numel() != 1:
            raise ValueError(f"num_items has shape {tuple(num_items.shape)}: must be one number")
    elif num_items <= 0:
        raise ValueError(f"num_items={num_items}: must be over 0")
