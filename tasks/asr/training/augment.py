"""Training examples made on the fly: joined utterances, silence around them, noise, and small changes of
the voice.

A recogniser trained on short clean clips breaks on a second of silence and on long audio; these are the
examples that teach it both. An `Example` is a *plan* drawn from a random generator, so its length is
known before any audio is touched, and `render` turns the same plan into the same samples every time: that
is what makes training resumable. No files, no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.data.espeak import SAMPLE_RATE_HZ

Audio = np.ndarray[Any, np.dtype[np.float32]]

# Pauses between joined utterances, as a share of the longest silence allowed around them.
_PAUSE_SHARE = 0.6
_PLAIN_SHARE = 0.6  # examples without silence, so that clips cut close to the speech stay in the training
_SPEED = (0.88, 1.14)  # resampling: moves formants, pitch and tempo together, as another vocal tract would
_TILT = 0.35  # largest coefficient of the first-order filter that brightens or darkens an example
_SNR_DB = (3.0, 40.0)  # drawn evenly; the top end is the hiss of a quiet room


@dataclass(frozen=True)
class Augmentation:
    """How far examples may be changed; shares are fractions of the examples, silence is in seconds."""

    joined_share: float
    max_joined: int
    max_silence_s: float
    noise_share: float
    voice_share: float = 0.25  # examples with another speed and spectral tilt
    longest_s: float = 16.0  # joining stops before an example would be longer

    def scaled(self, strength: float) -> Augmentation:
        """The same with every share and length multiplied by `strength` (0 to 1)."""
        return Augmentation(
            joined_share=self.joined_share * strength,
            max_joined=self.max_joined,
            max_silence_s=self.max_silence_s * strength,
            noise_share=self.noise_share * strength,
            voice_share=self.voice_share * strength,
            longest_s=self.longest_s,
        )


NO_AUGMENTATION = Augmentation(
    joined_share=0.0, max_joined=1, max_silence_s=0.0, noise_share=0.0, voice_share=0.0
)


@dataclass(frozen=True)
class Example:
    """The plan of one training example. `silences` (samples) surround the `parts` (utterance indices) one
    by one.
    """

    parts: tuple[int, ...]
    silences: tuple[int, ...]
    samples: int
    speed: float = 1.0
    tilt: float = 0.0
    snr_db: float | None = None
    noise_colour: float = 0.0
    seed: int = 0


def draw_example(
    parts: tuple[int, ...],
    lengths: np.ndarray[Any, np.dtype[np.int64]],
    how: Augmentation,
    rng: np.random.Generator,
    fit: Callable[[tuple[int, ...], int], bool] | None = None,
) -> Example:
    """Draws silence, noise and voice for the utterances `parts`; `lengths` holds every utterance's samples.

    Parts that would make the example longer than `how.longest_s` are left out, the first one never. `fit`
    says whether parts can be learned from on so many samples: where faster speech or joining would leave too
    few, the speed stays, or the first part alone is heard. What is drawn does not depend on it.
    """
    heard = np.cumsum([int(lengths[part]) for part in parts])
    parts = parts[: max(1, int((heard <= how.longest_s * SAMPLE_RATE_HZ).sum()))]
    speed, tilt = 1.0, 0.0
    if rng.random() < how.voice_share:
        speed, tilt = float(rng.uniform(*_SPEED)), float(rng.uniform(-_TILT, _TILT))
    longest = int(how.max_silence_s * SAMPLE_RATE_HZ)
    around = rng.integers(0, longest + 1, size=2) * (rng.random(2) >= _PLAIN_SHARE)
    pauses = rng.integers(0, int(longest * _PAUSE_SHARE) + 1, size=len(parts) - 1)
    pauses *= rng.random(len(parts) - 1) >= _PLAIN_SHARE
    snr_db = float(rng.uniform(*_SNR_DB)) if rng.random() < how.noise_share else None
    silences = (int(around[0]), *(int(pause) for pause in pauses), int(around[1]))
    samples = _samples(parts, silences, lengths, speed)
    if fit and speed > 1.0 and not fit(parts, samples):
        speed, samples = 1.0, _samples(parts, silences, lengths, 1.0)
    if fit and len(parts) > 1 and not fit(parts, samples):
        parts, silences = parts[:1], (silences[0], silences[-1])
        samples = _samples(parts, silences, lengths, speed)
    return Example(
        parts=parts,
        silences=silences,
        samples=samples,
        speed=speed,
        tilt=tilt,
        snr_db=snr_db,
        noise_colour=float(rng.uniform(0.0, 1.0)),
        seed=int(rng.integers(0, 2**31)),
    )


def render(example: Example, clips: list[Audio]) -> Audio:
    """The samples of `example`, shape (example.samples,), not normalised. `clips` are its parts, float32."""
    audio = np.zeros(example.samples, dtype=np.float32)
    position = example.silences[0]
    power = 0.0
    for clip, pause in zip(clips, example.silences[1:], strict=True):
        spoken = _resampled(clip, example.speed)
        audio[position : position + len(spoken)] = spoken
        power += float(np.dot(spoken, spoken))
        position += len(spoken) + pause
    if example.tilt:
        audio[1:] += example.tilt * audio[:-1]
    if example.snr_db is not None:
        rng = np.random.default_rng(example.seed)
        speech_power = power / max(1, example.samples - sum(example.silences))
        audio += coloured_noise(len(audio), example.noise_colour, rng) * np.float32(
            np.sqrt(speech_power / 10 ** (example.snr_db / 10))
        )
    return audio


def coloured_noise(samples: int, colour: float, rng: np.random.Generator) -> Audio:
    """Noise of power 1: white at `colour` 0, falling by 6 dB per octave (brown) at 1."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ), 50.0)
    noise = np.fft.irfft(spectrum * frequency**-colour, samples)
    scaled: Audio = (noise / (np.sqrt(np.mean(noise**2)) + 1e-12)).astype(np.float32)
    return scaled


def normalised(audio: Audio) -> Audio:
    """Zero mean and unit variance over the utterance, as Wav2Vec2FeatureExtractor with `do_normalize`
    does.
    """
    scaled: Audio = audio - audio.mean()
    scaled /= np.sqrt(np.square(scaled).mean() + 1e-7)  # bit for bit `audio.var()`, which subtracts again
    return scaled


def _samples(
    parts: tuple[int, ...],
    silences: tuple[int, ...],
    lengths: np.ndarray[Any, np.dtype[np.int64]],
    speed: float,
) -> int:
    return sum(silences) + sum(_resampled_length(int(lengths[part]), speed) for part in parts)


def _resampled_length(samples: int, speed: float) -> int:
    return samples if speed == 1.0 else max(1, round(samples / speed))


def _resampled(clip: Audio, speed: float) -> Audio:
    length = _resampled_length(len(clip), speed)
    if length == len(clip):
        return clip
    # Linear interpolation: its slight dulling near 8 kHz is one more harmless change of the voice.
    return np.interp(np.linspace(0, len(clip) - 1, length), np.arange(len(clip)), clip).astype(np.float32)
