"""Recordings of any length to text with times: windows, joined logits, decoding, alignment.

    for result in transcribe(sources, load_acoustic(folder, "onnx", 60.0, use_search=True)): ...

A recording up to `WINDOW_S` goes through the recogniser whole and says what `OnnxRecogniser` and
`TorchRecogniser` say. A longer one goes in overlapping windows, normalised by the level of the whole
recording; their logits are cut in the middle of the overlaps and joined. The joined logits are decoded
and aligned from pause to pause, so memory does not grow with the recording, apart from its text. Where
there is more than one core, the next recordings are read and the last ones decoded while the recogniser
computes; what comes out does not depend on it. The command is `malgil asr transcribe`
(flows/asr_commands.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from tasks.asr.checkpoints.vocabulary import SPACE, SPECIAL
from tasks.asr.decoding.align import Spoken, align, best_path, log_posteriors, spell
from tasks.asr.engines.acoustic import Acoustic
from tasks.asr.engines.onnx_model import check_audio
from tasks.asr.recordings.formats import Interval, Transcription
from tasks.asr.recordings.in_order import Job, finished
from tasks.asr.recordings.recording import Recording, stated_seconds, stretches, survey
from tasks.asr.recordings.sources import Failure, Source
from tasks.asr.recordings.windows import Window, pause_frame, plan_windows
from tasks.asr.threads import thread_count
from tasks.asr.training.augment import normalised
from tasks.data.audio import SAMPLE_RATE_HZ
from tasks.errors import DataError, MalgilError, ModelError, explain_os_error
from tasks.progress import Progress

Audio = np.ndarray[Any, np.dtype[np.float32]]
Logits = np.ndarray[Any, np.dtype[np.float32]]
WINDOW_S = 20.0  # a little longer than the longest example of the training
OVERLAP_S = 4.0  # two seconds of context on both sides of a cut
_PAUSE_S = 0.5  # a stretch without characters that ends a word, space or not
_SILENT_PEAK = 8 / 32768  # -72 dBFS: digital silence, dither included; nothing is asked of the model
_NEVER = -30.0  # logit of what cannot be, against 0 for what must
_AHEAD = 2  # pools handed over and not yet decoded: the second one fills the workers as the first runs dry


def transcribe(
    sources: Iterable[Source | Failure],
    acoustic: Acoustic,
    window_s: float = WINDOW_S,
    overlap_s: float = OVERLAP_S,
    progress: Progress | None = None,
) -> Iterator[Transcription | Failure]:
    """One result per source, in their order, as soon as it and those before it are known.

    Args:
        window_s: the longest audio that the model sees at once, in seconds.
        overlap_s: of two windows, in seconds.
        progress: told of every second of audio done.
    """
    runner = _Runner(acoustic, window_s, overlap_s, progress)
    try:
        for source in sources:
            runner.add(source)
            yield from runner.finished()
        runner.run()
        while runner.running:
            runner.take()
            yield from runner.finished()
        yield from runner.finished()
    finally:
        runner.close()


def total_seconds(sources: Iterable[Source | Failure]) -> int:
    """Seconds of audio as far as it can be told without decoding; unreadable ones count as nothing."""
    seconds = 0.0
    for source in sources:
        if isinstance(source, Source):
            with suppress(MalgilError, OSError):
                seconds += stated_seconds(source.path, source.name)
    return int(seconds)


class _Running(NamedTuple):
    """A pool of windows whose logits are being computed: those of the windows that are `heard`."""

    pool: list[tuple[_Job, Window, Audio]]
    heard: list[bool]
    logits: Callable[[], list[Logits]]


class _Runner:
    """Collects windows of several recordings, runs them together and hands the logits back, in order."""

    def __init__(
        self, acoustic: Acoustic, window_s: float, overlap_s: float, progress: Progress | None
    ) -> None:
        self.acoustic, self.progress = acoustic, progress
        self.longest = acoustic.grid.frames(round(window_s * SAMPLE_RATE_HZ))
        self.overlap = round(overlap_s * SAMPLE_RATE_HZ / acoustic.grid.stride)
        self.jobs: deque[Job[Transcription] | Failure] = deque()
        self.pool: list[tuple[_Job, Window, Audio]] = []
        self.pool_s = self.done_s = 0.0
        self.running: deque[_Running] = deque()
        self._beside = ThreadPoolExecutor(_AHEAD, "malgil-asr-pool") if thread_count() > 1 else None

    def close(self) -> None:
        """Lets go of what still waits to run."""
        if self._beside:
            self._beside.shutdown(wait=False, cancel_futures=True)

    def add(self, source: Source | Failure) -> None:
        """Reads a recording; runs the pool whenever it is full."""
        if isinstance(source, Failure):
            self.jobs.append(source)
            return
        try:
            # one sample less than gives a frame more than a window holds
            recording = survey(source.path, source.name, self.acoustic.grid.samples(self.longest + 1) - 1)
        except (DataError, OSError) as error:
            self.jobs.append(Failure(source.name, _explained(error, source.name)))
            return
        job = _Job(recording, self.acoustic, self.longest)
        self.jobs.append(job)
        try:
            for window, audio in self._windows(job):
                self.pool.append((job, window, audio))
                self.pool_s += len(audio) / SAMPLE_RATE_HZ
                if self.pool_s >= self.acoustic.pool_seconds:
                    self.run()
        except (DataError, OSError) as error:
            job.error = _explained(error, source.name)

    def _windows(self, job: _Job) -> Iterator[tuple[Window, Audio]]:
        grid, recording = self.acoustic.grid, job.recording
        windows = plan_windows(job.frames, self.longest, self.overlap)
        if job.audio is not None:
            yield windows[0], job.audio
            return
        starts = [window.first * grid.stride for window in windows]
        ranges = ((start, start + grid.samples(self.longest)) for start in starts)
        yield from zip(windows, stretches(recording, ranges), strict=True)

    def run(self) -> None:
        """Hands the pool over, and takes back the oldest one where enough are running."""
        pool, self.pool, self.pool_s = self.pool, [], 0.0
        heard = [bool(np.abs(audio).max() > _SILENT_PEAK) for _, _, audio in pool]
        inputs = [
            job.prepared(audio) for (job, _, audio), is_heard in zip(pool, heard, strict=True) if is_heard
        ]
        if self._beside:
            self.running.append(
                _Running(pool, heard, self._beside.submit(self.acoustic.logits, inputs).result)
            )
        else:
            found = self.acoustic.logits(inputs)
            self.running.append(_Running(pool, heard, lambda: found))
        while len(self.running) >= (_AHEAD if self._beside else 1):
            self.take()

    def take(self) -> None:
        """Logits of every window of the oldest pool, each to its recording."""
        pool, heard, computed = self.running.popleft()
        logits = iter(computed())
        for (job, window, _), is_heard in zip(pool, heard, strict=True):
            own = next(logits) if is_heard else self._blank(window)
            try:
                if job.error is None:
                    job.accept(window, own)
            except DataError as error:
                job.error = error
            self._tell((window.keep_to - window.keep_from) * self.acoustic.grid.stride / SAMPLE_RATE_HZ)

    def _blank(self, window: Window) -> Logits:
        """The logits of silence."""
        vocabulary = self.acoustic.vocabulary
        logits = np.full((window.end - window.first, len(vocabulary.symbols)), _NEVER, np.float32)
        logits[:, vocabulary.blank_id] = 0.0
        return logits

    def _tell(self, seconds: float) -> None:
        before, self.done_s = self.done_s, self.done_s + seconds
        if self.progress:
            self.progress.advance(int(self.done_s) - int(before))

    def finished(self) -> Iterator[Transcription | Failure]:
        """Results at the head of the line that are complete."""
        return finished(self.jobs)


class _Job:
    """A recording on its way: takes the logits of its windows in their order, decodes from pause to pause."""

    def __init__(self, recording: Recording, acoustic: Acoustic, longest: int) -> None:
        self.recording, self.acoustic, self.longest = recording, acoustic, longest
        # all of a short recording, None of a long one
        self.audio = None if recording.audio is None else _long_enough(recording.audio, acoustic.grid.field)
        self.frames = acoustic.grid.frames(recording.samples if self.audio is None else len(self.audio))
        self.error: MalgilError | None = None
        self.taken = 0  # frames decoded or waiting
        self.pending: Logits = np.zeros((0, len(acoustic.vocabulary.symbols)), np.float32)
        self.pending_from = 0  # frame of the recording where `pending` begins
        self.greedy: list[str] = []
        self.words: list[Interval] = []
        self.characters: list[Interval] = []

    @property
    def complete(self) -> bool:
        """All frames are decoded, or never will be."""
        return self.error is not None or self.taken == self.frames

    def prepared(self, audio: Audio) -> Audio:
        """The audio of a window as the model wants it; a long recording has one level throughout."""
        if not self.acoustic.normalise:
            return audio
        if self.audio is not None:
            return normalised(audio)
        deviation = np.sqrt(self.recording.variance + 1e-7)  # as `normalised` does
        scaled: Audio = ((audio - self.recording.mean) / deviation).astype(np.float32)
        return scaled

    def accept(self, window: Window, logits: Logits) -> None:
        """Takes what the window keeps; decodes what is long enough, or the rest after the last window."""
        if len(logits) != window.end - window.first:
            raise _off_the_grid(len(logits), window, self.acoustic)
        kept = logits[window.keep_from - window.first : window.keep_to - window.first]
        self.pending = np.concatenate([self.pending, kept])
        vocabulary, grid = self.acoustic.vocabulary, self.acoustic.grid
        pause = round(_PAUSE_S * SAMPLE_RATE_HZ / grid.stride)
        space_id = vocabulary.ids.get(SPACE)
        while len(self.pending) > self.longest:
            self._decode(pause_frame(self.pending, vocabulary.blank_id, space_id, self.longest, pause))
        if window.keep_to == self.frames:
            self._decode(len(self.pending))
        self.taken = window.keep_to

    def _decode(self, frames: int) -> None:
        """Text and times of the first `frames` that wait."""
        logits, self.pending = self.pending[:frames], self.pending[frames:]
        vocabulary, search = self.acoustic.vocabulary, self.acoustic.search
        labels, spans = best_path(logits, vocabulary.blank_id)
        self.greedy.append(vocabulary.decode(labels))
        if search:
            labels = search.labels(logits)
            spans = align(log_posteriors(logits), labels, vocabulary.blank_id)
        symbols = (vocabulary.symbols[label] for label in labels)
        texts = [" " if s == SPACE else "" if s in SPECIAL else s for s in symbols]
        for word in spell(texts, spans):
            characters = [self._interval(character) for character in word]
            self.characters += characters
            self.words.append(
                Interval(
                    "".join(character.text for character in characters),
                    characters[0].start_s,
                    characters[-1].end_s,
                    min(character.confidence for character in characters),
                )
            )
        self.pending_from += frames

    def _interval(self, spoken: Spoken) -> Interval:
        start_s, end_s = (
            min(self.acoustic.grid.start_s(self.pending_from + frame), self.recording.duration_s)
            for frame in (spoken.start, spoken.end)
        )
        return Interval(spoken.text, start_s, end_s, spoken.confidence)

    def result(self) -> Transcription | Failure:
        """What came of it."""
        if self.error is not None:
            return Failure(self.recording.name, self.error)
        sure = [character.confidence for character in self.characters]
        return Transcription(
            path=self.recording.name,
            duration_s=self.recording.duration_s,
            text=" ".join(word.text for word in self.words),
            greedy=" ".join(text for text in self.greedy if text),
            words=tuple(self.words),
            characters=tuple(self.characters),
            confidence=sum(sure) / len(sure) if sure else None,
            model_sha256=self.acoustic.sha256,
            clipped_share=self.recording.clipped_share,
            notes=self.recording.notes,
        )


def _long_enough(audio: Audio, field: int) -> Audio:
    """With zeros behind a clip that is too short for a frame."""
    audio = check_audio(audio if len(audio) else np.zeros(1, np.float32))
    return audio if len(audio) >= field else np.pad(audio, (0, field - len(audio)))


def _off_the_grid(frames: int, window: Window, acoustic: Acoustic) -> ModelError:
    return ModelError(
        f"the recogniser gave {frames} frames for {window.end - window.first}",
        f"its frames must lie on one grid {tuple(acoustic.grid)}",
        "use a wav2vec2-style CTC model with plain strided convolutions",
    )


def _explained(error: DataError | OSError, name: str) -> MalgilError:
    return explain_os_error(error, name) if isinstance(error, OSError) else error
