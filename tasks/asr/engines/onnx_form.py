"""The model in the form that ONNX Runtime computes fastest: what an exported graph holds. No command.

What it computes is what the model computes, beyond rounding. On top of `channels_last.for_inference`:

- The input is cut once to whole strides of every layer, so that no reshape below it asks for a shape: shape
  arithmetic was every second node, and short utterances paid for it.
- Attention is one operator between four products, and never writes the scores to memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tasks.asr.engines.channels_last import ChannelsLastEncoder, for_inference
from tasks.asr.streaming.shape import level_input, shape_of


def for_onnx(model: Any) -> Any:
    """`model` itself, with what can be replaced replaced; it can no longer be trained or saved."""
    base = model.base_model
    layers = getattr(base.feature_extractor, "conv_layers", None)
    model = for_inference(model)
    if isinstance(base.feature_extractor, ChannelsLastEncoder):
        base.feature_extractor = WholeStrides(layers)
        if shape_of(model):
            level_input(model)
    model.set_attn_implementation("eager")  # of types whose attention is their own
    for module in list(base.encoder.modules()):
        for name, child in list(module.named_children()):
            if model._supports_sdpa and all(hasattr(child, part) for part in _Attention.PARTS):
                setattr(module, name, _Attention(child))
    return model.eval()


class WholeStrides(nn.Module):
    """A feature encoder of convolutions without padding, layer norms and activations.

    The first layer is a convolution, whose channels are then turned last, and the others are matrix products.
    The input is given as many samples as the frames would need if every kernel were whole strides: no layer
    leaves a rest, and every length below follows from the one above.

    Args:
        layers: of the model, each with `conv`, `layer_norm` and `activation`; weights of products are copied.
    """

    def __init__(self, layers: Any) -> None:
        super().__init__()
        first, *others = layers
        self.first = first
        self.others = nn.ModuleList(_Product(layer) for layer in others)
        self.hop, self.field, self.whole_field = 1, 1, 1
        for layer in reversed(layers):
            (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
            self.hop *= stride
            self.field = (self.field - 1) * stride + kernel
            whole = kernel if layer is first else math.ceil(kernel / stride) * stride
            self.whole_field = (self.whole_field - 1) * stride + whole

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Samples (batch, samples) to features (batch, channels, frames), as the model wants them."""
        frames = (input_values.shape[1] - self.field) // self.hop + 1
        if self.whole_field > self.field:
            input_values = F.pad(input_values, (0, self.whole_field - self.field))
        states = input_values[:, None, : (frames - 1) * self.hop + self.whole_field]
        states = self.first.conv(states).transpose(1, 2)
        states = self.first.activation(self.first.layer_norm(states))
        for layer in self.others:
            states = layer(states)
        features: torch.Tensor = states.transpose(1, 2)
        return features


class _Product(nn.Module):
    """Convolution as matrix products on (frames, channels): one for each stride that the kernel covers, whose
    results are moved onto each other. To lay the strides side by side first would copy twice as much. Of the
    last stride a product sees the steps that the kernel still covers: to fill it up with zeros would be a
    quarter of the arithmetic where three steps are seen at a stride of two.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        conv = layer.conv
        (stride,) = conv.stride
        self.width = stride * conv.in_channels
        weights = conv.weight.detach().transpose(1, 2).flatten(1)
        self.products = nn.ModuleList()
        for weight in torch.split(weights, self.width, dim=1):
            biased = conv.bias is not None and not len(self.products)
            product = nn.Linear(weight.shape[1], conv.out_channels, biased)
            with torch.no_grad():
                product.weight.copy_(weight)
                if biased:
                    product.bias.copy_(conv.bias)
            self.products.append(product)
        self.layer_norm, self.activation = layer.layer_norm, layer.activation

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Whole strides of (batch, steps, channels) to (batch, frames, channels)."""
        rows = _reshape(states, self.width)
        last = len(self.products) - 1
        found = self.products[0](rows)[:, : -last or None]
        for shift, product in enumerate(self.products[1:], 1):
            ends = slice(shift, shift - last or None)
            part = product.in_features < self.width
            seen = product(rows[:, ends, : product.in_features]) if part else product(rows)[:, ends]
            found = found + seen
        features: torch.Tensor = self.activation(self.layer_norm(found))
        return features


class _Reshape(torch.autograd.Function):
    """What is behind the batch in another shape, of which the first size follows from the others."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
        return states.reshape(states.shape[0], -1, *sizes)

    @staticmethod
    def symbolic(g: Any, states: Any, sizes: tuple[int, ...]) -> Any:
        """By constants alone: zero keeps the size of the batch."""
        return g.op("Reshape", states, g.op("Constant", value_t=torch.tensor([0, -1, *sizes])))


def _reshape(states: torch.Tensor, *sizes: int) -> torch.Tensor:
    """(batch, ...) to (batch, as many as there are, *sizes)."""
    found: torch.Tensor = _Reshape.apply(states, sizes)  # type: ignore[no-untyped-call]
    return found


class _Attention(nn.Module):
    """Self-attention of the wav2vec2 kind, to everything."""

    PARTS = ("q_proj", "k_proj", "v_proj", "out_proj", "num_heads", "scaling")

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj
        self.heads, self.scale = int(attention.num_heads), float(attention.scaling)

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        """(batch, frames, hidden) to the same, and no weights."""
        parts = [part(hidden_states) for part in (self.q_proj, self.k_proj, self.v_proj)]
        attended = _AttentionOperator.apply(*parts, self.heads, self.scale)  # type: ignore[no-untyped-call]
        return self.out_proj(attended), None


class _AttentionOperator(torch.autograd.Function):
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
