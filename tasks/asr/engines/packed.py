"""A wav2vec2-style CTC model on several recordings at once without padding: their frames in one long matrix.

What looks at one frame (projections, layer norms, feed-forward) is computed on the frames of all recordings
together, in blocks that stay in a processor's cache. What looks around (feature encoder, positional
convolution, attention) is computed on each recording alone. So it is the function of the model itself on
each recording alone, up to rounding, without a mask and for every kind of norm
(tests/asr/test_packed.py). The model keeps working, and shares the weights of its Transformer.

For inference on a CPU in fp32, and for encoders whose blocks are those of wav2vec2: `why_not_packed` says
what is in the way of another. No command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tasks.asr.engines.channels_last import is_product
from tasks.asr.recordings.windows import Grid
from tasks.asr.streaming.level import levelled
from tasks.asr.streaming.shape import shape_of

Audio = np.ndarray[Any, np.dtype[np.float32]]
Logits = np.ndarray[Any, np.dtype[np.float32]]
_TYPES = ("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2")
# Frames computed together. More of them read the weights less often; fewer stay in a processor's cache, which
# counts in the feature encoder: its first layer makes 32 steps and more per frame.
_BLOCK_FRAMES = 1024
_FRONT_FRAMES = 128
_NARROW = 32  # channels per group; with fewer, a grouped convolution leaves most of a vector unit idle
_COLUMNS = 96  # of the matrices that stand for such a convolution


def why_not_packed(model: Any) -> str | None:
    """What keeps this model from being packed; None: nothing."""
    base = model.base_model
    if model.config.model_type not in _TYPES:
        return f"the blocks of {model.config.model_type} look at positions in their own way"
    if getattr(base, "adapter", None) is not None:
        return "an adapter of convolutions follows the encoder"
    if any(getattr(layer, "adapter_layer", None) is not None for layer in base.encoder.layers):
        return "its blocks have adapters"
    return None


class PackedModel:
    """Logits of a model, for recordings of any lengths.

    Args:
        model: as transformers loads it, in fp32; the weights of queries, keys and values are moved together.
        grid: its frames and samples.
    """

    def __init__(self, model: Any, grid: Grid) -> None:
        base = model.base_model
        self._front = _Front(model, grid)
        self._positions = _positions(base.encoder.pos_conv_embed)
        self._norm, self._head = base.encoder.layer_norm, model.lm_head
        self._layers = [_Layer(layer) for layer in base.encoder.layers]
        self._grid = grid

    def logits(self, clips: Sequence[Audio]) -> list[Logits]:
        """Logits (frames, vocabulary) of each clip (samples,), which has at least one frame."""
        ends = np.cumsum([self._grid.frames(len(clip)) for clip in clips]).tolist()
        spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        with torch.inference_mode():
            hidden = torch.empty(ends[-1], self._head.in_features)
            for clip, span in zip(clips, spans, strict=True):
                own = hidden[span]
                self._front.write(torch.from_numpy(clip), own)
                own += self._positions(own)
            found = self._transformed(hidden, spans).numpy()
        return [found[span] for span in spans]

    def _transformed(self, hidden: torch.Tensor, spans: Sequence[slice]) -> torch.Tensor:
        """Logits (frames, vocabulary) of the input (frames, hidden) of the blocks; `hidden` is used up."""
        frames, width = hidden.shape
        heads = hidden.new_empty(frames, 3 * width)  # queries, keys and values
        context = torch.empty_like(hidden)
        logits = hidden.new_empty(frames, self._head.out_features)
        blocks = [slice(at, min(at + _BLOCK_FRAMES, frames)) for at in range(0, frames, _BLOCK_FRAMES)]
        stable = self._layers[0].norm_first
        if not stable:
            hidden.copy_(self._norm(hidden))
        for layer in self._layers:
            for block in blocks:
                layer.project(hidden[block], heads[block])
            for span in spans:
                layer.attend(heads[span], context[span])
            for block in blocks:
                layer.feed(hidden[block], context[block])
        for block in blocks:
            last = self._norm(hidden[block]) if stable else hidden[block]
            torch.addmm(self._head.bias, last, self._head.weight.T, out=logits[block])
        return logits


class _Layer:
    """A block of the Transformer in three steps; `norm_first` where the norms stand before what they feed."""

    def __init__(self, layer: Any) -> None:
        attention = layer.attention
        self.norm_first = type(layer).__name__.endswith("StableLayerNorm")
        self._layer, self._out = layer, attention.out_proj
        self._heads, self._scale = attention.num_heads, float(attention.scaling)
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        with torch.no_grad():
            self._weight = torch.cat([part.weight for part in parts])
            self._bias = torch.cat([part.bias for part in parts])
        rows = torch.split(self._weight, [part.out_features for part in parts])
        for part, own in zip(parts, rows, strict=True):
            part.weight = nn.Parameter(own, requires_grad=False)

    def project(self, hidden: torch.Tensor, heads: torch.Tensor) -> None:
        """Writes queries, keys and values (frames, 3 * hidden)."""
        seen = self._layer.layer_norm(hidden) if self.norm_first else hidden
        torch.addmm(self._bias, seen, self._weight.T, out=heads)

    def attend(self, heads: torch.Tensor, context: torch.Tensor) -> None:
        """Writes what the frames (frames, hidden) of one recording see in each other."""
        frames, width = context.shape
        query, key, value = heads.view(1, frames, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value, scale=self._scale)
        context.copy_(found[0].transpose(0, 1).reshape(frames, width))

    def feed(self, hidden: torch.Tensor, context: torch.Tensor) -> None:
        """Adds the context and the feed-forward to the frames in place."""
        layer, wide = self._layer, self._layer.feed_forward
        _add_product(hidden, context, self._out)
        seen = layer.final_layer_norm(hidden) if self.norm_first else hidden.copy_(layer.layer_norm(hidden))
        between = wide.intermediate_act_fn(wide.intermediate_dense(seen))
        _add_product(hidden, between, wide.output_dense)
        if not self.norm_first:
            hidden.copy_(layer.final_layer_norm(hidden))


def _add_product(hidden: torch.Tensor, states: torch.Tensor, linear: nn.Linear) -> None:
    hidden.addmm_(states, linear.weight.T).add_(linear.bias)


class _Front:
    """Samples to frames as the Transformer takes them: feature encoder and projection.

    Without a norm over time a frame depends on its samples alone, and blocks of frames are computed one
    after the other. Another feature encoder is the model's own, on the whole recording.
    """

    def __init__(self, model: Any, grid: Grid) -> None:
        base = model.base_model
        layers = base.feature_extractor.conv_layers
        self._own, self._projection, self._grid = base.feature_extractor, base.feature_projection, grid
        self._convolutions = [_Convolution(n) for n in layers] if all(map(is_product, layers)) else []
        self._levels = shape_of(model) is not None  # a hook on the model's own, which is not called here

    def write(self, samples: torch.Tensor, frames: torch.Tensor) -> None:
        """Writes the frames (frames, hidden) of a recording's samples."""
        if not self._convolutions:
            frames.copy_(self._project(self._own(samples[None])[0].T))
            return
        if self._levels:
            samples = levelled(samples[None])[0]
        for first, steps in self._blocks(samples, len(frames)):
            for convolution in self._convolutions:
                steps = convolution(steps)
            frames[first : first + len(steps)] = self._project(steps)

    def _blocks(self, samples: torch.Tensor, frames: int) -> Iterator[tuple[int, torch.Tensor]]:
        for first in range(0, frames, _FRONT_FRAMES):
            count = min(_FRONT_FRAMES, frames - first)
            start = first * self._grid.stride
            yield first, samples[start : start + self._grid.samples(count), None]

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        found = self._projection(features)
        projected: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return projected


