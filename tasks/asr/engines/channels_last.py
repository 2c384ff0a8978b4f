"""The same model in fewer operations, for inference: what it computes does not change, beyond rounding.

Two parts of a wav2vec2-style model are replaced. The feature encoder with layer norm becomes plain matrix
products on (frames, channels), because the norm wants channels last and the convolutions, which want them
first, make it turn its largest arrays twice per layer. The weights of the positional convolution, which
are a direction and a length while it learns, are multiplied out once and not on every call. Attention is
the model's own, or one operator of ONNX Runtime in a graph that is exported. No command.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations
from transformers import AttentionInterface

from tasks.asr.streaming.shape import level_input, shape_of

ONNX_ATTENTION = "malgil_onnx"


class ChannelsLastEncoder(nn.Module):
    """A feature encoder whose layers are convolution without padding, layer norm and activation.

    Args:
        layers: of the model, each with `conv`, `layer_norm` and `activation`; their weights are copied.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_ProductLayer(layer) for layer in layers)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Samples (batch, samples) to features (batch, channels, frames), as the model wants them."""
        states = input_values[..., None]
        for layer in self.layers:
            states = layer(states)
        return states.transpose(1, 2)


class _ProductLayer(nn.Module):
    """Convolution as one matrix product: what a frame sees is one row of (frames, kernel * channels)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        conv = layer.conv
        (self.kernel,), (self.stride,) = conv.kernel_size, conv.stride
        self.product = nn.Linear(self.kernel * conv.in_channels, conv.out_channels, conv.bias is not None)
        with torch.no_grad():
            self.product.weight.copy_(conv.weight.transpose(1, 2).flatten(1))
            if conv.bias is not None:
                self.product.bias.copy_(conv.bias)
        self.layer_norm, self.activation = layer.layer_norm, layer.activation

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, steps, channels) to (batch, frames, channels)."""
        features: torch.Tensor = self.activation(self.layer_norm(self.product(self.rows(states))))
        return features

    def rows(self, states: torch.Tensor) -> torch.Tensor:
        """What each frame sees, (batch, frames, kernel * channels): as many strides as the kernel holds,
        laid side by side, and of the last one the part that it still covers.
        """
        batch, steps, channels = states.shape
        frames = (steps - self.kernel) // self.stride + 1
        whole, rest = divmod(self.kernel, self.stride)
        if rest:
            states = F.pad(states, (0, 0, 0, self.stride))
        shifts = range(0, self.kernel, self.stride)
        pieces = [
            states[:, shift : shift + frames * self.stride].reshape(batch, frames, self.stride * channels)
            for shift in shifts
        ]
        if rest:
            pieces[whole] = pieces[whole][..., : rest * channels]
        return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]


def for_inference(model: Any) -> Any:
    """`model` itself, with what can be replaced replaced; it can no longer be trained or saved."""
    base = model.base_model
    layers = base.feature_extractor.conv_layers
    if all(_is_product(layer) for layer in layers):
        base.feature_extractor = ChannelsLastEncoder(layers)
        if shape_of(model):  # what levels the input of a streaming checkpoint hung on the module replaced
            level_input(model)
    for module in base.encoder.modules():
        for name, conv in list(module.named_children()):
            if hasattr(conv, "parametrizations") and type_before_parametrizations(conv) is nn.Conv1d:
                setattr(module, name, _multiplied_out(conv))
    return model.eval()


def _is_product(layer: Any) -> bool:
    conv = layer.conv
    return (
        isinstance(getattr(layer, "layer_norm", None), nn.LayerNorm)
        and (conv.padding, conv.dilation, conv.groups) == ((0,), (1,), 1)
        and conv.kernel_size >= conv.stride
    )


def _multiplied_out(conv: nn.Conv1d) -> nn.Conv1d:
    plain = nn.Conv1d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    with torch.no_grad():
        plain.weight.copy_(conv.weight)
        if conv.bias is not None and plain.bias is not None:
            plain.bias.copy_(conv.bias)
    return plain


class _OnnxAttention(torch.autograd.Function):
    """Attention that an exported graph holds as one operator, which never writes the scores to memory."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, scale: float
    ) -> torch.Tensor:
        """All (batch, frames, heads * width)."""
        shape = (*query.shape[:2], heads, -1)
        q, k, v = (t.reshape(shape).transpose(1, 2) for t in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, heads: int, scale: float) -> Any:
        """ONNX Runtime's `com.microsoft.MultiHeadAttention`, listed among its contributed operators."""
        found = g.op("com.microsoft::MultiHeadAttention", query, key, value, num_heads_i=heads, scale_f=scale)
        found.setType(query.type())
        return found


def _onnx_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: (batch, heads, frames, width) to (batch, frames, heads, width)."""
    batch, heads, _, width = query.shape
    flat = [t.transpose(1, 2).reshape(batch, -1, heads * width) for t in (query, key, value)]
    scale = float(scaling or width**-0.5)
    found = _OnnxAttention.apply(*flat, int(heads), scale)  # type: ignore[no-untyped-call]
    return found.reshape(batch, -1, heads, width), None


AttentionInterface.register(ONNX_ATTENTION, _onnx_attention)


def use_onnx_attention(model: Any) -> None:
    """Makes a model that is to be exported attend by the operator; types with an attention of their own
    attend in plain steps. The scaled-dot-product path would trace its mask decisions into the graph.
    """
    model.set_attn_implementation(ONNX_ATTENTION if model._supports_sdpa else "eager")
