"""Whether two clips are one recording: sample by sample, after the best lag. Pure arithmetic; no command.

    same_recording(outline(audio), outline(other))   # 0.97: the same recording at another bit rate

The waveforms are compared, not what is said: two renderings of one sentence by one voice have other samples.
Both are band-limited, so that a codec or another sample rate changes little; the lag comes from their
cross-correlation; then every stretch that is loud in either must correlate. One other word, or a second
speaker's turn in one of them, is a stretch that does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr

from tasks.data.audio import SAMPLE_RATE_HZ

Audio = np.ndarray[Any, np.dtype[np.float32]]
OUTLINE_HZ = 4_000  # samples below 2 kHz: what every codec keeps, and where speech has its energy
_LAG_STEPS = 4  # of a sample of the outline: 1/16,000 s, since an encoder's delay is no whole number of them
_BLOCK = OUTLINE_HZ // 5  # 0.2 s, about a syllable: a changed word spoils one or more
_HOP = _BLOCK // 2
_LOUD = 10.0 ** (-10.0 / 10.0)  # of the power of a clip's loud blocks; below, noise may be all there is
_LOUD_QUANTILE = 0.9
_STEP = SAMPLE_RATE_HZ // 100
_ALIKE = 0.8  # correlation of two envelopes below which the waveforms are not compared
_HOPELESS = 0.5  # correlation of the wholes below which no lag is looked for closely
_TAIL = OUTLINE_HZ // 20  # what a codec may add behind the end


def outline(audio: Audio) -> Audio:
    """The clip (samples,) at 4 kHz, mean 0."""
    low = soxr.resample(audio - audio.mean(), SAMPLE_RATE_HZ, OUTLINE_HZ, quality="HQ")
    return np.ascontiguousarray(low, dtype=np.float32)


def envelope(audio: Audio) -> Audio:
    """The level of a clip at 16 kHz every 10 ms, its mean removed, of length 1; shape (frames,)."""
    count = max(1, len(audio) // _STEP)
    parts = np.pad(audio, (0, max(0, _STEP - len(audio))))[: count * _STEP].reshape(count, _STEP)
    level = np.sqrt(np.mean(np.square(parts), axis=1))
    level -= level.mean()
    scaled: Audio = (level / max(1e-12, float(np.linalg.norm(level)))).astype(np.float32)
    return scaled


def may_be_same(one: Audio, other: Audio) -> bool:
    """Whether two envelopes rise and fall together at some lag: what needs no waveform to be ruled out."""
    size = 1 << int(np.ceil(np.log2(len(one) + len(other))))
    spectrum = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    return bool(np.fft.irfft(spectrum, size).max() >= _ALIKE)


def same_recording(one: Audio, other: Audio) -> float:
    """The lowest correlation of any loud stretch of the two outlines at their best lag; -1 to 1.

    Loud is a block of 0.2 s within 10 dB of the loud blocks of either clip. What one clip has and the other
    lacks correlates with nothing (0), unless it is quiet. Polarity does not matter.
    """
    if not one.any() or not other.any():
        return 0.0
    lag, sign, likeness = best_lag(one, other)
    if likeness < _HOPELESS:
        return 0.0
    whole = int(np.floor(lag))
    moved = sign * _delayed(other, lag - whole)
    start = min(0, whole)
    length = max(len(one), whole + len(moved)) - start
    pair = np.zeros((2, length), np.float32)
    pair[0, -start : -start + len(one)] = one
    pair[1, whole - start : whole - start + len(moved)] = moved
    return _lowest(pair)


def best_lag(one: Audio, other: Audio) -> tuple[float, float, float]:
    """Samples by which `other` starts after `one` where both are most alike, its polarity (1 or -1) and the
    correlation there of the clips as wholes (0 to 1; to the whole sample if it is hopeless).
    """
    size = 1 << int(np.ceil(np.log2(len(one) + len(other))))
    spectrum = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    energy = float(np.sqrt(np.dot(one, one) * np.dot(other, other)))
    rough = float(np.abs(np.fft.irfft(spectrum, size)).max()) / energy
    if rough < _HOPELESS:
        return 0.0, 1.0, rough
    correlation = np.fft.irfft(spectrum, size * _LAG_STEPS)
    at = int(np.argmax(np.abs(correlation)))
    steps = at - len(correlation) if at >= len(correlation) // 2 else at
    return steps / _LAG_STEPS, 1.0 if correlation[at] >= 0 else -1.0, rough


def _delayed(audio: Audio, fraction: float) -> Audio:
    """The clip later by less than a sample."""
    padded = np.concatenate([audio, np.zeros(_TAIL, np.float32)])
    phase = np.exp(-2j * np.pi * np.fft.rfftfreq(len(padded)) * fraction)
    return np.fft.irfft(np.fft.rfft(padded) * phase, len(padded)).astype(np.float32)


def _lowest(pair: Audio) -> float:
    """The lowest correlation over the loud blocks of two aligned clips (2, samples)."""
    padded = np.pad(pair, ((0, 0), (_BLOCK, _BLOCK)))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, _BLOCK, axis=1)[:, ::_HOP]
    power = np.einsum("cbs,cbs->cb", blocks, blocks)
    product = np.einsum("bs,bs->b", blocks[0], blocks[1])
    floor = _LOUD * np.quantile(power, _LOUD_QUANTILE, axis=1, keepdims=True)
    loud = (power > floor).any(axis=0)
    correlation = product / np.sqrt(power[0] * power[1] + 1e-20)
    return float(correlation[loud].min()) if loud.any() else 0.0
