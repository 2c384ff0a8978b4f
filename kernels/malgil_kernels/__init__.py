"""Fused GPU kernels with one readable reference each. Public names only; see kernels/README.md."""

from malgil_kernels.dispatch import Choice, select
from malgil_kernels.grouped_gemm import grouped_gemm
from malgil_kernels.lora_linear import lora_linear, lora_linear_grouped
from malgil_kernels.quantise import (
    dequantise,
    quantise_fp8,
    quantise_int4,
    quantise_int8,
    quantise_nf4,
    quantise_q4_0,
    quantise_q8_0,
)
from malgil_kernels.rms_norm import rms_norm

__all__ = [
    "Choice",
    "dequantise",
    "grouped_gemm",
    "lora_linear",
    "lora_linear_grouped",
    "quantise_fp8",
    "quantise_int4",
    "quantise_int8",
    "quantise_nf4",
    "quantise_q4_0",
    "quantise_q8_0",
    "rms_norm",
    "select",
]
