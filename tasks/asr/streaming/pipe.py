"""Samples from a pipe as they come: raw, or of a WAV file that may still be written. No command."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import soundfile
import soxr

from tasks.asr.recordings.clipping import Clipping
from tasks.asr.recordings.recording import Heard
from tasks.audio import faults
from tasks.audio.channels import Balance, chosen_note, to_mono
from tasks.audio.chunks import CHUNK, UNFINISHED, stated_bytes
from tasks.audio.kinds import kind_of
from tasks.audio.reader import RATES_HZ
from tasks.data.audio import SAMPLE_RATE_HZ
from tasks.errors import DataError

Audio = np.ndarray[Any, np.dtype[np.float32]]
_SUBTYPES = {(1, 8): "PCM_U8", (1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32", (3, 32): "FLOAT",
             (3, 64): "DOUBLE", (6, 8): "ALAW", (7, 8): "ULAW"}  # fmt: skip
_LONGEST_HEADER = 1 << 20  # no part of a header is as long: the file is not what it says
_QUIET = 1e-4  # -80 dBFS: below it a stream has said nothing yet


class Layout(NamedTuple):
    """How samples lie in bytes."""

    channels: int
    rate_hz: int
    subtype: str
    width: int
    endian: str = "LITTLE"


class RawSamples:
    """16-bit little-endian mono at 16 kHz."""

    def __init__(self, stream: IO[bytes], first: bytes, name: str, convert: str) -> None:
        self._stream, self._first, self._name, self._convert = stream, first, name, convert

    def blocks(self, clipping: Clipping | None) -> Iterator[Audio]:
        """The samples, 0.1 s at a time; raises `DataError` for half a sample at the end."""
        layout = Layout(1, SAMPLE_RATE_HZ, "PCM_16", 2)
        mono = _Mono(layout, Heard())
        rest = self._first
        while True:
            content = self._stream.read(max(2, SAMPLE_RATE_HZ // 5 - len(rest)))
            data = rest + content
            whole = len(data) // 2 * 2
            rest = data[whole:]
            yield mono.add(_floats(data[:whole], layout), clipping)
            if not content:
                break
        yield mono.end()
        if rest:
            raise _half_a_sample(self._name, len(rest), 2, self._convert)


class PipedWav:
    """A WAV file from a pipe, whose header was read up to its first sample.

    Attributes:
        taken: the bytes read so far, for somebody else to go on with.
        is_plain: whether it can be heard as it comes; else it is of a coding that needs a decoder.
    """

    def __init__(self, stream: IO[bytes], first: bytes, name: str) -> None:
        self._stream, self._name = stream, name
        self.taken = first
        self._layout, self._size = self._header()
        self.is_plain = self._layout is not None

    def _header(self) -> tuple[Layout | None, int]:
        order = ">" if self.taken[-12:-8] == b"RIFX" else "<"
        self._order: Literal["big", "little"] = "big" if order == ">" else "little"
        layout = None
        while len(head := self._stream.read(8)) == 8:
            self.taken += head
            tag, size = head[:4], struct.unpack(order + "I", head[4:])[0]
            if tag == b"data":
                return layout, size
            if size > _LONGEST_HEADER:
                return None, 0
            content = self._stream.read(size + size % 2)
            self.taken += content
            if tag == b"fmt " and len(content) >= 16:
                layout = _layout(content, order)
        self.taken += head
        return None, 0

    def blocks(self, clipping: Clipping | None, heard: Heard) -> Iterator[Audio]:
        """The samples, 0.1 s at a time.

        Raises `DataError` for less than the header promises, half a sample at the end, other samples behind.
        """
        assert self._layout is not None
        layout, mono = self._layout, _Mono(self._layout, heard)
        frame = layout.width * layout.channels
        per_read = frame * max(1, layout.rate_hz // 10)
        left = stated_bytes(self._size, 1)
        if left is None:
            heard.notes = (*heard.notes, UNFINISHED)
        stated, rest = left, b""
        while True:
            wanted = per_read - len(rest) if left is None else min(per_read - len(rest), left)
            content = self._stream.read(wanted) if wanted else b""
            left = None if left is None else left - len(content)
            data = rest + content
            whole = len(data) // frame * frame
            rest = data[whole:]
            if whole:
                yield mono.add(_floats(data[:whole], layout), clipping)
            if content and left != 0:
                continue
            if left == 0 and (more := self._behind(heard)) is not None:
                stated = left = more
                continue
            break
        yield mono.end()
        if left:
            how = f"{(stated or 0) - left} of {stated} bytes of samples"
            raise faults.truncated(self._name, how)
        if rest:
            raise _half_a_sample(self._name, len(rest), frame, "send whole samples")
        if not heard.frames:
            raise faults.no_samples(self._name)

    def _behind(self, heard: Heard) -> int | None:
        """Reads on behind the samples: how many bytes of them follow, in another chunk or another file.

        None for the end. Raises `DataError` for other recordings, and for what is no chunk.
        """
        head = self._stream.read(8)
        while len(head) == 8:
            if head[:1] == b"\0" and CHUNK.match(head[1:5]):  # the byte that fills an odd chunk
                head = head[1:] + self._stream.read(1)
            size = int.from_bytes(head[4:], self._order)
            if head[:4] in (b"RIFF", b"RIFX"):
                return self._next_file(head + self._stream.read(4), heard)
            if head[:4] == b"data":
                _note(heard, "holds its samples in more than one chunk: all were read")
                return size
            if not CHUNK.match(head) or size > _LONGEST_HEADER or kind_of(head) is not None:
                break
            self._stream.read(size)
            head = self._stream.read(8)
        self._require_no_sound(head)
        return None

    def _next_file(self, head: bytes, heard: Heard) -> int:
        """Reads the header of another WAV file; its bytes of samples."""
        self.taken, own = head, self._layout
        layout, size = self._header()
        if layout != own:
            raise faults.joined(self._name, "of other rates, channels or codings", 0)
        _note(heard, "holds recordings one behind the other: all were read")
        return stated_bytes(size, 1) or 1 << 62

    def _require_no_sound(self, head: bytes) -> None:
        """Reads to the end; text, tags and zeros are no sound."""
        head += self._stream.read(4096 - len(head))
        kind = kind_of(head)
        if kind is not None and kind.by and kind.name != "AC-3":
            raise faults.joined(self._name, f"({kind.name} behind WAV)", 0)
        printable = all(32 <= byte < 127 for byte in head[:4])
        count, anything, part = 0, False, head
        while part:
            count += len(part)
            anything = anything or any(part)
            if b"WAVEfmt " in part:
                raise faults.joined(self._name, "with something between them", 0)
            part = self._stream.read(1 << 16)
        if anything and not printable:
            raise faults.truncated(self._name, f"its header states {count} bytes less than there are")


def _note(heard: Heard, note: str) -> None:
    heard.notes = (*(n for n in heard.notes if n != note), note)


class _Mono:
    """From any layout to mono at 16 kHz, while it comes; channels are weighed over the first second."""

    def __init__(self, layout: Layout, heard: Heard) -> None:
        self._layout, self._heard = layout, heard
        self._balance = Balance(layout.channels, layout.rate_hz)
        self._waiting: list[Audio] = []
        self._loud = 0
        self._is_chosen = layout.channels == 1
        self._choice: int | None = None
        self._resampler = None
        if layout.rate_hz != SAMPLE_RATE_HZ:
            self._resampler = soxr.ResampleStream(
                layout.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ"
            )

    def add(self, samples: Audio, clipping: Clipping | None) -> Audio:
        """Takes samples (frames, channels), gives mono at 16 kHz; nothing while the channels are weighed."""
        if not np.isfinite(samples).all():
            raise faults.not_numbers("standard input")
        if clipping is not None:
            clipping.add(samples)
        self._heard.frames += len(samples)
        self._heard.rate_hz = self._layout.rate_hz
        if self._is_chosen:
            return self._resampled(to_mono(samples, self._choice), last=False)
        if not self._waiting and (not len(samples) or np.abs(samples).max() < _QUIET):
            return self._resampled(to_mono(samples, None), last=False)
        self._waiting.append(samples)
        self._balance.add(samples)
        self._loud += len(samples)
        return self._choose() if self._loud >= self._layout.rate_hz else np.zeros(0, np.float32)

    def end(self) -> Audio:
        """What is left."""
        waiting = self._choose() if self._waiting else np.zeros(0, np.float32)
        return np.concatenate([waiting, self._resampled(np.zeros(0, np.float32), last=True)])

    def _choose(self) -> Audio:
        self._choice, self._is_chosen = self._balance.choice, True
        self._heard.notes = (*self._heard.notes, *chosen_note(self._choice))
        samples, self._waiting = np.concatenate(self._waiting), []
        return self._resampled(to_mono(samples, self._choice), last=False)

    def _resampled(self, mono: Audio, *, last: bool) -> Audio:
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(np.ascontiguousarray(mono), last=last)
        return np.clip(mono, -1.0, 1.0)


def _layout(content: bytes, order: str) -> Layout | None:
    kind, channels, rate_hz, _, _, bits = struct.unpack(order + "HHIIHH", content[:16])
    if kind == 0xFFFE and len(content) >= 26:
        kind = struct.unpack(order + "H", content[24:26])[0]
    subtype = _SUBTYPES.get((kind, bits))
    if subtype is None or not 0 < channels <= 1024 or not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        return None
    return Layout(channels, rate_hz, subtype, bits // 8, "BIG" if order == ">" else "LITTLE")


def _floats(data: bytes, layout: Layout) -> Audio:
    """Samples (frames, channels), as libsndfile reads them from a file."""
    if layout.subtype == "PCM_16":
        order = ">" if layout.endian == "BIG" else "<"
        found: Audio = (np.frombuffer(data, f"{order}i2") / 32768.0).astype(np.float32)
        return found.reshape(-1, layout.channels)
    if not data:
        return np.zeros((0, layout.channels), np.float32)
    read: Audio = soundfile.read(
        io.BytesIO(data),
        dtype="float32",
        always_2d=True,
        format="RAW",
        samplerate=layout.rate_hz,
        channels=layout.channels,
        subtype=layout.subtype,
        endian=layout.endian,
    )[0]
    return read


def _half_a_sample(name: str, count: int, frame: int, next_step: str) -> DataError:
    return DataError(
        f"{name} ends with {count} bytes of a sample of {frame}", "samples must be whole", next_step
    )
