"""Cross-entropy over a vocabulary in Triton, by an online softmax over blocks of a row.

    x' = c·tanh(x/c);  lse = log Σ exp x';  loss = lse − (1−ε)·x'_y − ε·mean(x') + λ·lse²
    dx = (p·(1 + 2λ·lse) − (1−ε)·1_y − ε/V) · (1 − (x'/c)²) · scale,  p = exp(x' − lse)

Bytes per logit in a 16-bit type: 2 for the loss alone; 2 + 4 where the backward recomputes the gradient from
the kept lse (one float32 per row) into a new tensor; in place, one program reads its row twice and writes it
once in a single launch, 2 + 2 + 2, of which the second read comes from L2 while the rows in flight fit there:
one program of 32 warps per multiprocessor holds 132 rows of 131,072 bf16 logits, 35 MB of an H200's 50. A
block of 16 KB arrives in 860 cycles of a multiprocessor at 4.3 TB/s and its exp2 take 512; a softcap takes
three times as many, and is bound by them. Blocks are prefetched with cp.async, three ahead, 16 bytes per
thread. A row that is ignored is not read.

Deterministic: one program per row, PyTorch sums the rows.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from malgil_kernels.cross_entropy.options import LossOptions

LOG2_E = tl.constexpr(1.4426950408889634)
BACKWARD_BLOCK = 4096


@triton.jit
def capped(x, softcap):
    """softcap · tanh(x / softcap), from tanh t = 1 − 2 / (1 + exp 2t)."""
    return softcap * (1.0 - 2.0 / (1.0 + tl.exp2(x * (2.0 * LOG2_E / softcap))))


@triton.jit
def row_statistics(
    row_ptr,
    vocab,
    softcap,
    SOFTCAP: tl.constexpr,
    SMOOTHING: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """log Σ exp and Σ of a row's (capped) logits; the Σ only where SMOOTHING."""
    largest = float("-inf")
    total = tl.zeros([BLOCK], dtype=tl.float32)
    summed = tl.zeros([BLOCK], dtype=tl.float32)
    for start in tl.range(0, vocab, BLOCK, num_stages=STAGES):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocab
        x = tl.load(row_ptr + columns, mask=inside, other=float("-inf"))
        x = x.to(tl.float32)
        if SOFTCAP:
            x = tl.where(inside, capped(x, softcap), float("-inf"))
        if SMOOTHING:
            summed += tl.where(inside, x, 0.0)
        grown = tl.maximum(largest, tl.max(x, axis=0))
        shift = tl.where(grown == float("-inf"), 0.0, grown)  # −inf − −inf would be NaN
        total = total * tl.exp2((largest - shift) * LOG2_E) + tl.exp2((x - shift) * LOG2_E)
        largest = grown
    return largest + tl.log(tl.sum(total, axis=0)), tl.sum(summed, axis=0)


@triton.jit
def logit_gradient(
    x,
    columns,
    target,
    lse,
    vocab,
    smoothing,
    softcap,
    z_loss,
    SOFTCAP: tl.constexpr,
    SMOOTHING: tl.constexpr,
):
    """The gradient of one row's loss by its logits `x` (float32) at `columns`."""
    if SOFTCAP:
        x = capped(x, softcap)
    gradient = tl.exp2((x - lse) * LOG2_E) * (1.0 + 2.0 * z_loss * lse)
    if SMOOTHING:
        gradient -= smoothing / vocab
    gradient = tl.where(columns == target, gradient - (1.0 - smoothing), gradient)
    if SOFTCAP:
        gradient *= 1.0 - (x / softcap) * (x / softcap)
    return gradient


