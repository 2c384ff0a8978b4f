"""Progress of anything that takes more than two seconds.

On a terminal a rich bar; in a log a line every few seconds with rate and time left. Shown numbers are
whatever the caller passes (`loss=`, `cer=`).
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

LOG_EVERY_S = 5.0
Item = TypeVar("Item")
log = logging.getLogger("malgil.progress")


class Progress:
    """Counts towards `total` units of `what` and says so.

    Example:
        with Progress("train asr", total=1500, unit="steps") as progress:
            progress.advance(loss=0.3)
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "", start: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, start
        self._start_at = start
        self._began = self._said = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took_s = time.monotonic() - self._began
        if kind is None and took_s >= 2.0:
            self._say(f"{self.what}: {self.done} {self.unit} in {took_s:.1f} s", last=True)

    def advance(self, n: int = 1, **shown: float) -> None:
        """Adds `n` units; says so if the last word is more than a few seconds old."""
        self.done += n
        now = time.monotonic()
        wait_s = 0.2 if sys.stderr.isatty() else LOG_EVERY_S
        if now - self._said >= wait_s:
            self._said = now
            self._say(self._line(now, shown))

    def _line(self, now: float, shown: dict[str, float]) -> str:
        rate = (self.done - self._start_at) / max(now - self._began, 1e-9)
        parts = [f"{self.what}: {self.done}"]
        if self.total:
            left_s = (self.total - self.done) / max(rate, 1e-9)
            parts[0] += f"/{self.total} {self.unit}".rstrip()
            parts.append(f"{self.done / self.total:.0%}, {left_s:.0f} s left")
        else:
            parts[0] += f" {self.unit}".rstrip()
        parts += [f"{name} {value:.4g}" for name, value in shown.items()]
        return ", ".join(parts)

    def _say(self, line: str, last: bool = False) -> None:
        if sys.stderr.isatty():
            end = "\n" if last else ""
            sys.stderr.write(f"\r\x1b[2K{line}{end}")
            sys.stderr.flush()
        else:
            log.info(line)


def track(items: Iterable[Item], what: str, total: int | None = None, unit: str = "") -> Iterator[Item]:
    """Iterates with progress; `total` is taken from `len(items)` where it has one."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
