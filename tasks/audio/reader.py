"""The one reader of audio: any container, told by its content, decoded to its end and held to its promise.

    with open_audio(path, name) as file:
        for block in file.blocks():          # float32 (frames, channels), as the file has them
            ...
        file.notes                           # what was put right on the way

Nothing is believed that a header or a name says of lengths. What is missing is an `AudioError`, what was put
right is a note; there is no third way. Used by ingestion, validation, preparation, `transcribe`, `embed` and
`stream`. No command.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from tasks.audio import chunks, faults, ffmpeg, mpeg, riff, streams
from tasks.audio.channels import Balance, chosen_note
from tasks.audio.content import Content, View
from tasks.audio.layout import Part, after_tags, parts

Samples = np.ndarray[Any, np.dtype[np.float32]]
BLOCK_FRAMES = 1 << 16  # of the file, at its own rate
RATES_HZ = (1_000, 768_000)
_MOST_VALUES = 1 << 22  # of a block, whatever the number of channels
_UNKNOWN = 1 << 62
_UNKNOWN_CODING = re.compile(
    "unsupported|unimplemented|not implemented|unknown|malformed 'fmt", re.IGNORECASE
)
_WALKS = {**riff.WALKS, **chunks.WALKS, **streams.WALKS, **mpeg.WALKS}


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # the package has no types
    """Read from its beginning to its end: neither held to its own estimate of its length nor repositioned."""

    def seekable(self) -> bool:
        return False


class AudioFile:
    """An audio file opened for reading; use it in a `with`.

    Attributes:
        name: what messages call it.
        container: "WAV", "FLAC", "MP4 or M4A", ...
        rate_hz, channels: of its samples.
        notes: what was put right, each a clause whose subject is the file ("states no length ...").
        content: its bytes.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.content = Content(path)
        self._decoding: ffmpeg.Decoding | None = None
        self._opened: _Forward | None = None
        self._parts: list[Part] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file and of ffmpeg."""
        self.content.close()
        if self._opened is not None:
            self._opened.close()
        if self._decoding:
            self._decoding.close()

    def _open(self) -> None:
        if not self.content.size:
            raise faults.empty(self.name)
        try:
            kind, self._parts, self.notes = parts(self.content, self.name, _WALKS)
        except (struct.error, ValueError, IndexError, OverflowError, MemoryError) as error:
            raise faults.unreadable(self.name, "its header is damaged") from error
        self.container = kind.name
        for part in self._parts:
            if part.fault:
                where = f" (recording {self._parts.index(part) + 1})" if len(self._parts) > 1 else ""
                raise faults.truncated(self.name, part.fault + where)
            self.notes = (*self.notes, *part.notes)
        if self._parts:
            try:
                self._opened = self._sound(self._parts[0])
            except faults.AudioError as error:
                # a coding that libsndfile does not know, in a file of true lengths: ffmpeg may know it
                is_true = (
                    len(self._parts) == 1
                    and not self._parts[0].notes
                    and _UNKNOWN_CODING.search(error.detail)
                )
                if kind.name != "Ogg" and not is_true:
                    raise
                self._parts = []
        if self._opened is None:
            start = after_tags(self.content, 0)
            self.notes += ffmpeg.require_whole(self.content, start, self.name, kind.name)
            self._decoding = ffmpeg.Decoding(self.path, self.name, kind.name)
            self.rate_hz, self.channels = self._decoding.rate_hz, self._decoding.channels
            self.notes = (*self.notes, f"is {kind.name}, decoded by ffmpeg")
        else:
            self.rate_hz, self.channels = self._opened.samplerate, self._opened.channels
        if not RATES_HZ[0] <= self.rate_hz <= RATES_HZ[1] or self.channels < 1:
            rule = f"must be {RATES_HZ[0]} to {RATES_HZ[1]} Hz"
            detail = f"has a rate of {self.rate_hz} Hz"
            raise faults.AudioError("unreadable", self.name, detail, rule, faults.AGAIN)
        self._require_one_layout()

    def _require_one_layout(self) -> None:
        if len(self._parts) < 2:
            return
        for part in self._parts[1:]:
            with self._sound(part) as sound:
                own = sound.samplerate, sound.channels
            if own != (self.rate_hz, self.channels):
                ways = " and ".join(
                    f"{hz} Hz with {n} channels" for hz, n in ((self.rate_hz, self.channels), own)
                )
                raise faults.joined(self.name, f"({ways})", part.start)
        self.notes = (*self.notes, f"holds {len(self._parts)} recordings one behind the other: all were read")

    def _sound(self, part: Part) -> _Forward:
        is_whole = part.pieces == ((0, self.content.size),)
        try:
            if is_whole:  # without a call of Python for every few kilobytes
                return _Forward(os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), closefd=True)
            return _Forward(View(self.content, part.pieces))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise faults.unreadable(self.name, f"{part.kind}: {_reason(error)}") from error

    def stated(self) -> int | None:
        """Samples per channel that the file's structure gives without decoding; None where it gives none."""
        total = 0
        for part in self._parts:
            if part.stated and not part.slack:
                total += part.stated
                continue
            if part.slack and part.notes:  # an index that is not true
                return None
            if part is self._parts[0] and self._opened is not None:
                frames = self._opened.frames
            else:
                with self._sound(part) as sound:
                    frames = sound.frames
            if frames >= _UNKNOWN:
                return None
            total += frames
        return total if self._parts else None

    def blocks(self, frames: int = BLOCK_FRAMES) -> Iterator[Samples]:
        """All samples from the beginning, float32 (frames, channels), at most `frames` at a time.

        May be called again.

        Raises:
            AudioError: fewer samples than promised, damaged, not numbers, or none at all.
        """
        frames = max(1, min(frames, _MOST_VALUES // self.channels))
        count = 0
        for block in self._decoded(frames):
            if not np.isfinite(block).all():
                raise faults.not_numbers(self.name)
            count += len(block)
            yield block
        if not count:
            raise faults.no_samples(self.name)

    def _decoded(self, frames: int) -> Iterator[Samples]:
        if not self._parts:
            decoding, self._decoding = self._decoding, None
            decoding = decoding or ffmpeg.Decoding(self.path, self.name, self.container)
            try:
                yield from decoding.blocks(frames)
            finally:
                decoding.close()
            return
        for part in self._parts:
            sound, self._opened = self._opened, None
            with sound or self._sound(part) as opened:
                yield from self._decoded_part(part, opened, frames)

    def _decoded_part(self, part: Part, sound: _Forward, frames: int) -> Iterator[Samples]:
        decoded = 0
        # libsndfile gives no more than this; asked for more it would fill the rest with zeros, and behind the
        # last FLAC frame look for another, and take a tag for one that is damaged
        most = part.stated if part.stated and not part.slack else sound.frames
        promised = part.stated - part.slack if part.stated else 0 if most >= _UNKNOWN else most
        try:
            while wanted := min(frames, most - decoded):
                if not len(block := sound.read(wanted, dtype="float32", always_2d=True)):
                    break
                decoded += len(block)
                yield block
        except (soundfile.LibsndfileError, RuntimeError) as error:
            if part.kind == "FLAC" and "sync" in str(error):
                before = min(decoded + frames, part.stated or decoded + frames)
                of = f" of {part.stated}" if part.stated else ""
                how = f"its decoder loses its place before sample {before}{of}"
                raise faults.truncated(self.name, how) from error
            raise faults.unreadable(self.name, f"{part.kind}: {_reason(error)}") from error
        if decoded < promised:
            raise faults.truncated(self.name, f"{decoded} of {promised} samples")


class Inspected(NamedTuple):
    """What a file holds, decoded to its end.

    `samples` per channel; `choice` is the channel to take for mono, None for the mean; `notes` as of
    `AudioFile`.
    """

    container: str
    samples: int
    rate_hz: int
    channels: int
    choice: int | None
    notes: tuple[str, ...]


def open_audio(path: Path, name: str | None = None) -> AudioFile:
    """Opens a file that should be audio.

    Raises:
        AudioError: it is missing, empty, not audio, cut off, or of a format that nothing here decodes.
    """
    shown = str(path) if name is None else name
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            why = "it is a folder" if path.is_dir() else "it is a pipe or a device"
            step = "name a file, or pipe it into a command that takes `-`"
            raise faults.unreadable(shown, why, "must be a regular file", step)
        return AudioFile(path, shown)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise faults.missing(shown) from error


def inspect(path: Path, name: str | None = None) -> Inspected:
    """Decodes a file to its end. Raises `AudioError` as `open_audio` and `AudioFile.blocks`."""
    with open_audio(path, name) as file:
        balance, samples = Balance(file.channels, file.rate_hz), 0
        for block in file.blocks():
            samples += len(block)
            balance.add(block)
        notes = (*file.notes, *chosen_note(balance.choice))
        return Inspected(file.container, samples, file.rate_hz, file.channels, balance.choice, notes)


def choose_channel(file: AudioFile) -> int | None:
    """Decodes a file of several channels once to know which to take; None for the mean. Notes the choice."""
    if file.channels < 2:
        return None
    balance = Balance(file.channels, file.rate_hz)
    for block in file.blocks():
        balance.add(block)
    note = chosen_note(balance.choice)
    file.notes = (*(n for n in file.notes if n not in note), *note)
    return balance.choice


def _reason(error: Exception) -> str:
    reason = str(error).rpartition("Error : ")[2].rpartition(">: ")[2].rpartition("': ")[2]
    return " ".join(reason.split()).rstrip(".")