@triton.jit
def cross_entropy_forward_kernel(
    logits_ptr,
    target_ptr,
    loss_ptr,
    lse_ptr,
    scale_ptr,
    logits_stride,
    vocab,
    ignore_index,
    smoothing,
    softcap,
    z_loss,
    GRADIENT: tl.constexpr,
    SMOOTHING: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * logits_stride
    target = tl.load(target_ptr + row)
    if target == ignore_index:
        tl.store(loss_ptr + row, 0.0)
        tl.store(lse_ptr + row, 0.0)
        if GRADIENT:
            for start in tl.range(0, vocab, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                zeros = tl.zeros([BLOCK], dtype=logits_ptr.dtype.element_ty)
                tl.store(row_ptr + columns, zeros, mask=columns < vocab)
    else:
        # a target outside the vocabulary makes the row NaN: nothing here can raise
        known = (target >= 0) & (target < vocab)
        at_target = tl.load(row_ptr + target, mask=known, other=float("nan")).to(tl.float32)
        if SOFTCAP:
            at_target = capped(at_target, softcap)
        lse, summed = row_statistics(row_ptr, vocab, softcap, SOFTCAP, SMOOTHING, BLOCK, STAGES)
        lse = tl.where(known, lse, float("nan"))
        loss = lse - (1.0 - smoothing) * at_target + z_loss * lse * lse
        if SMOOTHING:
            loss -= smoothing / vocab * summed
        tl.store(loss_ptr + row, loss)
        tl.store(lse_ptr + row, lse)
        if GRADIENT:
            scale = 1.0
            if scale_ptr is not None:
                scale = tl.load(scale_ptr)
            for start in tl.range(0, vocab, BLOCK, num_stages=STAGES):
                columns = start + tl.arange(0, BLOCK)
                inside = columns < vocab
                x = tl.load(row_ptr + columns, mask=inside, other=0.0)
                gradient = logit_gradient(
                    x.to(tl.float32),
                    columns,
                    target,
                    lse,
                    vocab,
                    smoothing,
                    softcap,
                    z_loss,
                    SOFTCAP,
                    SMOOTHING,
                )
                gradient = (gradient * scale).to(logits_ptr.dtype.element_ty)
                tl.store(row_ptr + columns, gradient, mask=inside, eviction_policy="evict_first")


@triton.jit
def cross_entropy_backward_kernel(
    logits_ptr,
    target_ptr,
    lse_ptr,
    scale_ptr,
    gradient_ptr,
    logits_stride,
    gradient_stride,
    vocab,
    blocks,
    ignore_index,
    smoothing,
    softcap,
    z_loss,
    SMOOTHING: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    row = (program // blocks).to(tl.int64)
    columns = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < vocab
    gradient_row_ptr = gradient_ptr + row * gradient_stride
    target = tl.load(target_ptr + row)
    if target == ignore_index:
        zeros = tl.zeros([BLOCK], dtype=gradient_ptr.dtype.element_ty)
        tl.store(gradient_row_ptr + columns, zeros, mask=inside)
    else:
        x = tl.load(logits_ptr + row * logits_stride + columns, mask=inside, other=0.0).to(tl.float32)
        lse = tl.load(lse_ptr + row)
        gradient = logit_gradient(
            x, columns, target, lse, vocab, smoothing, softcap, z_loss, SOFTCAP, SMOOTHING
        )
        gradient = (gradient * tl.load(scale_ptr)).to(gradient_ptr.dtype.element_ty)
        tl.store(gradient_row_ptr + columns, gradient, mask=inside)


@triton.jit
def scale_rows_kernel(
    x_ptr, y_ptr, scale_ptr, x_stride, y_stride, width, blocks, IN_PLACE: tl.constexpr, BLOCK: tl.constexpr
):
    """y ← scale·x; in place it touches nothing where scale is 1, so that the host need not look at it."""
    program = tl.program_id(0).to(tl.int64)
    row = program // blocks
    columns = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    scale = tl.load(scale_ptr)
    if not IN_PLACE or scale != 1.0:
        x = tl.load(x_ptr + row * x_stride + columns, mask=columns < width, other=0.0).to(tl.float32)
        y = (x * scale).to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + row * y_stride + columns, y, mask=columns < width)


def launch_forward(
    logits: torch.Tensor,
    target: torch.Tensor,
    options: LossOptions,
    gradient: bool,
    scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and lse (rows,) float32 of logits (rows, vocab), inner stride 1; `target` (rows,) contiguous.

    With `gradient`, the logits become their gradient times `scale` (a float32 on the device; None for 1).
    """
    rows, vocab = logits.shape
    loss = torch.empty(rows, dtype=torch.float32, device=logits.device)
    lse = torch.empty(rows, dtype=torch.float32, device=logits.device)
    if rows:
        # in place: one program fills a multiprocessor, so that its row is still in L2 when read again
        threads = 1024 if gradient else 256
        per_thread = 16 // logits.element_size()
        block = max(min(triton.next_power_of_2(vocab), threads * per_thread), 32 * per_thread)
        with torch.cuda.device_of(logits):
            cross_entropy_forward_kernel[(rows,)](
                logits,
                target,
                loss,
                lse,
                scale,
                logits.stride(0),
                vocab,
                *_scalars(options),
                GRADIENT=gradient,
                **_flags(options),
                BLOCK=block,
                STAGES=4,
                num_warps=block // per_thread // 32,
            )
    return loss, lse


def launch_backward(
    logits: torch.Tensor, target: torch.Tensor, lse: torch.Tensor, scale: torch.Tensor, options: LossOptions
) -> torch.Tensor:
    """The gradient (rows, vocab), contiguous, of the sum of rows' losses times `scale`, from the kept lse."""
    rows, vocab = logits.shape
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    if rows:
        block = min(max(triton.next_power_of_2(vocab), 128), BACKWARD_BLOCK)
        blocks = triton.cdiv(vocab, block)
        with torch.cuda.device_of(logits):
            cross_entropy_backward_kernel[(rows * blocks,)](
                logits,
                target,
                lse,
                scale,
                gradient,
                logits.stride(0),
                gradient.stride(0),
                vocab,
                blocks,
                *_scalars(options),
                **_flags(options),
                BLOCK=block,
                num_warps=8,
            )
    return gradient


def launch_scale(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor) -> None:
    """y ← scale·x, both (rows, width) of inner stride 1, `scale` a float32 on the device; y may be x."""
    rows, width = x.shape
    if x.is_contiguous() and y.is_contiguous():
        rows, width = 1, rows * width
    if rows and width:
        block = min(max(triton.next_power_of_2(width), 128), BACKWARD_BLOCK)
        blocks = triton.cdiv(width, block)
        with torch.cuda.device_of(x):
            scale_rows_kernel[(rows * blocks,)](
                x,
                y,
                scale,
                x.stride(0),
                y.stride(0),
                width,
                blocks,
                IN_PLACE=x is y,
                BLOCK=block,
                num_warps=min(8, block // 128),
            )


def _scalars(options: LossOptions) -> tuple[int, float, float, float]:
    return options.ignore_index, options.label_smoothing, options.softcap or 1.0, options.z_loss


def _flags(options: LossOptions) -> dict[str, bool]:
    return {"SMOOTHING": options.label_smoothing > 0, "SOFTCAP": options.softcap is not None}


class CrossEntropyTriton(torch.autograd.Function):
    """Keeps the logits, one lse per row and the divisor; or, in place, the gradient where the logits were."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        target: torch.Tensor,
        divisor: torch.Tensor,
        options: LossOptions,
        in_place: bool,
    ) -> torch.Tensor:
        ctx.options, ctx.in_place = options, in_place
        if not in_place:
            loss, lse = launch_forward(logits, target, options, gradient=False)
            ctx.save_for_backward(logits, target, lse, divisor)
            return loss.sum() / divisor
        # float16 cannot hold p / rows before a loss scale reaches it: there the backward divides
        late = logits.dtype == torch.float16
        scale = None if late else gradient_scale(divisor)
        loss, _ = launch_forward(logits, target, options, gradient=True, scale=scale)
        torch.autograd.graph.increment_version(logits)  # whoever saved the logits raises in its backward
        ctx.save_for_backward(logits, divisor if late else torch.ones_like(divisor))
        return loss.sum() / divisor

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        if not ctx.in_place:
            logits, target, lse, divisor = ctx.saved_tensors
            return (
                launch_backward(logits, target, lse, grads[0] * gradient_scale(divisor), ctx.options),
                None,
                None,
                None,
                None,
            )
        gradient, divisor = ctx.saved_tensors
        gradient = gradient.detach()
        launch_scale(gradient, gradient, grads[0] * gradient_scale(divisor))
        torch.autograd.graph.increment_version(gradient)  # a second backward raises
        return gradient, None, None, None, None


def cross_entropy_triton(
    logits: torch.Tensor,
    target: torch.Tensor,
    options: LossOptions,
    num_items: int | torch.Tensor | None,
    gradient_in_place: bool,
) -> torch.Tensor:
    """Loss of logits (rows, vocab) by the kernels above; arguments are checked by `cross_entropy`."""
    rows = logits if logits.stride(-1) == 1 or logits.shape[-1] == 1 else logits.contiguous()
    in_place = gradient_in_place and logits.requires_grad and torch.is_grad_enabled()
    loss: torch.Tensor = CrossEntropyTriton.apply(
        rows, target.contiguous(), divisor_of(target, options, num_items), options, in_place
    )
    return loss


def gradient_scale(divisor: torch.Tensor) -> torch.Tensor:
    """1 / divisor, finite where no row counts, so that its product with a gradient of 0 is 0."""
    return divisor.clamp_min(torch.finfo(torch.float32).tiny).reciprocal()


def divisor_of(
    target: torch.Tensor, options: LossOptions, num_items: int | torch.Tensor | None
) -> torch.Tensor:
    """What the sum of losses is divided by, a float32 on the target's device."""
    if options.reduction == "sum":
        return torch.ones((), dtype=torch.float32, device=target.device)
    if num_items is None:
        return (target != options.ignore_index).sum().to(torch.float32)
    return torch.as_tensor(num_items, dtype=torch.float32, device=target.device).reshape(())
