"""Surroundings that no training utterance has: the sound of the out-of-domain slice. Pure numpy; no command.

Each function takes speech, shape (samples,), float32 at 16 kHz, and gives it another surrounding. Levels,
ratios and times are fixed here, in one place: they say what "out of domain" means, and a number measured on
the slice can only be compared with another one when they are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.data.audio import SAMPLE_RATE_HZ, Audio
from tasks.data.noise import mix

KINDS = ("sentences", "quiet", "loud", "babble", "hum", "telephone", "reverberation")
"""`sentences`: nothing but the sentence is unusual. The others change the sound as well."""

QUIET_DB = -20.0  # against the level that other utterances have
LOUD_PEAK = 0.99  # of full scale: just short of clipping
LOUD_DRIVE_DB = 12.0  # gain before the soft limiter
SNR_DB = (5.0, 10.0)  # of babble and hum, drawn evenly; training goes down to 10 dB of other noise
MAINS_HZ = (50.0, 60.0)
HARMONICS = 8
TELEPHONE_HZ = (300.0, 3400.0)
RT60_S = (0.4, 0.8)  # time in which the reverberation falls by 60 dB
DIRECT_TO_REVERBERANT_DB = (0.0, 6.0)


def loud(speech: Audio) -> Audio:
    """Over-amplified: a soft limiter, then a peak of LOUD_PEAK; no sample is at full scale."""
    driven = np.tanh(speech / _peak(speech) * 10.0 ** (LOUD_DRIVE_DB / 20.0))
    limited: Audio = (driven * (LOUD_PEAK / np.max(np.abs(driven)))).astype(np.float32)
    return limited


def hum(rng: np.random.Generator, speech: Audio, snr_db: float) -> Audio:
    """Mains hum at 50 or 60 Hz with its harmonics, the n-th at 1/n of the first."""
    time_s = np.arange(len(speech)) / SAMPLE_RATE_HZ
    base_hz = float(rng.choice(MAINS_HZ))
    noise = np.zeros(len(speech))
    for number in range(1, HARMONICS + 1):
        noise += np.sin(2 * np.pi * number * base_hz * time_s + rng.uniform(0, 2 * np.pi)) / number
    return mix(speech, noise.astype(np.float32), snr_db)


def babble(rng: np.random.Generator, speech: Audio, voices: Audio, snr_db: float) -> Audio:
    """Other people talking: a random cut of `voices` (`overlapped`), wrapping around."""
    start = int(rng.integers(len(voices)))
    return mix(speech, np.take(voices, np.arange(start, start + len(speech)), mode="wrap"), snr_db)


def overlapped(talkers: list[Audio]) -> Audio:
    """Talkers one over the other, each at the same power and repeated to the length of the longest."""
    length = max((len(talker) for talker in talkers), default=1)
    total = np.zeros(length)
    for talker in talkers:
        total += np.resize(talker / np.sqrt(np.mean(np.square(talker, dtype=np.float64))), length)
    return total.astype(np.float32)


def telephone(speech: Audio) -> Audio:
    """Only what a telephone carries: nothing outside TELEPHONE_HZ (a rectangular band in the spectrum)."""
    spectrum = np.fft.rfft(speech.astype(np.float64))
    hz = np.fft.rfftfreq(len(speech), 1.0 / SAMPLE_RATE_HZ)
    spectrum[(hz < TELEPHONE_HZ[0]) | (hz > TELEPHONE_HZ[1])] = 0.0
    return np.fft.irfft(spectrum, len(speech)).astype(np.float32)


def reverberation(rng: np.random.Generator, speech: Audio) -> Audio:
    """A room: the direct sound and an exponentially fading tail of white noise (Polack's model)."""
    rt60_s, ratio_db = rng.uniform(*RT60_S), rng.uniform(*DIRECT_TO_REVERBERANT_DB)
    time_s = np.arange(int(rt60_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(len(time_s)) * 10.0 ** (-3.0 * time_s / rt60_s)
    tail *= 10.0 ** (-ratio_db / 20.0) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    size = len(speech) + len(tail) - 1
    product: np.ndarray[Any, Any] = np.fft.rfft(speech, size) * np.fft.rfft(tail, size)
    return np.fft.irfft(product, size).astype(np.float32)


def _peak(speech: Audio) -> float:
    return float(np.max(np.abs(speech), initial=1e-9))
