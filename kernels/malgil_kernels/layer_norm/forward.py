"""Forward kernels of layer norm, with or without GELU behind it.

    mean(x);  r = rsqrt(mean((x − mean)²) + eps);  x̂ = (x − mean)·r;  z = x̂·w + b;  y = z or gelu(z)

A tensor is (batch, rows, columns) with any strides, so that (batch, frames, channels) after a convolution,
whose frames lie next to each other, needs no transposition. The exact GELU is z·Φ(z) = z/2·(1 + erf(z/√2)).
"""

import triton
import triton.language as tl


@triton.jit
def gelu(z):
    return 0.5 * z * (1.0 + tl.math.erf(z * 0.7071067811865476))


@triton.jit
def load_channels(ptr, columns, inside, GIVEN: tl.constexpr, DEFAULT: tl.constexpr):
    """A channel's weight or bias in float32, or what stands for it where there is none."""
    if GIVEN:
        values = tl.load(ptr + columns, mask=inside, other=0.0).to(tl.float32)
    else:
        values = tl.full(columns.shape, DEFAULT, tl.float32)
    return values


@triton.jit
def layer_norm_forward_kernel(
    x_ptr,
    w_ptr,
    b_ptr,
    y_ptr,
    mean_ptr,
    r_ptr,
    x_batch_stride,
    x_row_stride,
    x_column_stride,
    y_batch_stride,
    y_row_stride,
    y_column_stride,
    rows,
    hidden,
    eps,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tiles = tl.cdiv(rows, ROWS)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    row = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS).to(tl.int64)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (columns < hidden)
    x_ptr += batch * x_batch_stride
    y_ptr += batch * y_batch_stride
    x = tl.load(x_ptr + row * x_row_stride + columns * x_column_stride, mask=inside, other=0.0)
    mean = tl.sum(x.to(tl.float32), axis=1, keep_dims=True) / hidden
    centred = tl.where(columns < hidden, x.to(tl.float32) - mean, 0.0)
    r = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1, keep_dims=True) / hidden + eps)
    w = load_channels(w_ptr, columns, columns < hidden, WEIGHT, 1.0)
    b = load_channels(b_ptr, columns, columns < hidden, BIAS, 0.0)
    z = centred * r * w + b
    y = gelu(z) if GELU else z
    tl.store(y_ptr + row * y_row_stride + columns * y_column_stride, y, mask=inside)
    tl.store(mean_ptr + batch * rows + row, mean, mask=row < rows)
    tl.store(r_ptr + batch * rows + row, r, mask=row < rows)


@triton.jit
def layer_norm_long_forward_kernel(
    x_ptr,
    w_ptr,
    b_ptr,
    y_ptr,
    mean_ptr,
    r_ptr,
    x_stride,
    y_stride,
    hidden,
    eps,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row per program, read three times; the second and third come from L2 (see rms_norm.long_rows)."""
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    sums = tl.zeros([BLOCK], dtype=tl.float32)
    for start in tl.range(0, hidden, BLOCK, num_stages=2):
        columns = start + tl.arange(0, BLOCK)
        sums += tl.load(x_ptr + columns, mask=columns < hidden, other=0.0).to(tl.float32)
    mean = tl.sum(sums, axis=0) / hidden
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in tl.range(0, hidden, BLOCK, num_stages=2):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + columns, mask=columns < hidden, other=0.0).to(tl.float32)
        centred = tl.where(columns < hidden, x - mean, 0.0)
        squares += centred * centred
    r = 1.0 / tl.sqrt(tl.sum(squares, axis=0) / hidden + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(r_ptr + row, r)
    for start in tl.range(0, hidden, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < hidden
        x = tl.load(x_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        w = load_channels(w_ptr, columns, inside, WEIGHT, 1.0)
        b = load_channels(b_ptr, columns, inside, BIAS, 0.0)
        z = (x - mean) * r * w + b
        tl.store(y_ptr + columns, gelu(z) if GELU else z, mask=inside)
