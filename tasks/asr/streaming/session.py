"""A stream from its first sample to its last, at the pace of speech or as fast as it goes; and its delays.

No command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import numpy as np

from tasks.asr.streaming.recogniser import Final, Partial, StreamingRecognizer

Audio = np.ndarray[Any, np.dtype[np.float32]]


@dataclass
class Delays:
    """Seconds from a sound to its text, computing included.

    Attributes:
        first_partial_s: from the first character of each segment to the first text of the segment.
        final_s: from the last character of each segment that silence ended to its final text.
        end_s: from the last sample of the stream to its final text.
        compute_s: of the whole stream.
        audio_s: length of the stream.
    """

    first_partial_s: list[float] = field(default_factory=list)
    final_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    compute_s: float = 0.0
    audio_s: float = 0.0

    def summary(self) -> dict[str, float | None]:
        """Means over segments (None without any), and the rest as it is."""
        return {
            "first_partial_s": round(mean(self.first_partial_s), 3) if self.first_partial_s else None,
            "final_s": round(mean(self.final_s), 3) if self.final_s else None,
            "end_s": round(self.end_s, 3),
            "audio_s": round(self.audio_s, 3),
            "times_real_time": round(self.audio_s / max(self.compute_s, 1e-9), 1),
        }


def run_stream(
    recogniser: StreamingRecognizer,
    blocks: Iterable[Audio],
    show: Callable[[Partial], None],
    realtime: bool = False,
) -> tuple[Final, Delays]:
    """Feeds all blocks and ends the stream; every partial is shown when it is known.

    With `realtime`, no sample is fed before its time. A block that raises `KeyboardInterrupt` ends the
    stream as its last one does.
    """
    delays = Delays()
    begun: set[int] = set()
    began = time.monotonic()
    try:
        for block in blocks:
            delays.audio_s += len(block) / 16_000
            if realtime:
                time.sleep(max(0.0, began + delays.audio_s - time.monotonic()))
            started = time.perf_counter()
            partials = recogniser.feed(block)
            spent = time.perf_counter() - started
            delays.compute_s += spent
            for partial in partials:
                if partial.segment not in begun:
                    begun.add(partial.segment)
                    delays.first_partial_s.append(partial.heard_s - partial.start_s + spent)
                if partial.final:
                    delays.final_s.append(partial.heard_s - partial.end_s + spent)
                show(partial)
    except KeyboardInterrupt:  # how a microphone is switched off
        pass
    started = time.perf_counter()
    final = recogniser.finish()
    delays.end_s = time.perf_counter() - started
    delays.compute_s += delays.end_s
    for partial in final.partials:
        show(partial)
    return final, delays
