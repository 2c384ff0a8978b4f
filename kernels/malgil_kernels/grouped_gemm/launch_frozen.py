"""Launches the kernels of frozen experts: block sizes and grids, from shapes alone."""

from typing import NamedTuple

import torch
import triton

from malgil_kernels.dispatch import capability
from malgil_kernels.grouped_gemm.frozen_kernels import (
    frozen_experts_input_gradient_kernel,
    frozen_experts_kernel,
)
from malgil_kernels.grouped_gemm.triton_op import tokens_per_tile
from malgil_kernels.lora_linear.launch_forward import TILE_N, columns_per_step, planes_of
from malgil_kernels.quantise.decode import Operands, operands
from malgil_kernels.quantise.formats import QuantisedWeight
from malgil_kernels.quantise.unpacking import packed_assembly

UNEVEN_TILE = 64  # tokens and rows where elements are loaded one by one: each address takes registers
RANKS = 32  # of a LoRA, taken together


class Experts(NamedTuple):
    """Frozen weights of experts: what the decoders need, and how many there are of which shape."""

    about: Operands
    number: int
    rows: int
    columns: int
    stride: int  # of an unquantised W, from expert to expert

    @property
    def uneven(self) -> bool:
        """Whether rows of x, y or W begin off the 16 elements that Triton knows how to load together."""
        return self.rows % 16 != 0 or self.columns % 16 != 0


def experts_of(weight: QuantisedWeight | torch.Tensor, count: int) -> Experts:
    """`weight`: (count, rows, columns), or quantised (count · rows, columns).

    Raises:
        TypeError: the weight has no tile decoder (the GGUF formats have none).
    """
    if isinstance(weight, torch.Tensor):
        return Experts(operands(weight[0]), count, weight.shape[1], weight.shape[2], weight.stride(0))
    return Experts(operands(weight), count, weight.shape[0] // count, weight.shape[1], 0)


def launch_frozen_product(
    x: torch.Tensor,
    w: Experts,
    offsets: torch.Tensor,
    low: torch.Tensor | None = None,
    up: torch.Tensor | None = None,
) -> torch.Tensor:
    """x (tokens, columns), low (tokens, rank), up (experts, rows, rank) contiguous → y (tokens, rows)."""
    tokens, about = x.shape[0], w.about
    if not tokens or not w.rows or not w.columns:
        return x.new_zeros(tokens, w.rows)
    y = torch.empty(tokens, w.rows, dtype=x.dtype, device=x.device)
    wide = x.dtype == torch.float32
    packed = about.format in ("nf4", "int4")
    planes = 0 if packed and (w.columns % 2 or not about.aligned) else planes_of(about, w.columns)
    block_m = tokens_per_tile(tokens, w.number, x.dtype)
    narrow = planes > 1 and not wide and capability(x.device) >= 100
    if narrow:  # as in lora_linear: tensor memory has no room for more
        block_m = min(block_m, 64)
    block_n, block_k = TILE_N, columns_per_step(about)
    if not planes or w.uneven:
        block_m, block_n = min(block_m, UNEVEN_TILE), UNEVEN_TILE
        block_k = block_k if planes == 4 else 32  # a dot takes 16 columns of a plane or more
    elif wide:
        block_n = 64
    presplit = planes > 1 and block_m > 32
    if presplit:  # column by column modulo `planes`: each plane goes to shared memory as it is
        x = x.reshape(tokens, w.columns // planes, planes).transpose(1, 2).reshape(tokens, w.columns)
    grid = (triton.cdiv(tokens, block_m) + w.number + 1, triton.cdiv(w.rows, block_n))
    frozen_experts_kernel[grid](
        x,
        *about.pointers,
        offsets,
        x if low is None else low,
        x if up is None else up,
        y,
        tokens,
        w.number,
        w.rows,
        w.columns,
        0 if low is None else low.shape[1],
        x.stride(0),
        w.stride,
        about.row_stride,
        0 if low is None else low.stride(0),
        y.stride(0),
        FORMAT=about.format,
        GROUP=about.group if packed else 0,
        ZERO=about.zero,
        STACKED=about.stacked,
        ALIGNED=about.aligned,
        PLANES=planes,
        PRESPLIT=presplit,
        ASSEMBLY=packed_assembly(about.format, x.dtype, planes) if planes else "",
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        BLOCK_E=triton.next_power_of_2(w.number + 1),
        BLOCK_R=RANKS,
        EVEN=w.columns % block_k == 0,
        STAGES=2 if wide else 3,
        num_warps=8 if wide or (block_m >= 64 and not narrow) else 4,
    )
    return y


def launch_frozen_input_gradient(
    dy: torch.Tensor,
    w: Experts,
    offsets: torch.Tensor,
    dlow: torch.Tensor | None = None,
    a: torch.Tensor | None = None,
) -> torch.Tensor:
    """dy (tokens, rows), dlow (tokens, rank), a (experts, rank, columns) contiguous → (tokens, columns)."""
    tokens, about = dy.shape[0], w.about
    if not tokens or not w.rows or not w.columns:
        return dy.new_zeros(tokens, w.columns)
    dx = torch.empty(tokens, w.columns, dtype=dy.dtype, device=dy.device)
    wide = dy.dtype == torch.float32
    packed = about.format in ("nf4", "int4")
    block_m = tokens_per_tile(tokens, w.number, dy.dtype)
    block_k = min(about.group, 64) if packed else 64
    if not about.aligned or w.uneven:
        block_m, block_k = min(block_m, 32), 32
    grid = (triton.cdiv(tokens, block_m) + w.number + 1, triton.cdiv(w.columns, block_k))
    frozen_experts_input_gradient_kernel[grid](
        dy,
        *about.pointers,
        offsets,
        dy if dlow is None else dlow,
        dy if a is None else a,
        dx,
        tokens,
        w.number,
        w.rows,
        w.columns,
        0 if dlow is None else dlow.shape[1],
        dy.stride(0),
        w.stride,
        about.row_stride,
        0 if dlow is None else dlow.stride(0),
        dx.stride(0),
        FORMAT=about.format,
        GROUP=about.group if packed else 0,
        ZERO=about.zero,
        STACKED=about.stacked,
        ALIGNED=about.aligned,
        ASSEMBLY=packed_assembly(about.format, dy.dtype, 2),
        BLOCK_M=block_m,
        BLOCK_N=32 if wide else 64,
        BLOCK_K=block_k,
        BLOCK_E=triton.next_power_of_2(w.number + 1),
        BLOCK_R=RANKS,
        STAGES=2 if wide else 3,
        num_warps=8,
    )
    return dx
