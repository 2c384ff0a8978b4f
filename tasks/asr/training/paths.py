"""Whether CTC has a path for an example: labels and repeats against the frames of its samples. No torch.

Without one the loss is infinite, `ctc_loss` counts it as zero, and nothing is learned from the example. The
validation stage quarantines such rows by the same count (`tasks.data.ctc`); here it keeps augmentation from
making them, and counts those that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tasks.asr.training.augment import Example
from tasks.data.ctc import Geometry, geometry_in, needed_frames

_OF_GEOMETRY = ("conv_kernel", "conv_stride", "add_adapter", "num_adapter_layers", "adapter_stride")


class Paths:
    """Which examples of a training can be aligned.

    Args:
        config: of the model, which says how samples become frames.
        labels_of: label ids of the joined utterances `parts`.
    """

    def __init__(self, config: Any, labels_of: Callable[[tuple[int, ...]], list[int]]) -> None:
        self.geometry = geometry_of(config)
        self._labels_of = labels_of
        self._needed: dict[int, int] = {}

    def needed(self, parts: tuple[int, ...]) -> int:
        """Frames that the labels of the parts need."""
        if len(parts) > 1:
            return needed_frames(self._labels_of(parts))
        if parts[0] not in self._needed:
            self._needed[parts[0]] = needed_frames(self._labels_of(parts))
        return self._needed[parts[0]]

    def fit(self, parts: tuple[int, ...], samples: int) -> bool:
        """Whether the labels of `parts` can be read on so many samples."""
        return self.needed(parts) <= self.geometry.frames(samples)

    def without(self, plans: Iterable[tuple[Example, ...]]) -> int:
        """How many examples have no path."""
        return sum(not self.fit(example.parts, example.samples) for plan in plans for example in plan)


def geometry_of(config: Any) -> Geometry:
    """The convolutions of a model's config (transformers)."""
    values = {name: getattr(config, name, None) for name in _OF_GEOMETRY}
    return geometry_in({name: list(v) if isinstance(v, tuple) else v for name, v in values.items()})
