"""Chooses an implementation of an op and says why.

`MALGIL_KERNELS=reference` or `=triton` overrides the choice. Each decision is logged once.
"""

import importlib.util
import logging
import os
from functools import lru_cache
from typing import Literal, NamedTuple

import torch

Implementation = Literal["triton", "reference"]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
log = logging.getLogger("malgil.kernels")


class Choice(NamedTuple):
    """What runs, and why."""

    implementation: Implementation
    reason: str


@lru_cache(maxsize=256)
def select(op: str, dtype: torch.dtype, device: str) -> Choice:
    """The implementation of `op` for tensors of `dtype` on `device` ("cpu", "cuda").

    Raises:
        ValueError: MALGIL_KERNELS is neither unset, "reference" nor "triton".
    """
    choice = _choose(dtype, device, os.environ.get("MALGIL_KERNELS", ""))
    log.info("%s on %s %s: %s (%s)", op, device, dtype, *choice)
    return choice


def _choose(dtype: torch.dtype, device: str, wish: str) -> Choice:
    if wish not in ("", "reference", "triton"):
        raise ValueError(
            f"MALGIL_KERNELS={wish!r}: must be 'reference' or 'triton'. Next: correct or unset it"
        )
    if wish == "reference":
        return Choice("reference", "MALGIL_KERNELS=reference")
    if importlib.util.find_spec("triton") is None:
        return Choice("reference", "triton is not installed: pip install 'malgil[kernels]'")
    if dtype not in DTYPES:
        return Choice("reference", f"{dtype} has no kernel")
    if wish == "triton":
        return Choice("triton", "MALGIL_KERNELS=triton")
    if device != "cuda":
        return Choice("reference", f"a kernel needs a CUDA device, not {device}")
    return Choice("triton", "CUDA device")
