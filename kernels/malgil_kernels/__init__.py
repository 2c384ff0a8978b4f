"""Fused GPU kernels with one readable reference each. Public names only; see kernels/README.md."""

from malgil_kernels.attention import attention
from malgil_kernels.chunk_attention import chunk_attention
from malgil_kernels.dispatch import Choice, select
from malgil_kernels.paged_attention import paged_attention
from malgil_kernels.rms_norm import rms_norm

__all__ = [
    "Choice",
    "attention",
    "chunk_attention",
    "paged_attention",
    "rms_norm",
    "select",
]
