"""The grid of frames, windows that cover a recording, and where text is cut."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from tasks.asr.recordings.windows import measure_grid, pause_frame, plan_windows


def frames_of(kernels: Sequence[int], strides: Sequence[int]) -> Callable[[int], int]:
    def count(samples: int) -> int:
        for kernel, stride in zip(kernels, strides, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    return count


@pytest.mark.parametrize(
    ("kernels", "strides", "expected"),
    [
        ((16, 8, 4, 4), (10, 4, 4, 2), (320, 686)),
        ((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), (320, 400)),  # wav2vec2 and XLS-R
        ((10, 3, 3), (5, 2, 2), (20, 40)),
        ((800, 8), (400, 4), (1600, 3600)),
    ],
)
def test_the_grid_is_measured(
    kernels: Sequence[int], strides: Sequence[int], expected: tuple[int, int]
) -> None:
    counted = frames_of(kernels, strides)
    grid = measure_grid(counted)
    assert grid == expected
    assert all(grid.frames(samples) == counted(samples) for samples in range(0, 9_000, 7))


@pytest.mark.parametrize("overlap", [2, 5, 20])
def test_windows_cover_every_frame_once_with_context(overlap: int) -> None:
    longest = 50
    for frames in (1, 50, 51, 52, 99, 100, 101, 1_000, 1_234):
        windows = plan_windows(frames, longest, overlap)
        kept = [frame for w in windows for frame in range(w.keep_from, w.keep_to)]
        assert kept == list(range(frames))
        assert {w.end - w.first for w in windows} == {min(frames, longest)}
        for before, after in pairwise(windows):
            assert before.end - after.first >= overlap
            assert before.end - before.keep_to >= overlap // 2 <= after.keep_from - after.first
        assert windows[-1].end == frames


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("aaaaaaaaaa" "aa-|-aaaaa", 13),  # a space, between words
        ("aaaaaaaaaa" "a-|a-----a", 16),  # a long pause, though there is no space in it
        ("aaaaaaaaaa" "a|a--a---a", 11),  # short ones may be inside a word
        ("a|||||||||" "aaaa-aaaaa", 15),  # nothing better in the second half
        ("----------" "----------", 15),
    ],
)  # fmt: skip
def test_text_is_cut_where_a_word_ends(path: str, expected: int) -> None:
    logits = np.eye(3)[["-|a".index(symbol) for symbol in path]]
    assert pause_frame(logits, blank_id=0, space_id=1, longest=20, pause=4) == expected
