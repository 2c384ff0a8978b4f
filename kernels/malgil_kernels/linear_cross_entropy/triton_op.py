"""Projection and cross-entropy over chunks of tokens: the logits of one chunk are all that ever exists.

    z = x Wᵀ;  g = dloss/dz, written over z by the kernel of `cross_entropy`;  dx = g W;  dW = Σ_chunks gᵀ x

The gradients are computed in the forward pass, while a chunk's logits are there, without the final scale; the
backward multiplies them by it (upstream gradient over number of rows), so that float16 keeps small ones.
cuBLAS does the products. Rows that are ignored are left out of all three: with completion-only labels on a
quarter of the tokens, a quarter of the work.

Memory beyond the inputs, s bytes per element: logits chunk·V·s; dx tokens·H·s; if W is trained, dW V·H·4 in
float32, and V·H·s for its rounding in the backward, when the logits are gone. So with a trained 16-bit W a
chunk of H tokens costs no peak: 32,768 tokens, H 4,096, V 128,256 in bf16 peak at 0.27 + 2.10 + 1.05 = 3.4
GB, in the forward as in the backward (Liger-Kernel: dx 0.27, logits 0.26, dW 1.05, one chunk's product 1.05
and its float32 copy 2.10, 4.7 GB). A frozen W has no dW: 0.27 + 0.26 = 0.5 GB, in chunks of Liger's size.
Where rows are left out, a chunk's x and dx are copies, 2·chunk·H·s more.

Work: 6·V·H FLOPs per row that counts, 103 TFLOP in this example, 131 ms at 790 TFLOP/s. Adding a chunk's
product to a float32 dW moves 8·V·H bytes, 4.2 GB or 1 ms: 8 chunks of 4,096 spend 8 ms there, 32 of 1,024
would spend 31. The logits' own passes, 10 bytes per logit at most with the products' reads, take 10 ms.

Deterministic as cuBLAS is for a shape; chunks are added in order, without atomics.
"""

from typing import Any

import torch

from malgil_kernels.cross_entropy.options import LossOptions
from malgil_kernels.cross_entropy.triton_op import divisor_of, gradient_scale, launch_forward, launch_scale

LEAST_CHUNK = 256  # from 184 rows on, an H200 takes longer to multiply by W than to read it


def chunk_tokens(tokens: int, hidden: int, vocab: int, rounds_weight_gradient: bool) -> int:
    """Tokens per chunk: logits of as many bytes as the hidden states (Liger-Kernel's choice), at least 256.

    Args:
        tokens: rows that count.
        hidden, vocab: sizes of the weight.
        rounds_weight_gradient: dW is kept in a wider type than the weight's and rounded at the end. The
            memory of the rounded dW, free until then, may then hold logits.
    """
    limit = max(LEAST_CHUNK, _ceil(tokens, _ceil(vocab, hidden)), hidden if rounds_weight_gradient else 0)
    even = _ceil(tokens, max(1, _ceil(tokens, limit)))  # no small last chunk
    return min(tokens, _ceil(even, 128) * 128)  # whole tiles of a product


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


