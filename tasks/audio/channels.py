"""From several channels to one: their mean, unless they cancel; and from any rate to 16 kHz. No command.

Channels of opposite sign (a plug or a balanced line wired the wrong way round) sum to nothing. Where the mean
has far less power than the channels have, the loudest channel is taken instead, for the whole recording.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Samples = np.ndarray[Any, np.dtype[np.float32]]
# Of the power that the mean of independent channels has (1/channels of theirs): less than this share of it is
# cancellation. Two channels at -0.6 of one another lie above, at -0.7 below.
_CANCELS = 0.2
_SHARE = 0.1  # of the power of a recording; where less cancels, the mean stays
_QUIET = 1e-9  # power of a second that says nothing: -90 dBFS


class Balance:
    """Measures a recording of several channels, second by second; constants are no power."""

    def __init__(self, channels: int, rate_hz: int) -> None:
        self._channels, self._window = channels, max(1, rate_hz)
        self._sums = np.zeros((channels + 1, 2))  # of the channels and their mean: sum, sum of squares
        self._count = 0
        self._power = np.zeros(channels)
        self._cancelled = 0.0

    def add(self, block: Samples) -> None:
        """Takes samples (frames, channels)."""
        if self._channels < 2:
            return
        while len(block):
            part, block = (
                block[: self._window - self._count],
                block[self._window - self._count :],
            )
            exact = part.astype(np.float64)
            own = np.concatenate([exact, exact.mean(axis=1, keepdims=True)], axis=1)
            self._sums[:, 0] += own.sum(axis=0)
            self._sums[:, 1] += np.einsum("ij,ij->j", own, own)
            self._count += len(part)
            if self._count == self._window:
                self._close()

    def _close(self) -> None:
        power, cancelled = self._window_power()
        self._power += power
        self._cancelled += cancelled
        self._sums[:], self._count = 0.0, 0

    def _window_power(self) -> tuple[Any, float]:
        """Energy of each channel in the window that is open, and how much of it the mean loses."""
        if not self._count:
            return np.zeros(self._channels), 0.0
        energy = self._sums[:, 1] - self._sums[:, 0] ** 2 / self._count
        energy = np.where(
            energy > self._sums[:, 1] * 1e-12, energy, 0.0
        )  # what rounding leaves of a constant
        channels, mean = energy[:-1], float(energy[-1])
        total = float(channels.mean())
        is_lost = total > _QUIET * self._count and mean < _CANCELS / self._channels * total
        return channels, total if is_lost else 0.0

    @property
    def choice(self) -> int | None:
        """The channel to take, counted from 0; None for the mean of all."""
        power, cancelled = self._window_power()
        power, cancelled = self._power + power, self._cancelled + cancelled
        total = float(power.mean()) if self._channels else 0.0
        return int(np.argmax(power)) if total and cancelled > _SHARE * total else None


def chosen_note(choice: int | None) -> tuple[str, ...]:
    """What to say of a choice: a clause whose subject is the file, or nothing."""
    if choice is None:
        return ()
    return (
        f"has channels of opposite sign, which cancel: channel {choice + 1}, the loudest, was taken alone",
    )


def to_mono(block: Samples, choice: int | None) -> Samples:
    """(frames, channels) to (frames,): the mean, or the channel chosen."""
    if block.shape[1] == 1:
        return block[:, 0]
    mono: Samples = block.mean(axis=1) if choice is None else np.ascontiguousarray(block[:, choice])
    return mono