class _Convolution:
    """Convolution, layer norm and activation on (steps, channels).

    The kernel is cut into spans of as many taps as its stride has: the steps that one span sees lie side by
    side and overlap nowhere, so each span is a matrix product on a view.
    """

    def __init__(self, layer: Any) -> None:
        conv = layer.conv
        self._layer, self._channels = layer, conv.in_channels
        (self._kernel,), (self._stride,) = conv.kernel_size, conv.stride
        with torch.no_grad():
            weight = conv.weight.permute(2, 1, 0).flatten(0, 1).contiguous()  # (kernel * channels, out)
            self._bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self._spans = weight.split(self._stride * self._channels)

    def __call__(self, steps: torch.Tensor) -> torch.Tensor:
        """(steps, channels) to ((steps - kernel) // stride + 1, out)."""
        frames = (len(steps) - self._kernel) // self._stride + 1
        hop, start = self._stride * self._channels, steps.storage_offset()
        sums = self._bias.expand(frames, -1)
        for number, weight in enumerate(self._spans):
            seen = steps.as_strided((frames, len(weight)), (hop, 1), start + number * hop)
            sums = sums.addmm_(seen, weight) if number else torch.addmm(sums, seen, weight)
        found: torch.Tensor = self._layer.activation(self._layer.layer_norm(sums))
        return found


def _positions(embedding: Any) -> Any:
    """The positional convolution, from (frames, hidden) to (frames, hidden), its activation included."""
    conv = getattr(embedding, "conv", None)  # data2vec has several, HuBERT may have a norm before it
    plain = conv if getattr(embedding, "batch_norm", None) is None else None
    if plain is not None and plain.in_channels // plain.groups < _NARROW:
        return _NarrowConvolution(embedding)
    return lambda frames: embedding(frames[None])[0]


class _NarrowConvolution:
    """A convolution in groups of few channels: `together` frames are one row of a matrix product.

    A row holds the channels of a group at so many frames in turn; the kernel, shifted once for each of
    them, becomes a matrix of `together` times as many columns. That is a quarter more arithmetic, and
    several times faster than a convolution whose columns are 12.
    """

    def __init__(self, embedding: Any) -> None:
        conv = embedding.conv
        (kernel,), self._groups = conv.kernel_size, conv.groups
        self._channels = channels = conv.in_channels // self._groups
        self._before, self._bias, self._activation = kernel // 2, conv.bias, embedding.activation
        self._together = together = max(2, _COLUMNS // channels)
        with torch.no_grad():
            taps = conv.weight.view(self._groups, channels, channels, kernel).permute(0, 3, 2, 1)
            shifted = taps.new_zeros(self._groups, kernel + together - 1, channels, together, channels)
            for frame in range(together):
                shifted[:, frame : frame + kernel, :, frame] = taps
        self._pieces = shifted.flatten(3).flatten(1, 2).split(together * channels, dim=1)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """(frames, hidden) to (frames, hidden)."""
        count, width = frames.shape
        rows = -(-count // self._together)
        padded = frames.new_zeros(
            self._groups, (rows + len(self._pieces) - 1) * self._together, self._channels
        )
        padded[:, self._before : self._before + count] = frames.view(count, self._groups, -1).transpose(0, 1)
        table = padded.view(self._groups, -1, self._together * self._channels)
        sums = frames.new_zeros(self._groups, rows, self._together * self._channels)
        for number, piece in enumerate(self._pieces):
            sums.baddbmm_(table[:, number : number + rows, : piece.shape[1]], piece)
        found = sums.view(self._groups, -1, self._channels)[:, :count].transpose(0, 1).reshape(count, width)
        activated: torch.Tensor = self._activation(found.add_(self._bias))
        return activated
