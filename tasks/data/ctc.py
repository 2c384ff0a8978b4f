"""Whether CTC can write a transcript on the frames of its recording. Pure but for a checkpoint's config.json.

CTC gives every label a frame, and one more between two equal labels (Graves et al. 2006, section 3.1): a
transcript that needs more frames than the recording gives has no path, its loss is infinite, and a training
that zeroes infinite losses would pass the row over in silence. Frames are counted as transformers'
`_get_feat_extract_output_lengths` does it; labels as `tasks.asr.checkpoints.vocabulary` splits text.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tasks.data.audio import SAMPLE_RATE_HZ
from tasks.data.hub import hub_name

Units = Literal["jamo", "syllable", "checkpoint"]
_FIRST_JAMO = "\u1100"


class Geometry(NamedTuple):
    """The convolutions of an encoder: kernel and stride (samples or frames of the one before) of each."""

    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)

    def frames(self, samples: int) -> int:
        """Frames that so many samples give; 0 for less than the receptive field."""
        length = samples
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            length = (length - kernel) // stride + 1
        return max(0, length)


WAV2VEC2 = Geometry()
"""400 samples of field and 320 of stride: wav2vec2, HuBERT, WavLM and their like."""


def geometry_in(config: Any) -> Geometry:
    """The geometry that a checkpoint's config (from JSON) describes; wav2vec2's where it says nothing."""
    if not isinstance(config, dict):
        return WAV2VEC2
    kernels: Any = config.get("conv_kernel")
    strides: Any = config.get("conv_stride")
    if not _are_counts(kernels) or not _are_counts(strides) or len(kernels) != len(strides):
        return WAV2VEC2
    if config.get("add_adapter"):
        layers, stride = config.get("num_adapter_layers", 3), config.get("adapter_stride", 2)
        if type(layers) is int and type(stride) is int and stride > 0:
            kernels, strides = [*kernels, *[1] * layers], [*strides, *[stride] * layers]
    return Geometry(tuple(kernels), tuple(strides))


def needed_frames(labels: Sequence[Any]) -> int:
    """Frames without which no path reads the labels."""
    return len(labels) + repeats(labels)


def repeats(labels: Sequence[Any]) -> int:
    """Labels that equal the one before them."""
    return sum(one == other for one, other in pairwise(labels))


class LabelCount(NamedTuple):
    """What one setting of training makes of transcripts and recordings.

    Attributes:
        decomposed: labels are jamo (NFD), else characters (NFC).
    """

    geometry: Geometry
    decomposed: bool

    def too_many(self, text: str, duration_s: float) -> str | None:
        """How a normalised transcript outruns its recording, for readers; None where it fits.

        Args:
            duration_s: of the recording; NaN where it is not known.
        """
        if duration_s != duration_s:
            return None
        labels = unicodedata.normalize("NFD" if self.decomposed else "NFC", text)
        twice, given = repeats(labels), self.geometry.frames(round(duration_s * SAMPLE_RATE_HZ))
        if len(labels) + twice <= given:
            return None
        said = f"{len(labels)} labels" + (f" and {twice} repeat{'s' * (twice > 1)}" if twice else "")
        return f"{said} need {len(labels) + twice} frames, the recording gives {given}"


def label_count(units: Units, encoder: str) -> LabelCount:
    """What `train_asr.vocabulary` and `train_asr.encoder` mean for the labels and frames of a row.

    The config of a Hub id that is not in the cache yet is taken to be wav2vec2's; nothing is fetched. So is a
    config that cannot be read: training says what is wrong with it.
    """
    decomposed = units == "jamo"
    if units == "checkpoint":
        symbols = _read(encoder, "vocab.json")
        decomposed = isinstance(symbols, dict) and _FIRST_JAMO in symbols
    return LabelCount(geometry_in(_read(encoder, "config.json")), decomposed)


def _read(encoder: str, name: str) -> Any:
    """A JSON file of a checkpoint, in its folder or the Hub's cache; None where there is none."""
    path: Path | None = Path(encoder) / name
    if not Path(encoder).is_dir():
        path = _cached(encoder, name)
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError):
        return None


def _cached(encoder: str, name: str) -> Path | None:
    asked = hub_name(encoder)
    if asked is None or "/" not in asked.repository:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(asked.repository, name, revision=asked.revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(type(v) is int and v > 0 for v in values)
