"""The text of `malgil asr stream` on a terminal: rewritten in its place while it grows; ended by Ctrl-C.

A Hangul syllable takes two columns, and a text may take several rows: all of them are rewritten. No command.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import chop_cells

if TYPE_CHECKING:
    from tasks.asr.streaming.recogniser import Partial

_UP, _CLEAR, _DIM, _PLAIN = "\x1b[{}A", "\r\x1b[J", "\x1b[2m", "\x1b[0m"


class Screen:
    """Shows the growing text of a segment over itself; a final text stays, and the next one goes below.

    Args:
        terminal: where it is written.
        size: columns and lines of the terminal, asked for anew each time, for windows change.
    """

    def __init__(
        self, terminal: TextIO, size: Callable[[], os.terminal_size] = shutil.get_terminal_size
    ) -> None:
        self._terminal, self._size = terminal, size
        self._shown = ""  # since the last final text

    def show(self, partial: Partial) -> None:
        """Writes a partial over the one before it: committed text plain, tentative text grey."""
        columns, lines = self._size()
        above = len(chop_cells(self._shown, columns)) - 1 if self._shown else 0
        committed, tentative = partial.committed, partial.tentative
        if not partial.final:  # what has left the screen at its top cannot be rewritten
            rows = chop_cells(committed + tentative, columns)
            hidden = len("".join(rows[: max(0, len(rows) - lines)]))
            committed, tentative = committed[hidden:], tentative[max(0, hidden - len(committed)) :]
        back = (_UP.format(above) if above else "") + _CLEAR
        grey = f"{_DIM}{tentative}{_PLAIN}" if tentative else ""
        self._terminal.write(back + committed + grey + ("\n" if partial.final else ""))
        self._terminal.flush()
        self._shown = "" if partial.final else committed + tentative


class UntilInterrupted:
    """Blocks up to Ctrl-C, which then counts as the end: between two blocks, never in the middle of one.

    Iterating raises `KeyboardInterrupt` once it was pressed, at once while a block is waited for. A second
    Ctrl-C interrupts whatever is going on. For the main thread alone.
    """

    def __init__(self, blocks: Iterable[Any]) -> None:
        self._blocks = iter(blocks)
        self._waits = self._asked = False

    def __iter__(self) -> Iterator[Any]:
        before = signal.signal(signal.SIGINT, self._interrupted)
        try:
            while True:
                self._waits = True
                if self._asked:
                    raise KeyboardInterrupt
                try:
                    block = next(self._blocks)
                except StopIteration:
                    return
                finally:
                    self._waits = False
                yield block
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._asked = True
        if self._waits:
            raise KeyboardInterrupt
