"""Samples in, partial texts out: a stream cut into segments by silence, whose committed text never changes.

    recogniser = StreamingRecognizer.load(Path("build/asr/checkpoint"))
    for samples in microphone:                      # float32, 16 kHz, mono, of any length
        for partial in recogniser.feed(samples):
            print(partial.committed, partial.tentative)
    print(recogniser.finish().text)

Without an n-gram model a syllable is committed as soon as nothing can join it. With one, the whole segment
is tentative (and greedy) until its end, where the beam search hears it and commits its text. No command;
`malgil asr stream` is the one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from tasks.asr.checkpoints.checkpoint import SPACE, Vocabulary, load_checkpoint, use_threads
from tasks.asr.decoding import language_model
from tasks.asr.decoding.decode import BeamSearch
from tasks.asr.decoding.word_search import make_search
from tasks.asr.recordings.windows import Grid, pause_frame
from tasks.asr.streaming.cached import CachedEncoder
from tasks.asr.streaming.shape import shape_of
from tasks.asr.streaming.text import GrowingText, best_labels
from tasks.asr.streaming.windowed import WindowedEncoder, WindowShape
from tasks.errors import DataError

Audio = np.ndarray[Any, np.dtype[np.float32]]
Logits = np.ndarray[Any, np.dtype[np.float32]]
Mode = Literal["auto", "cached", "windowed"]
SILENCE_S = 0.8  # of silence that end a segment
LONGEST_SEGMENT_S = 20.0  # a segment without such a silence is cut, so that memory stays bounded
_BEFORE_SPEECH_S = 0.3  # of silence kept before the first character of a segment, for the search
_PAUSE_S = 0.2
_SHORTEST_SAMPLES = 800  # as for whole utterances: below 50 ms there is no frame


class StreamEncoder(Protocol):
    """Samples to logits, chunk by chunk, for one stream; `CachedEncoder` and `WindowedEncoder`."""

    mode: str
    grid: Grid
    latency_s: float

    def accept(self, audio: Audio) -> list[Logits]:
        """Logits (frames, vocabulary) of the chunks that the samples complete."""

    def finish(self) -> list[Logits]:
        """Logits of the frames left over."""


@dataclass(frozen=True)
class Segment:
    """What was said between two silences; times in seconds from the start of the stream, text in NFC."""

    start_s: float
    end_s: float
    text: str
    greedy: str


@dataclass(frozen=True)
class Partial:
    """The text of a segment so far.

    Attributes:
        segment: number of the segment, from 0.
        committed: stays: every later partial of the segment begins with it.
        tentative: follows it and may change.
        final: nothing more comes for this segment.
        start_s, end_s: of what has been heard of it, in seconds.
        heard_s: of the stream when this was known, in seconds.
    """

    segment: int
    committed: str
    tentative: str
    final: bool
    start_s: float
    end_s: float
    heard_s: float

    @property
    def text(self) -> str:
        """Committed and tentative text."""
        return self.committed + self.tentative


@dataclass(frozen=True)
class Final:
    """All segments of a stream that has ended; `partials` are those that its end gave."""

    segments: tuple[Segment, ...]
    partials: tuple[Partial, ...]

    @property
    def text(self) -> str:
        """The segments' texts, with a space between them."""
        return " ".join(segment.text for segment in self.segments if segment.text)


