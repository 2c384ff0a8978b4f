"""The loudness of a stream, brought to one level by what has been heard so far.

A stock wav2vec2 wants an utterance of zero mean and unit variance, which nobody knows before it is over.
Here every block of 20 ms is divided by the loudest stretch of the last five seconds, itself included, and
freed of their mean: loud enough at the first syllable, steady through pauses, and a function of the past
alone, so that a stream and a whole file get the same samples. No command.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

BLOCK_SAMPLES = 320  # 20 ms at 16 kHz
_SMOOTH_BLOCKS = 10  # a stretch whose loudness counts: 0.2 s, so that a click is not taken for speech
_MEMORY_BLOCKS = 250  # 5 s
_FLOOR = 1e-3  # RMS of -60 dBFS: what is quieter is not made louder than this would be
_HEADROOM = (
    1.25  # the loudest 0.2 s over the whole of an utterance (median of the built-in corpus): variance near 1
)
HISTORY_BLOCKS = _SMOOTH_BLOCKS + _MEMORY_BLOCKS - 2  # earlier blocks on which a block's result depends
KIND = "loudest 0.2 s of the last 5 s"  # written into the checkpoint


def levelled(audio: torch.Tensor) -> torch.Tensor:
    """The levelled audio, shape (batch, samples) as it came; it starts where the stream starts."""
    # One more block of zeros: whole blocks without arithmetic on the length, which a tracer would freeze.
    padded = torch.cat([audio, audio.new_zeros(audio.shape[0], BLOCK_SAMPLES)], dim=1)
    whole = padded.shape[1] // BLOCK_SAMPLES * BLOCK_SAMPLES
    blocks = padded[:, :whole].reshape(audio.shape[0], -1, BLOCK_SAMPLES)
    mean, scale = _statistics(*measures(blocks))
    flat = ((blocks - mean[..., None]) / scale[..., None]).reshape(audio.shape[0], -1)
    return flat[:, : audio.shape[1]]


def measures(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and power of blocks (batch, blocks, samples), each (batch, blocks)."""
    return blocks.mean(dim=-1), blocks.square().mean(dim=-1)


def _statistics(mean: torch.Tensor, power: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean to take away and the scale to divide by, for every block, from its past and itself."""
    centre = _running_mean(mean, _MEMORY_BLOCKS)
    loudness = _running_mean(power, _SMOOTH_BLOCKS)[:, None]
    loudest = F.max_pool1d(F.pad(loudness, (_MEMORY_BLOCKS - 1, 0)), _MEMORY_BLOCKS, stride=1)[:, 0]
    rms = (loudest - centre.square()).clamp_min(_FLOOR**2).sqrt()
    return centre, rms / _HEADROOM


def _running_mean(values: torch.Tensor, window: int) -> torch.Tensor:
    """Mean of the last `window` values, or of as many as there are; (batch, blocks)."""
    ones = torch.ones_like(values[:1])
    summed, count = (
        F.avg_pool1d(F.pad(each[:, None], (window - 1, 0)), window, stride=1)[:, 0] for each in (values, ones)
    )
    return summed / count


class Leveller:
    """`levelled` for a stream, whole blocks at a time; what it keeps does not grow."""

    def __init__(self) -> None:
        self._mean = torch.zeros(1, 0)
        self._power = torch.zeros(1, 0)

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """The levelled samples (samples,) that follow; their number is a multiple of `BLOCK_SAMPLES`."""
        blocks = samples.reshape(1, -1, BLOCK_SAMPLES)
        mean, power = measures(blocks)
        self._mean = torch.cat([self._mean, mean], dim=1)
        self._power = torch.cat([self._power, power], dim=1)
        centre, scale = (each[:, -blocks.shape[1] :] for each in _statistics(self._mean, self._power))
        self._mean = self._mean[:, -HISTORY_BLOCKS:]
        self._power = self._power[:, -HISTORY_BLOCKS:]
        return ((blocks - centre[..., None]) / scale[..., None]).reshape(-1)
