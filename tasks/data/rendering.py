"""From planned utterances to audio: speaking rate, pitch, pauses, silence, level, noise. No command.

Every random choice of an utterance comes from (corpus seed, utterance number), so changing one setting does
not change the draw of the others. The engine itself is not bit-deterministic between processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.data import surroundings
from tasks.data.audio import SAMPLE_RATE_HZ, Audio
from tasks.data.espeak import Synthesiser
from tasks.data.noise import KINDS, NoiseBeds, mix
from tasks.data.plan import Unusual, Utterance
from tasks.settings import Corpus

RATE_WPM = (145, 205)  # slowest and fastest speech, espeak's words per minute
PITCH = (38, 62)  # espeak's scale around a voice's own pitch of 50
PAUSE_S = (0.1, 0.6)  # between the sentences of a joined utterance
PEAK_DBFS = (-12.0, -1.0)  # loudest sample after mixing
_TALKERS, _SENTENCES_EACH = 6, 5  # of the babble behind the out-of-domain slice
_UNUSUAL = 0x00D  # tells the random stream of the out-of-domain slice from the others


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
    return Rendered(_at_peak(audio, peak), snr_db)


def talkers(utterances: Sequence[Unusual], engine: Synthesiser) -> Audio:
    """The babble of the out-of-domain slice: voices of the slice, talking at the same time."""
    voices = list(dict.fromkeys(utterance.speaker for utterance in utterances))[:_TALKERS]
    texts = [utterance.text for utterance in utterances]
    said = []
    for place, voice in enumerate(voices):
        own = [texts[(place + len(voices) * turn) % len(texts)] for turn in range(_SENTENCES_EACH)]
        said.append(np.concatenate([engine.speak(text, voice, rate_wpm=175, pitch=50) for text in own]))
    return surroundings.overlapped(said)


def render_unusual(utterance: Unusual, params: Corpus, engine: Synthesiser, voices: Audio) -> Rendered:
    """Speak an utterance of the out-of-domain slice in its surrounding; `voices` is the babble (`talkers`).

    Rate, pitch, silence and level are drawn as for the other test utterances, except where the kind says
    otherwise.
    """
    rng = np.random.default_rng([params.seed, _UNUSUAL, utterance.number])
    rate_wpm = int(rng.integers(RATE_WPM[0], RATE_WPM[1] + 1))
    pitch = int(rng.integers(PITCH[0], PITCH[1] + 1))
    before, after = rng.uniform(0.0, params.max_silence_s * 0.5, size=2)
    peak = 10.0 ** (rng.uniform(*PEAK_DBFS) / 20.0)
    snr_db = float(rng.choice(surroundings.SNR_DB))
    said = engine.speak(utterance.text, utterance.speaker, rate_wpm=rate_wpm, pitch=pitch)
    audio = np.concatenate([_silence(before), said, _silence(after)])
    kind = utterance.kind
    if kind == "loud":
        return Rendered(surroundings.loud(audio), float("nan"))
    if kind == "quiet":
        peak *= 10.0 ** (surroundings.QUIET_DB / 20.0)
    elif kind == "babble":
        audio = surroundings.babble(rng, audio, voices, snr_db)
    elif kind == "hum":
        audio = surroundings.hum(rng, audio, snr_db)
    elif kind == "telephone":
        audio = surroundings.telephone(audio)
    elif kind == "reverberation":
        audio = surroundings.reverberation(rng, audio)
    noisy = kind in ("babble", "hum")
    return Rendered(_at_peak(audio, peak), snr_db if noisy else float("nan"))


def _at_peak(audio: Audio, peak: float) -> Audio:
    scaled: Audio = (audio * (peak / np.max(np.abs(audio)))).astype(np.float32)
    return scaled


def _ratios(params: Corpus, moderate: bool) -> list[float]:
    ordered = sorted(params.snr_db, reverse=True)
    return ordered[: (len(ordered) + 1) // 2] if moderate else ordered


def _silence(seconds: float) -> Audio:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), dtype=np.float32)
