"""Fused GPU kernels with one readable reference each. Public names only; see kernels/README.md."""

from malgil_kernels.add_rms_norm import add_rms_norm
from malgil_kernels.dispatch import Choice, select
from malgil_kernels.rms_norm import rms_norm

__all__ = [
    "Choice",
    "add_rms_norm",
    "rms_norm",
    "select",
]