class StreamingRecognizer:
    """One stream. For the next one take a new recogniser.

    Args:
        encoder: logits of the stream; it must be fresh.
        vocabulary: symbols of the labels.
        search: hears each segment once more at its end; None: the greedy text is final.
        silence_s: silence that ends a segment, in seconds.
        longest_s: a longer segment is cut, in seconds.
    """

    def __init__(
        self,
        encoder: StreamEncoder,
        vocabulary: Vocabulary,
        search: BeamSearch | None = None,
        silence_s: float = SILENCE_S,
        longest_s: float = LONGEST_SEGMENT_S,
    ) -> None:
        if not 0.1 <= silence_s <= longest_s / 2:
            raise DataError(
                f"silence_s = {silence_s}",
                f"must be at least 0.1 and at most half of the longest segment ({longest_s} s)",
                "correct it",
            )
        self.encoder = encoder
        self.vocabulary = vocabulary
        self._search = search
        per_s = 16_000 / encoder.grid.stride
        self._silence, self._longest = round(silence_s * per_s), round(longest_s * per_s)
        self._lead, self._pause = round(_BEFORE_SPEECH_S * per_s), round(_PAUSE_S * per_s)
        self._samples = 0
        self._frames = 0  # of the stream, in segments that are closed or in `_logits`
        self._logits: list[Logits] = []  # of the segment; kept for the search alone
        self._text = GrowingText(vocabulary)
        self._segments: list[Segment] = []
        self._shown = ("", "")
        self._ended = False

    @classmethod
    def load(
        cls,
        folder: Path,
        mode: Mode = "auto",
        use_search: bool = True,
        silence_s: float = SILENCE_S,
        window: WindowShape | None = None,
    ) -> StreamingRecognizer:
        """A recogniser on the checkpoint in `folder`, with its n-gram model where there is one.

        `auto` is cached where the checkpoint can, else windowed. Raises `ModelError` for a folder without
        a checkpoint, and for a cached stream through one that was not fine-tuned in chunks.
        """
        use_threads()
        checkpoint = load_checkpoint(folder)
        cached = mode == "cached" or (mode == "auto" and shape_of(checkpoint.model) is not None)
        encoder: StreamEncoder = (
            CachedEncoder(checkpoint) if cached else WindowedEncoder(checkpoint, window or WindowShape())
        )
        arpa = language_model.read(folder) if use_search else None
        search = make_search(arpa, checkpoint.vocabulary) if arpa else None
        return cls(encoder, checkpoint.vocabulary, search, silence_s)

    def feed(self, samples: Audio) -> list[Partial]:
        """Takes the next samples (float32, 16 kHz, mono, any number of them); says what is new.

        Raises `DataError` for samples of another type or shape, for NaN, and after `finish`.
        """
        self._check(samples)
        self._samples += len(samples)
        return [p for logits in self.encoder.accept(samples) for p in self._hear(logits)]

    def finish(self) -> Final:
        """Ends the stream: hears what is left and closes the last segment. Raises `DataError` when ended."""
        self._check(np.zeros(0, np.float32))
        partials: list[Partial] = []
        if 0 < self._samples < _SHORTEST_SAMPLES:
            partials += self.feed(np.zeros(_SHORTEST_SAMPLES - self._samples, np.float32))
        self._ended = True
        if self._samples:
            partials += [p for logits in self.encoder.finish() for p in self._hear(logits)]
        if self._text.first is not None:
            partials.append(self._close())
        return Final(tuple(self._segments), tuple(partials))

    def _check(self, samples: Audio) -> None:
        if self._ended:
            raise DataError(
                "samples for a stream that has ended", "finish() ends it", "take a new StreamingRecognizer"
            )
        kind = getattr(samples, "dtype", type(samples).__name__)
        if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
            raise DataError(
                f"samples of type {kind} and shape {getattr(samples, 'shape', '–')}",
                "must be float32 of shape (samples,): 16 kHz, mono, from -1 to 1",
                "divide int16 samples by 32768; average the channels",
            )
        if not np.isfinite(samples).all():
            raise DataError(
                "samples that are not numbers (NaN or infinite)", "must be finite", "look at their source"
            )

    def _hear(self, logits: Logits) -> Iterator[Partial]:
        """Goes through the frames of a chunk; says what it changed."""
        for start, label in enumerate(best_labels(logits)):
            self._text.add(label, self._frames)
            self._frames += 1
            if self._search:
                self._logits.append(logits[start : start + 1])
            if self._text.first is None:
                del self._logits[: -self._lead]
            elif self._text.quiet >= self._silence:
                yield self._close()
        if self._text.first is not None and self._frames - self._text.first >= self._longest:
            yield self._cut()
        shown = self._split()
        if shown != self._shown:
            self._shown = shown
            yield self._partial(*shown, final=False)

    def _split(self) -> tuple[str, str]:
        """Committed and tentative text of the segment."""
        committed, tentative = self._text.split()
        return ("", committed + tentative) if self._search else (committed, tentative)

    def _close(self) -> Partial:
        """Ends the segment with all that was heard of it."""
        greedy = "".join(self._text.split())
        text = self._search.text(np.concatenate(self._logits)) if self._search else greedy
        partial = self._end(text, greedy)
        self._text, self._logits = GrowingText(self.vocabulary), []
        return partial

    def _cut(self) -> Partial:
        """Ends a segment that is too long, where nothing is torn apart, and goes on with the rest of it."""
        if not self._search:
            greedy = self._text.split()[0]
            partial = self._end(greedy, greedy)
            self._text.drop_settled()
            self._text.first = self._text.last
            return partial
        logits = np.concatenate(self._logits)
        space = self.vocabulary.ids.get(SPACE)
        at = pause_frame(logits, self.vocabulary.blank_id, space, len(logits), self._pause)
        first = self._frames - len(logits)
        self._text = self._read(logits[:at], first)
        greedy = "".join(self._text.split())
        partial = self._end(self._search.text(logits[:at]), greedy)
        self._text = self._read(logits[at:], first + at)
        self._logits = [logits[i : i + 1] for i in range(at, len(logits))]
        return partial

    def _read(self, logits: Logits, first: int) -> GrowingText:
        text = GrowingText(self.vocabulary)
        for offset, label in enumerate(best_labels(logits)):
            text.add(label, first + offset)
        return text

    def _end(self, text: str, greedy: str) -> Partial:
        partial = self._partial(text, "", final=True)
        self._segments.append(Segment(partial.start_s, partial.end_s, text, greedy))
        self._shown = ("", "")
        return partial

    def _partial(self, committed: str, tentative: str, final: bool) -> Partial:
        grid = self.encoder.grid
        start, end = self._text.first or 0, (self._text.last or 0) + 1
        return Partial(
            segment=len(self._segments),
            committed=committed,
            tentative=tentative,
            final=final,
            start_s=round(grid.start_s(start), 3),
            end_s=round(grid.start_s(end), 3),
            heard_s=round(self._samples / 16_000, 3),
        )