class LinearCrossEntropyTriton(torch.autograd.Function):
    """Keeps finished gradients up to their scale; hidden (tokens, H) and weight (V, H) are not saved."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        target: torch.Tensor,
        rows: torch.Tensor | None,
        divisor: torch.Tensor,
        options: LossOptions,
        wanted: tuple[bool, bool],
        accumulate_in: torch.dtype,
        chunk: int | None,
    ) -> torch.Tensor:
        tokens = hidden.shape[0] if rows is None else rows.shape[0]
        dx, dw = _empty_gradients(hidden, weight, rows, wanted, accumulate_in)
        vocab, width = weight.shape
        if chunk is None:
            chunk = chunk_tokens(tokens, width, vocab, dw is not None and dw.dtype != weight.dtype)
        logits = hidden.new_empty(min(chunk, tokens), vocab)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, tokens, max(chunk, 1)):
            here = slice(start, min(start + chunk, tokens))
            chosen = here if rows is None else rows[here]
            x, z = hidden[chosen], logits[: here.stop - start]
            torch.mm(x, weight.t(), out=z)
            loss, _ = launch_forward(z, target[chosen], options, gradient=any(wanted))
            total += loss.sum()
            if dx is not None:
                if isinstance(chosen, slice):
                    torch.mm(z, weight, out=dx[chosen])
                else:
                    dx.index_copy_(0, chosen, torch.mm(z, weight))
            if dw is not None:
                _add_product(dw, z, x, first=start == 0)
        ctx.weight_dtype = weight.dtype
        ctx.save_for_backward(dx, dw, divisor)
        return total / divisor

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dx, dw, divisor = ctx.saved_tensors
        scale = grads[0] * gradient_scale(divisor)
        for gradient in (dx, dw):
            if gradient is not None and (gradient is dx or gradient.dtype == ctx.weight_dtype):
                launch_scale(gradient, gradient, scale)
                torch.autograd.graph.increment_version(gradient)  # a second backward raises
        if dw is not None and dw.dtype != ctx.weight_dtype:
            rounded = torch.empty_like(dw, dtype=ctx.weight_dtype)
            launch_scale(dw, rounded, scale)
            dw = rounded
        return dx, dw, *(None,) * 7


def _empty_gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    rows: torch.Tensor | None,
    wanted: tuple[bool, bool],
    accumulate_in: torch.dtype,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Where dx and dW go; None for one that is not wanted, which then takes no memory."""
    dx = dw = None
    if wanted[0]:
        new = torch.empty if rows is None else torch.zeros  # rows that are left out have a gradient of 0
        dx = new(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    if wanted[1]:
        any_rows = hidden.shape[0] > 0 and (rows is None or rows.shape[0] > 0)
        new = torch.empty if any_rows else torch.zeros  # the first chunk's product fills it
        dw = new(weight.shape, dtype=accumulate_in, device=weight.device)
    return dx, dw


def _add_product(dw: torch.Tensor, g: torch.Tensor, x: torch.Tensor, first: bool) -> None:
    """dw += gᵀ x, (V, H), in dw's dtype; the first product replaces what dw holds, without reading it."""
    beta = 0 if first else 1
    if dw.dtype == x.dtype:
        torch.addmm(dw, g.t(), x, beta=beta, out=dw)
    elif dw.is_cuda:
        torch.addmm(dw, g.t(), x, out_dtype=dw.dtype, beta=beta, out=dw)
    elif first:  # PyTorch has no mixed product on a CPU, where only tests come here
        dw.copy_(torch.mm(g.t(), x))
    else:
        dw += torch.mm(g.t(), x)


def rows_that_count(
    target: torch.Tensor, ignore_index: int, max_labels: int | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Indices of the rows to compute, None for all; and whether `max_labels` was too few, on the device.

    Without `max_labels`, the host waits once for their number.
    """
    if max_labels is None:
        rows = (target != ignore_index).nonzero().squeeze(1)
        return (None if rows.shape[0] == target.shape[0] else rows), None
    if max_labels >= target.shape[0]:
        return None, None
    ignored = target == ignore_index
    order = torch.argsort(ignored.to(torch.int8), stable=True)  # rows that count first, in their order
    return order[:max_labels], (~ignored).sum() > max_labels


def linear_cross_entropy_triton(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    options: LossOptions,
    num_items: int | torch.Tensor | None = None,
    max_labels: int | None = None,
    weight_gradient_dtype: torch.dtype | None = torch.float32,
    chunk: int | None = None,
) -> torch.Tensor:
    """Loss of hidden (tokens, H) and weight (V, H) chunk by chunk; checked by `linear_cross_entropy`."""
    rows, too_many = rows_that_count(target, options.ignore_index, max_labels)
    enabled = torch.is_grad_enabled()
    loss: torch.Tensor = LinearCrossEntropyTriton.apply(
        hidden,
        weight,
        target.contiguous(),
        rows,
        divisor_of(target, options, num_items),
        options,
        (enabled and hidden.requires_grad, enabled and weight.requires_grad),
        weight_gradient_dtype or weight.dtype,
        chunk,
    )
    return loss if too_many is None else torch.where(too_many, float("nan"), loss)
