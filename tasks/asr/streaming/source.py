"""Where a stream comes from: a file, standard input, a microphone; float32 at 16 kHz, 0.1 s at a time.

No command.
"""

from __future__ import annotations

import queue
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import soxr

from tasks.asr.recordings import recording
from tasks.asr.recordings.clipping import Clipping
from tasks.data.audio import SAMPLE_RATE_HZ
from tasks.errors import DataError, MissingDependencyError

Audio = np.ndarray[Any, np.dtype[np.float32]]
BLOCK_SAMPLES = 1_600
_CONVERT = "pipe it through `ffmpeg -v error -i FILE -f s16le -ar 16000 -ac 1 -`"
_OTHER_FORMATS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"FORM": "AIFF"}


class _Layout(NamedTuple):
    channels: int
    rate_hz: int


def from_file(path: Path, clipping: Clipping | None = None) -> Iterator[Audio]:
    """The samples of a recording, which is read as it is needed; `clipping` counts them as they come.

    Raises `DataError` where it cannot be read.
    """
    recording.read_header(path, str(path))
    return _in_blocks(recording.blocks(path, str(path), clipping))


def from_bytes(stream: IO[bytes], clipping: Clipping | None = None) -> Iterator[Audio]:
    """The samples of raw 16-bit little-endian mono at 16 kHz, or of a WAV file of 16 bits, as they come.

    Raises `DataError` for another format, and for half a sample at the end.
    """
    first = stream.read(12)
    for magic, name in _OTHER_FORMATS.items():
        if first.startswith(magic):
            raise DataError(
                f"standard input is {name}", "must be raw s16le at 16 kHz or a WAV file of 16 bits", _CONVERT
            )
    if first[:4] == b"RIFF" and first[8:] == b"WAVE":
        return _in_blocks(_samples(stream, b"", _wav_layout(stream), clipping))
    return _in_blocks(_samples(stream, first, _Layout(1, SAMPLE_RATE_HZ), clipping))


def from_microphone(clipping: Clipping | None = None) -> Iterator[Audio]:
    """What the default microphone hears, without end.

    Raises `MissingDependencyError` without the package sounddevice, `DataError` without a microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, its PortAudio library is not
        raise MissingDependencyError(
            f"a microphone needs the package sounddevice ({error})",
            "it is not part of Malgil",
            "`pip install sounddevice` (on Linux also `apt-get install libportaudio2`), or stream a file",
        ) from error
    heard: queue.Queue[Audio] = queue.Queue()
    try:
        microphone = sounddevice.InputStream(
            samplerate=SAMPLE_RATE_HZ,
            channels=1,
            dtype="float32",
            blocksize=BLOCK_SAMPLES,
            callback=lambda block, *_: heard.put(block[:, 0].copy()),
        )
    except sounddevice.PortAudioError as error:
        raise DataError(
            f"no microphone ({error})",
            "one must be connected",
            "connect one (`python -m sounddevice` lists what is seen), or stream a file",
        ) from error
    return _heard(microphone, heard, clipping)


def _heard(microphone: Any, blocks: queue.Queue[Audio], clipping: Clipping | None) -> Iterator[Audio]:
    with microphone:
        while True:
            block = blocks.get()
            if clipping is not None:
                clipping.add(block)
            yield block


def _wav_layout(stream: IO[bytes]) -> _Layout:
    """Reads up to the first sample of a WAV file. Raises `DataError` unless it has 16 bits."""
    layout = None
    while len(head := stream.read(8)) == 8:
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data" and layout is not None:
            return layout
        if size > 1 << 20:  # no header part is as long: the file is not what it says
            break
        content = stream.read(size + size % 2)
        if name == b"fmt " and len(content) >= 16:
            kind, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            if kind not in (1, 0xFFFE) or bits != 16 or not channels or not 1_000 <= rate_hz <= 768_000:
                raise DataError(
                    f"the WAV file on standard input has format {kind}, {bits} bits and {rate_hz} Hz",
                    "must be PCM of 16 bits",
                    _CONVERT,
                )
            layout = _Layout(channels, rate_hz)
    raise DataError("the WAV file on standard input has no samples", "must be whole", _CONVERT)


def _samples(stream: IO[bytes], first: bytes, layout: _Layout, clipping: Clipping | None) -> Iterator[Audio]:
    """Mono at 16 kHz from 16-bit samples."""
    frame = 2 * layout.channels
    resampler = None
    if layout.rate_hz != SAMPLE_RATE_HZ:
        resampler = soxr.ResampleStream(layout.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    per_read = frame * (layout.rate_hz // 10)
    rest = first
    while True:
        content = stream.read(per_read - len(rest))
        data = rest + content
        whole = len(data) // frame * frame
        rest = data[whole:]
        samples = (np.frombuffer(data[:whole], "<i2") / 32768.0).astype(np.float32)
        if clipping is not None:
            clipping.add(samples)
        audio = samples.reshape(-1, layout.channels).mean(axis=1)
        if resampler is not None:
            audio = resampler.resample_chunk(audio, last=not content)
        yield np.clip(audio, -1.0, 1.0)
        if not content:
            break
    if rest:
        raise DataError(
            f"standard input ends with {len(rest)} bytes of a sample of {frame}",
            "samples must be whole",
            _CONVERT,
        )


def _in_blocks(pieces: Iterable[Audio]) -> Iterator[Audio]:
    """The same samples, `BLOCK_SAMPLES` at a time; the last block may be shorter."""
    held = np.zeros(0, np.float32)
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) >= BLOCK_SAMPLES:
            yield held[:BLOCK_SAMPLES]
            held = held[BLOCK_SAMPLES:]
    if len(held):
        yield held
