"""Backward kernels of layer norm, with or without GELU behind it.

    dz = dy, or dy·(Φ(z) + z·φ(z)) behind GELU;  g = dz·w;  dx = r·(g − mean(g) − x̂·mean(g·x̂))
    dw = Σ_rows dz·x̂;  db = Σ_rows dz

z is computed again from x, which costs no bytes. A program sums dw and db over its tiles in registers, the
next tile's loads in flight; the programs' sums are added by PyTorch, in the same order each time.
"""

import triton
import triton.language as tl

from malgil_kernels.layer_norm.forward import load_channels


@triton.jit
def through_gelu(dy, z):
    """dy·gelu'(z); φ(z) = exp(−z²/2) / √(2π)."""
    return dy * (
        0.5 * (1.0 + tl.math.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
    )


@triton.jit
def layer_norm_backward_kernel(
    dy_ptr,
    x_ptr,
    w_ptr,
    b_ptr,
    mean_ptr,
    r_ptr,
    dx_ptr,
    dw_ptr,
    db_ptr,
    dy_batch_stride,
    dy_row_stride,
    dy_column_stride,
    x_batch_stride,
    x_row_stride,
    x_column_stride,
    dx_batch_stride,
    dx_row_stride,
    dx_column_stride,
    batches,
    rows,
    hidden,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    program = tl.program_id(0)
    tiles = tl.cdiv(rows, ROWS)
    columns = tl.arange(0, BLOCK)[None, :]
    w = load_channels(w_ptr, columns, columns < hidden, WEIGHT, 1.0)
    b = load_channels(b_ptr, columns, columns < hidden, BIAS, 0.0)
    dw = tl.zeros([ROWS, BLOCK], dtype=tl.float32)
    db = tl.zeros([ROWS, BLOCK], dtype=tl.float32)
    for step in tl.range(program, batches * tiles, tl.num_programs(0), num_stages=STAGES):
        batch = tl.cast(step // tiles, tl.int64)
        row = (step % tiles) * ROWS + tl.arange(0, ROWS).to(tl.int64)[:, None]
        inside = (row < rows) & (columns < hidden)
        x_at = x_ptr + batch * x_batch_stride + row * x_row_stride + columns * x_column_stride
        dy_at = dy_ptr + batch * dy_batch_stride + row * dy_row_stride + columns * dy_column_stride
        dx_at = dx_ptr + batch * dx_batch_stride + row * dx_row_stride + columns * dx_column_stride
        x = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
        dz = tl.load(dy_at, mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + batch * rows + row, mask=row < rows, other=0.0)
        r = tl.load(r_ptr + batch * rows + row, mask=row < rows, other=0.0)
        normed = tl.where(columns < hidden, (x - mean) * r, 0.0)
        if GELU:
            dz = through_gelu(dz, normed * w + b)
        g = dz * w
        of_g = tl.sum(g, axis=1, keep_dims=True) / hidden
        of_product = tl.sum(g * normed, axis=1, keep_dims=True) / hidden
        tl.store(dx_at, r * (g - of_g - normed * of_product), mask=inside)
        dw += dz * normed
        db += dz
    column = tl.arange(0, BLOCK)
    partial = program.to(tl.int64) * hidden + column
    if WEIGHT:
        tl.store(dw_ptr + partial, tl.sum(dw, axis=0), mask=column < hidden)
    if BIAS:
        tl.store(db_ptr + partial, tl.sum(db, axis=0), mask=column < hidden)


@triton.jit
def layer_norm_long_mean_kernel(
    dy_ptr,
    x_ptr,
    w_ptr,
    b_ptr,
    mean_ptr,
    r_ptr,
    of_g_ptr,
    of_product_ptr,
    dy_stride,
    x_stride,
    hidden,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """mean(g) and mean(g·x̂) of each row that does not fit in registers."""
    row = tl.program_id(0).to(tl.int64)
    mean = tl.load(mean_ptr + row)
    r = tl.load(r_ptr + row)
    sums = tl.zeros([BLOCK], dtype=tl.float32)
    products = tl.zeros([BLOCK], dtype=tl.float32)
    for start in tl.range(0, hidden, BLOCK, num_stages=2):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < hidden
        x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(dy_ptr + row * dy_stride + columns, mask=inside, other=0.0).to(tl.float32)
        w = load_channels(w_ptr, columns, inside, WEIGHT, 1.0)
        normed = (x - mean) * r
        if GELU:
            g = through_gelu(g, normed * w + load_channels(b_ptr, columns, inside, BIAS, 0.0))
        g *= w
        sums += g
        products += g * normed
    tl.store(of_g_ptr + row, tl.sum(sums, axis=0) / hidden)
    tl.store(of_product_ptr + row, tl.sum(products, axis=0) / hidden)


@triton.jit
def layer_norm_long_backward_kernel(
    dy_ptr,
    x_ptr,
    w_ptr,
    b_ptr,
    mean_ptr,
    r_ptr,
    of_g_ptr,
    of_product_ptr,
    dx_ptr,
    dw_ptr,
    db_ptr,
    dy_stride,
    x_stride,
    dx_stride,
    rows,
    hidden,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    STRIPE: tl.constexpr,
):
    """A stripe of columns per program, over every so many rows."""
    columns = tl.program_id(0) * STRIPE + tl.arange(0, STRIPE)
    inside = columns < hidden
    w = load_channels(w_ptr, columns, inside, WEIGHT, 1.0)
    b = load_channels(b_ptr, columns, inside, BIAS, 0.0)
    dw = tl.zeros([STRIPE], dtype=tl.float32)
    db = tl.zeros([STRIPE], dtype=tl.float32)
    for step in tl.range(tl.program_id(1), rows, tl.num_programs(1), num_stages=3):
        row = tl.cast(step, tl.int64)
        x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
        dz = tl.load(dy_ptr + row * dy_stride + columns, mask=inside, other=0.0).to(tl.float32)
        r = tl.load(r_ptr + row)
        normed = (x - tl.load(mean_ptr + row)) * r
        if GELU:
            dz = through_gelu(dz, normed * w + b)
        dx = r * (dz * w - tl.load(of_g_ptr + row) - normed * tl.load(of_product_ptr + row))
        tl.store(dx_ptr + row * dx_stride + columns, dx, mask=inside)
        dw += dz * normed
        db += dz
    partial = tl.program_id(1).to(tl.int64) * hidden + columns
    if WEIGHT:
        tl.store(dw_ptr + partial, dw, mask=inside)
    if BIAS:
        tl.store(db_ptr + partial, db, mask=inside)
