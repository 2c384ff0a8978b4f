"""Where the rows of a training come from, one at a time: planned beforehand. See also `curriculum.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tasks.llm.packing import Pack


class Feed:
    """Hands out packed rows and counts them; its state can be saved between two rows.

    Attributes:
        asks: whether it wants to be told how hard each row was.
        unit: of `place`.
        rows, tokens, targets, examples: handed out so far; `targets` are completion tokens.
    """

    asks, unit = False, "steps"

    def __init__(self) -> None:
        self.rows = self.tokens = self.targets = self.examples = 0

    @property
    def place(self) -> tuple[int, int]:
        """How far it is, and how far it goes, in units of its own: what the learning rate follows."""
        raise NotImplementedError

    def take(self) -> Pack | None:
        """The next row; None at the end."""
        row = self._next()
        if row is not None:
            self.rows += 1
            self.tokens += len(row.ids)
            self.targets += len(row.targets)
            self.examples += len(row.segments)
        return row

    def tell(self, row: Pack, losses: Tensor) -> None:
        """How hard the last row was: the loss of each of its targets."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        names = ("rows", "tokens", "targets", "examples")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state."""
        for name, value in state.items():
            setattr(self, name, value)

    def _next(self) -> Pack | None:
        raise NotImplementedError


class Planned(Feed):
    """Rows that are known from the start."""

    def __init__(self, rows: Sequence[Pack]) -> None:
        super().__init__()
        self._rows = rows

    @property
    def place(self) -> tuple[int, int]:
        return self.rows, len(self._rows)

    def _next(self) -> Pack | None:
        return self._rows[self.rows] if self.rows < len(self._rows) else None
