"""What training runs on: the device, and whether this project's kernels (`malgil_kernels`) compute there.

Only the decision and the switch; what a kernel computes is the kernels room's. That room, and Triton with
it, is imported only where it may be used: a machine without Triton trains all the same.
"""

import importlib.util
import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tasks.errors import SettingsError

log = logging.getLogger("malgil.train_llm")


@dataclass(frozen=True)
class Kernels:
    """Whether the kernels are on, and why."""

    on: bool
    reason: str

    def __str__(self) -> str:
        return f"{'on' if self.on else 'off'} ({self.reason})"


def device() -> torch.device:
    """The CUDA GPU where there is one, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_kernels(
    setting: Literal["auto", "on", "off"], *, model_type: str, place: torch.device, dtype: torch.dtype
) -> Kernels:
    """Whether a model of a family trains with the kernels on `place`.

    Raises:
        SettingsError: the setting is `on` and the kernels cannot run: no GPU, no Triton, or no profile of the
            family in `malgil_kernels.models`.
    """
    if setting == "off":
        return Kernels(False, "train_llm.kernels = off")
    if setting == "auto" and place.type != "cuda":
        return Kernels(False, f"auto: training runs on {place.type}")
    obstacle = _obstacle(model_type, place, dtype)
    if not obstacle:
        return Kernels(True, f"train_llm.kernels = {setting}, {place.type}")
    if setting == "auto":
        return Kernels(False, f"auto: {obstacle}")
    raise SettingsError(
        "params.yaml",
        [f"train_llm.kernels: 'on' needs a CUDA GPU, Triton and a known family, but {obstacle}"],
        "set train_llm.kernels to auto or off, or train where they can run",
    )


def use_kernels(model: Any) -> None:
    """Switches them on in a model with its adapter; attention stays as it is set."""
    from malgil_kernels import models

    replaced = models.use_kernels(model, attention=False)
    log.info("kernels: %s", ", ".join(f"{count} {name}" for name, count in replaced.counts.items()))


def kernels_used() -> dict[str, list[str]]:
    """What computed each op that this process has called: op → "triton", "dequantise+gemm", "reference", …"""
    from malgil_kernels.dispatch import decisions

    return decisions()


def _obstacle(model_type: str, place: torch.device, dtype: torch.dtype) -> str:
    """Why no kernel can run; empty where they can."""
    if importlib.util.find_spec("malgil_kernels") is None:
        return "malgil_kernels is not installed"
    from malgil_kernels.dispatch import select

    choice = select("rms_norm", dtype=dtype, device=place)
    if choice.implementation == "reference":
        return choice.reason
    from malgil_kernels.models import PROFILES

    if model_type not in PROFILES:
        return f"model_type {model_type!r} is none of {', '.join(PROFILES)}"
    return ""
