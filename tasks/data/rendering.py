"""From planned utterances to audio: speaking rate, pitch, pauses, silence, level, noise. No command.

Every random choice of an utterance comes from (corpus seed, utterance number), so changing one setting does
not change the draw of the others. The engine itself is not bit-deterministic between processes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tasks.data.audio import SAMPLE_RATE_HZ, Audio
from tasks.data.espeak import Synthesiser
from tasks.data.noise import KINDS, NoiseBeds, mix
from tasks.data.plan import Utterance
from tasks.settings import Corpus

RATE_WPM = (145, 205)  # slowest and fastest speech, espeak's words per minute
PITCH = (38, 62)  # espeak's scale around a voice's own pitch of 50
PAUSE_S = (0.1, 0.6)  # between the sentences of a joined utterance
PEAK_DBFS = (-12.0, -1.0)  # loudest sample after mixing


class Rendered(NamedTuple):
    """Audio, shape (samples,), float32 at 16 kHz, and the signal-to-noise ratio in dB (NaN: no noise)."""

    audio: Audio
    snr_db: float


def render(utterance: Utterance, params: Corpus, engine: Synthesiser, beds: NoiseBeds) -> Rendered:
    """Speak the utterance with its surroundings.

    Training utterances get up to `max_silence_s` on both sides and noise at any of `snr_db`; validation and
    test utterances up to half that silence, and noise from the quieter half of the ratios.
    """
    rng = np.random.default_rng([params.seed, utterance.number])
    moderate = utterance.split != "train"
    rate_wpm = int(rng.integers(RATE_WPM[0], RATE_WPM[1] + 1))
    pitch = int(rng.integers(PITCH[0], PITCH[1] + 1))
    parts: list[Audio] = []
    for sentence in utterance.sentences:
        if parts:
            parts.append(_silence(rng.uniform(*PAUSE_S)))
        parts.append(engine.speak(sentence.command.text, utterance.speaker, rate_wpm=rate_wpm, pitch=pitch))
    longest_s = params.max_silence_s * (0.5 if moderate else 1.0)
    before, after = rng.uniform(0.0, longest_s, size=2)
    audio = np.concatenate([_silence(before), *parts, _silence(after)])
    snr_db = float("nan")
    clean, kind = rng.random() < params.clean_share, KINDS[int(rng.integers(len(KINDS)))]
    if not clean and params.snr_db:
        snr_db = float(rng.choice(_ratios(params, moderate)))
        audio = mix(audio, beds.cut(rng, kind, len(audio)), snr_db)
    peak = 10.0 ** (rng.uniform(*PEAK_DBFS) / 20.0)
    return Rendered((audio * (peak / np.max(np.abs(audio)))).astype(np.float32), snr_db)


def _ratios(params: Corpus, moderate: bool) -> list[float]:
    ordered = sorted(params.snr_db, reverse=True)
    return ordered[: (len(ordered) + 1) // 2] if moderate else ordered


def _silence(seconds: float) -> Audio:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), dtype=np.float32)
