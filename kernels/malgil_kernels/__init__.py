"""Fused GPU kernels with one readable reference each. Public names only; see kernels/README.md."""

from malgil_kernels.add_rms_norm import add_rms_norm
from malgil_kernels.attention import attention
from malgil_kernels.chunk_attention import chunk_attention
from malgil_kernels.cross_entropy import cross_entropy
from malgil_kernels.dispatch import Choice, select
from malgil_kernels.glu import glu, glu_halves
from malgil_kernels.grouped_gemm import grouped_gemm, lora_grouped_gemm
from malgil_kernels.layer_norm import layer_norm
from malgil_kernels.layer_norm_gelu import layer_norm_gelu
from malgil_kernels.linear_cross_entropy import linear_cross_entropy
from malgil_kernels.lora_linear import lora_linear, lora_linear_grouped
from malgil_kernels.paged_attention import paged_attention
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
from malgil_kernels.rope import rope, rope_, rope_tables

__all__ = [
    "Choice",
    "add_rms_norm",
    "attention",
    "chunk_attention",
    "cross_entropy",
    "dequantise",
    "glu",
    "glu_halves",
    "grouped_gemm",
    "layer_norm",
    "layer_norm_gelu",
    "linear_cross_entropy",
    "lora_grouped_gemm",
    "lora_linear",
    "lora_linear_grouped",
    "paged_attention",
    "quantise_fp8",
    "quantise_int4",
    "quantise_int8",
    "quantise_nf4",
    "quantise_q4_0",
    "quantise_q8_0",
    "rms_norm",
    "rope",
    "rope_",
    "rope_tables",
    "select",
]
