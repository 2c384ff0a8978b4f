"""Settings of a fine-tuning of a few steps, for the recogniser's tests."""

from pathlib import Path

from tasks.params import load
from tasks.settings import TrainAsr


def tiny_settings(encoder: Path, **changes: object) -> TrainAsr:
    """The shipped settings of a fine-tuning, made small, with `changes`."""
    small = {
        "encoder": str(encoder),
        "seed": 3,
        "joined_share": 0.3,
        "max_joined": 3,
        "max_silence_s": 0.3,
        "noise_share": 0.5,
    }
    shipped = load(Path(__file__).parents[1] / "params.yaml").train_asr
    return TrainAsr(**{**shipped.model_dump(), **small, **changes})
