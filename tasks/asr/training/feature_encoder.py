"""The feature encoder of a layer-norm wav2vec2 for training on a CPU: the same function, frames first.

transformers keeps (batch, channels, frames), so every layer norm there transposes twice and what follows
walks memory across the grain; and it asks for the gradient of the audio itself. Here a convolution is a few
matrix products over overlapping views, without a copy of the input, and its output is what layer norm and
GELU want. Equal to the original up to rounding, forward and backward (tests/asr/test_feature_encoder.py). Not
used for evaluation, on a GPU, under autocast, or with activation checkpointing. No command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tasks.asr.training.freeze import encoder_of


def train_frames_first(model: Any) -> Callable[[], None]:
    """Lets the feature encoder of `model` compute frames first while it trains; returns what undoes it.

    A model whose feature encoder has no layer norm after every convolution is left alone.
    """
    front = encoder_of(model).feature_extractor
    layers = list(getattr(front, "conv_layers", ()))
    if not layers or not all(isinstance(getattr(n, "layer_norm", None), torch.nn.LayerNorm) for n in layers):
        return lambda: None
    original = front.forward

    def forward(input_values: torch.Tensor) -> torch.Tensor:
        if not front.training:
            return original(input_values)  # type: ignore[no-any-return]
        hidden = input_values[:, :, None]  # (batch, frames, channels)
        for layer in layers:
            conv = layer.conv
            hidden = convolve(hidden, conv.weight, conv.bias, conv.stride[0])
            hidden = layer.activation(layer.layer_norm(hidden))
        return hidden.transpose(1, 2)

    front.forward = forward

    def undo() -> None:
        del front.forward

    return undo


def convolve(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int
) -> torch.Tensor:
    """Convolution without padding, frames first.

    Args:
        hidden: (batch, frames, channels).
        weight: (out, channels, kernel), as `torch.nn.Conv1d` has it.
        bias: (out,).
        stride: of the kernel, in frames.

    Returns:
        (batch, (frames - kernel) // stride + 1, out), as torch's `conv1d` of the transposed.
    """
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    convolved: torch.Tensor = _Convolution.apply(hidden, weight, bias, stride)  # type: ignore[no-untyped-call]
    return convolved


class _Convolution(torch.autograd.Function):
    """The kernel is cut into spans of `stride` taps: the inputs of one span, over all frames, are rows of a
    matrix that overlap nowhere, so it is a view.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int
    ) -> torch.Tensor:
        hidden = hidden.contiguous()
        out, _, kernel = weight.shape
        flat = weight.permute(2, 1, 0).reshape(-1, out)  # (kernel * channels, out)
        ctx.save_for_backward(hidden, flat)
        ctx.kernel, ctx.stride = kernel, stride
        batch, frames, _ = hidden.shape
        result = bias.expand(batch, (frames - kernel) // stride + 1, out)
        for rows, taps in _spans(hidden, kernel, stride):
            result = torch.baddbmm(result, rows, flat[taps].expand(batch, -1, -1))
        return result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, flat = ctx.saved_tensors
        grad = grad.contiguous()
        needs_hidden, needs_weight, needs_bias, _ = ctx.needs_input_grad
        of_hidden = of_weight = None
        if needs_hidden:
            of_hidden = torch.zeros_like(hidden)
            for rows, taps in _spans(of_hidden, ctx.kernel, ctx.stride):
                rows += grad @ flat[taps].T
        if needs_weight:
            of_flat = torch.empty_like(flat)
            for rows, taps in _spans(hidden, ctx.kernel, ctx.stride):
                of_flat[taps] = torch.bmm(rows.transpose(1, 2), grad).sum(0)
            of_weight = of_flat.view(ctx.kernel, hidden.shape[2], -1).permute(2, 1, 0)
        return of_hidden, of_weight, grad.sum((0, 1)) if needs_bias else None, None


def _spans(hidden: torch.Tensor, kernel: int, stride: int) -> list[tuple[torch.Tensor, slice]]:
    """Per span of `stride` taps: a view (batch, frames out, taps * channels), and its rows of the weight."""
    batch, frames, channels = hidden.shape
    count = (frames - kernel) // stride + 1
    spans = []
    for first in range(0, kernel, stride):
        width = min(stride, kernel - first) * channels
        view = hidden.as_strided(
            (batch, count, width),
            (frames * channels, stride * channels, 1),
            hidden.storage_offset() + first * channels,
        )
        spans.append((view, slice(first * channels, first * channels + width)))
    return spans
