"""Real calls of quantise and dequantise for the compile check: a projection of an 8B model, an odd one."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from malgil_kernels.quantise.formats import (
    GGUF_BLOCK,
    Q4_0_BYTES,
    Q8_0_BYTES,
    Fp8Weight,
    Int4Weight,
    Int8Weight,
    Nf4Weight,
    Q4_0Weight,
    Q8_0Weight,
    QuantisedWeight,
)
from malgil_kernels.quantise.gguf_triton_op import (
    dequantise_gguf_triton,
    quantise_q4_0_triton,
    quantise_q8_0_triton,
)
from malgil_kernels.quantise.nf4_triton_op import quantise_nf4_triton
from malgil_kernels.quantise.triton_op import (
    dequantise_triton,
    quantise_fp8_blocks_triton,
    quantise_int4_triton,
    quantise_rows_triton,
)

ROWS, COLUMNS = 14_336, 4096


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Every kernel in bfloat16, quantising from the other dtypes by row, and a matrix of odd size."""
    shape, dtype = (ROWS, COLUMNS), torch.bfloat16
    w = torch.empty(shape, dtype=dtype)
    yield "quantise int8", partial(quantise_rows_triton, w, False)
    yield "quantise fp8 rows", partial(quantise_rows_triton, w, True)
    yield "quantise fp8 rows, float32", partial(quantise_rows_triton, w.float(), True)
    yield "quantise fp8 blocks", partial(quantise_fp8_blocks_triton, w)
    yield "quantise nf4 as cuda", partial(quantise_nf4_triton, w, "cuda")
    yield "quantise nf4 as cpu", partial(quantise_nf4_triton, w.float(), "cpu")
    yield "quantise q8_0", partial(quantise_q8_0_triton, w)
    yield "quantise q4_0", partial(quantise_q4_0_triton, w)
    yield "quantise int4 32", partial(quantise_int4_triton, w, 32, True)
    yield "quantise int4 128 with zero", partial(quantise_int4_triton, w, 128, False)
    for kind, weight in empty_weights(ROWS, COLUMNS, dtype):
        if kind not in ("fp8 rows", "int4 64", "int4 128", "int4 32 with zero", "int4 64 with zero"):
            yield f"dequantise {kind}", partial(dequantise_triton, weight, dtype)
    q8_0 = torch.empty(ROWS, COLUMNS // GGUF_BLOCK * Q8_0_BYTES, dtype=torch.uint8)
    q4_0 = torch.empty(ROWS, COLUMNS // GGUF_BLOCK * Q4_0_BYTES, dtype=torch.uint8)
    yield "dequantise q8_0", partial(dequantise_gguf_triton, Q8_0Weight(shape, dtype, q8_0), dtype)
    yield "dequantise q4_0", partial(dequantise_gguf_triton, Q4_0Weight(shape, dtype, q4_0), dtype)
    odd = dict(empty_weights(1001, 1001, dtype))
    for kind in ("int4 128 with zero", "nf4"):
        yield f"dequantise {kind}, 1001 × 1001", partial(dequantise_triton, odd[kind], dtype)


def empty_weights(rows: int, columns: int, dtype: torch.dtype) -> Iterator[tuple[str, QuantisedWeight]]:
    """A weight per format that a matmul reads, of values that nobody reads."""
    shape, count = (rows, columns), rows * columns
    blocks = -(-count // 64)
    scale = torch.empty(rows)
    yield "int8", Int8Weight(shape, dtype, torch.empty(shape, dtype=torch.int8), scale)
    e4m3 = torch.empty(shape, dtype=torch.float8_e4m3fn)
    yield "fp8 rows", Fp8Weight(shape, dtype, e4m3, scale)
    yield "fp8 blocks", Fp8Weight(shape, dtype, e4m3, torch.empty(-(-rows // 128), -(-columns // 128)))
    packed = torch.empty(rows, -(-columns // 2), dtype=torch.uint8)
    for group in (32, 64, 128):
        groups = (rows, -(-columns // group))
        zero = torch.empty(groups, dtype=torch.uint8)
        float16 = torch.empty(groups, dtype=torch.float16)
        yield f"int4 {group}", Int4Weight(shape, dtype, packed, float16, None, group)
        yield f"int4 {group} with zero", Int4Weight(shape, dtype, packed, float16, zero, group)
    flat = torch.empty(-(-count // 2), dtype=torch.uint8)
    absmax = torch.empty(blocks, dtype=torch.uint8)
    statistics = torch.empty(-(-blocks // 256))
    yield "nf4", Nf4Weight(shape, dtype, flat, absmax, statistics, torch.empty(1))
    yield "nf4 stacked", Nf4Weight(shape, dtype, flat, absmax, statistics, torch.empty_like(statistics))
