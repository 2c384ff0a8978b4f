"""Fused GPU kernels with one readable reference each. Public names only; see kernels/README.md."""

from malgil_kernels.add_rms_norm import add_rms_norm
from malgil_kernels.cross_entropy import cross_entropy
from malgil_kernels.dispatch import Choice, select
from malgil_kernels.glu import glu, glu_halves
from malgil_kernels.linear_cross_entropy import linear_cross_entropy
from malgil_kernels.rms_norm import rms_norm
from malgil_kernels.rope import rope, rope_, rope_tables

__all__ = [
    "Choice",
    "add_rms_norm",
    "cross_entropy",
    "glu",
    "glu_halves",
    "linear_cross_entropy",
    "rms_norm",
    "rope",
    "rope_",
    "rope_tables",
    "select",
]
