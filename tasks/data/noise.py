"""Noise made with numpy, nobody's recording, and its mixing at a given signal-to-noise ratio. No command.

Three beds of 20 s are made once from a seed and cut at random places: white, pink, and a babble-like bed
(several low-passed noises that swell at the rate of syllables, as people talking in the next room do).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.data.audio import SAMPLE_RATE_HZ, Audio

KINDS = ("white", "pink", "babble")
BED_S = 20.0
_TALKERS = 8
_SYLLABLES_HZ = (2.5, 5.5)  # slowest and fastest talker of the babble


class NoiseBeds:
    """Noise beds to cut from; the same seed gives the same beds."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0x4015E])
        count = int(BED_S * SAMPLE_RATE_HZ)
        white = rng.standard_normal(count)
        self._beds: dict[str, Audio] = {
            "white": _unit(white),
            "pink": _unit(
                _shaped(rng.standard_normal(count), lambda hz: 1.0 / np.sqrt(np.maximum(hz, 20.0)))
            ),
            "babble": _unit(_babble(rng, count)),
        }

    def cut(self, rng: np.random.Generator, kind: str, samples: int) -> Audio:
        """`samples` of the bed `kind` from a random place, wrapping around; shape (samples,), RMS about 1."""
        bed = self._beds[kind]
        start = int(rng.integers(len(bed)))
        return np.take(bed, np.arange(start, start + samples), mode="wrap")


def mix(speech: Audio, noise: Audio, snr_db: float) -> Audio:
    """`speech` plus `noise` scaled so that the ratio of their powers is `snr_db`.

    The speech power is taken where there is speech (samples above a hundredth of the peak), so that the
    silence around it does not make the noise quieter.
    """
    loud = np.abs(speech) > 0.01 * np.max(np.abs(speech), initial=1e-9)
    if not loud.any():
        return speech
    speech_rms = float(np.sqrt(np.mean(np.square(speech[loud], dtype=np.float64))))
    noise_rms = float(np.sqrt(np.mean(np.square(noise, dtype=np.float64)))) or 1.0
    mixed: Audio = (speech + noise * (speech_rms / noise_rms * 10.0 ** (-snr_db / 20.0))).astype(np.float32)
    return mixed


def _unit(noise: np.ndarray[Any, np.dtype[np.float64]]) -> Audio:
    scaled: Audio = (noise / np.sqrt(np.mean(np.square(noise)))).astype(np.float32)
    return scaled


def _shaped(white: np.ndarray[Any, np.dtype[np.float64]], gain: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    spectrum = np.fft.rfft(white)
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(len(white), 1.0 / SAMPLE_RATE_HZ)), len(white))


def _babble(rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    total = np.zeros(count)
    for _ in range(_TALKERS):
        centre_hz = float(rng.uniform(300.0, 1200.0))
        voice = _shaped(
            rng.standard_normal(count), lambda hz, c=centre_hz: np.exp(-0.5 * ((hz - c) / (0.7 * c)) ** 2)
        )
        rate_hz = float(rng.uniform(*_SYLLABLES_HZ))
        swell = 0.5 + 0.5 * np.sin(2 * np.pi * rate_hz * time_s + float(rng.uniform(0, 2 * np.pi)))
        total += voice / np.sqrt(np.mean(np.square(voice))) * swell**2
    return total
