"""Fused GPU kernels with one readable reference each. Public names only; see kernels/README.md."""

from malgil_kernels.add_rms_norm import add_rms_norm
from malgil_kernels.dispatch import Choice, select
from malgil_kernels.layer_norm import layer_norm
from malgil_kernels.layer_norm_gelu import layer_norm_gelu
from malgil_kernels.rms_norm import rms_norm

__all__ = [
    "Choice",
    "add_rms_norm",
    "layer_norm",
    "layer_norm_gelu",
    "rms_norm",
    "select",
]
