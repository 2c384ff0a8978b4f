"""Arithmetic of long recordings: the grid of frames, overlapping windows, where they and the text are cut.

A window starts on a whole stride, so that its frame `j` is frame `first + j` of the recording. Pure
functions; no files, no model, no command.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tasks.data.audio import SAMPLE_RATE_HZ

Array = np.ndarray[Any, Any]
_FIRST_PROBE = 800  # samples; 50 ms give at least one frame in every wav2vec2-style encoder


class Grid(NamedTuple):
    """Frame `j` sees the samples from `j * stride` on, `field` of them (the receptive field)."""

    stride: int
    field: int

    def frames(self, samples: int) -> int:
        """Frames that so many samples give."""
        return 0 if samples < self.field else (samples - self.field) // self.stride + 1

    def samples(self, frames: int) -> int:
        """The fewest samples that give so many frames (at least one)."""
        return (frames - 1) * self.stride + self.field

    def start_s(self, frame: int) -> float:
        """Where a frame's own stretch of one stride begins, around the middle of what it sees, in seconds."""
        return (frame * self.stride + (self.field - self.stride) / 2) / SAMPLE_RATE_HZ


class Window(NamedTuple):
    """Frames `first` to `end` go through the model; those from `keep_from` to `keep_to` are taken."""

    first: int
    end: int
    keep_from: int
    keep_to: int


def measure_grid(frames_of: Callable[[int], int]) -> Grid:
    """The grid of an encoder, from the number of frames that it gives for a number of samples.

    Unpadded convolutions in a row give floor((samples - field) / stride) + 1, so the two lengths at which
    a frame is added say both.
    """
    frames = frames_of(_FIRST_PROBE)
    second = _first_length(frames_of, frames + 1, _FIRST_PROBE)
    third = _first_length(frames_of, frames + 2, second)
    stride = third - second
    return Grid(stride, second - frames * stride)


def _first_length(frames_of: Callable[[int], int], frames: int, below: int) -> int:
    """The fewest samples that give `frames`; `below` give fewer."""
    above = 2 * below
    while frames_of(above) < frames:
        below, above = above, 2 * above
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if frames_of(middle) < frames else (below, middle)
    return above


def plan_windows(frames: int, longest: int, overlap: int) -> list[Window]:
    """Windows of `longest` frames, all of that length, which overlap by at least `overlap`.

    What they keep meets in the middle of each overlap and covers every frame once. Few frames are one
    window.
    """
    if frames <= longest:
        return [Window(0, frames, 0, frames)]
    count = -(-(frames - overlap) // (longest - overlap))
    starts = [index * (frames - longest) // (count - 1) for index in range(count)]
    cuts = [0, *((a + longest + b) // 2 for a, b in pairwise(starts)), frames]
    return [
        Window(start, start + longest, cuts[index], cuts[index + 1]) for index, start in enumerate(starts)
    ]


def pause_frame(logits: Array, blank_id: int, space_id: int | None, longest: int, pause: int) -> int:
    """Where to cut logits (frames, vocabulary), for decoding: a frame in the second half of `longest`.

    The middle of the longest run without a character that is a word's end (it holds a space) or lasts for
    `pause` frames; without one, the frame that is surest to be blank, be it inside a word.
    """
    half = longest // 2
    late = logits[half:longest]
    best = late.argmax(axis=-1)
    quiet = np.concatenate(([False], (best == blank_id) | (best == space_id), [False]))
    edges = np.flatnonzero(quiet[1:] != quiet[:-1]).reshape(-1, 2)  # (runs, start and end)
    fit = [(a, b) for a, b in edges.tolist() if b - a >= pause or space_id in best[a:b]]
    if not fit:
        others = np.delete(late, blank_id, axis=-1).max(axis=-1)
        return half + int((late[:, blank_id] - others).argmax()) + 1
    start, end = max(fit, key=lambda run: run[1] - run[0])
    return half + (start + end) // 2
