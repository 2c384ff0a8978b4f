"""Where a stream comes from: a file, standard input, a microphone; float32 at 16 kHz, 0.1 s at a time.

Standard input may be raw samples or anything that `tasks.audio.reader` reads, told apart by its first bytes.
Raw samples and WAV are heard as they come; any other container is stored first, since it may be read from its
end. No command.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from tasks.asr.recordings import recording
from tasks.asr.recordings.clipping import Clipping
from tasks.asr.recordings.recording import Heard
from tasks.asr.streaming.pipe import PipedWav, RawSamples
from tasks.audio import faults
from tasks.audio.kinds import SNIFFED, Kind, id3_bytes, kind_of
from tasks.audio.layout import first_frame
from tasks.audio.reader import open_audio
from tasks.data.audio import SAMPLE_RATE_HZ
from tasks.errors import DataError, MissingDependencyError

Audio = np.ndarray[Any, np.dtype[np.float32]]
BLOCK_SAMPLES = 1_600
STANDARD_INPUT = "standard input"
_CHANCE = ("AC-3", "SDS", "AAC (ADTS)", "JSON", "Monkey's Audio")  # magics that samples may begin with
_CONVERT = "pipe it through `ffmpeg -v error -i FILE -f s16le -ar 16000 -ac 1 -`"


def from_file(path: Path, clipping: Clipping | None = None, heard: Heard | None = None) -> Iterator[Audio]:
    """The samples of a recording, which is read as it is needed; `clipping` counts them as they come.

    `heard` is told what was put right. Raises `DataError` where it cannot be read.
    """
    with open_audio(path, str(path)):
        pass
    return _in_blocks(recording.blocks(path, str(path), clipping, heard))


def from_bytes(
    stream: IO[bytes], clipping: Clipping | None = None, heard: Heard | None = None
) -> Iterator[Audio]:
    """The samples of raw 16-bit little-endian mono at 16 kHz, or of audio of any format.

    `heard` is told what was put right. Raises `DataError` for what is no audio, for what is cut off, and for
    half a sample at the end.
    """
    heard = Heard() if heard is None else heard
    first = stream.read(12)
    if first[:4] in (b"RIFF", b"RIFX") and first[8:] == b"WAVE":
        wav = PipedWav(stream, first, STANDARD_INPUT)
        if wav.is_plain:
            return _in_blocks(wav.blocks(clipping, heard))
        return _stored(wav.taken, stream, clipping, heard)
    if not first:
        raise faults.empty(STANDARD_INPUT)
    first += stream.read(SNIFFED - len(first)) if len(first) == 12 else b""
    tag = id3_bytes(first)
    kind: Kind | None = None if tag else kind_of(first)
    if kind is not None and kind.name in _CHANCE:
        kind = None
    if kind is not None and kind.by == "":
        raise faults.unreadable(STANDARD_INPUT, f"it is {kind.name}", next_step=kind.next_step)
    is_cut = kind is None and first_frame(lambda at, count: first[at : at + count], 0, first) > 0
    if tag or kind is not None or is_cut:
        return _stored(first, stream, clipping, heard)
    return _in_blocks(RawSamples(stream, first, STANDARD_INPUT, _CONVERT).blocks(clipping))


def _stored(first: bytes, stream: IO[bytes], clipping: Clipping | None, heard: Heard) -> Iterator[Audio]:
    """The rest of the stream in a file of its own, read to its end; the file goes with the samples."""
    with tempfile.TemporaryDirectory(prefix="malgil-") as folder:
        path = Path(folder, "stdin")
        with path.open("wb") as copy:
            copy.write(first)
            shutil.copyfileobj(stream, copy)
        yield from _in_blocks(recording.blocks(path, STANDARD_INPUT, clipping, heard))


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
