"""What libsndfile does not know, decoded by ffmpeg where it is installed, through a pipe. No command.

ffmpeg conceals what it cannot decode and says so on standard error; whatever it says there is a fault here,
so that no half of a recording passes for the whole.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from tasks.audio import faults
from tasks.audio.content import Content
from tasks.audio.layout import after_tags

INSTALL = "install ffmpeg (`apt-get install ffmpeg`, `brew install ffmpeg`) and start the same command again"
_BETTER = "convert it elsewhere (`ffmpeg -i FILE OTHER.wav`), or " + INSTALL
_CUT = re.compile(
    r"partial file|prematurely|truncat|end of file|moov atom not found|incomplete", re.IGNORECASE
)
_BOXES = frozenset(
    b"ftyp moov mdat moof mfra free skip wide uuid meta sidx ssix styp emsg prft pdin udta pnot".split()
)
_ASF = b"0&\xb2u"  # begins the header of a file
_AMR_BYTES = {b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)}
_AMR_BYTES[b"#!AMR-WB\n"] = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


def require(name: str, container: str) -> str:
    """The program. Raises `AudioError`, which names it, where there is none."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise faults.unreadable(
            name, f"it is {container}, and ffmpeg is not installed", "ffmpeg reads this format", _BETTER
        )
    return program


class Decoding:
    """A run of ffmpeg.

    Attributes:
        rate_hz: of its first audio stream.
        channels: likewise.
    """

    def __init__(self, path: Path, name: str, container: str) -> None:
        self._name, self._container = name, container
        command = [require(name, container), "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
        command += ["-i", f"file:{path}", "-map", "0:a:0", "-vn", "-c:a", "pcm_f32le", "-f", "wav", "-"]
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the run
        try:
            self._run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._said)
        except OSError as error:
            self._said.close()
            raise faults.unreadable(
                name,
                f"it is {container}, and ffmpeg does not start: {error.strerror}",
                "ffmpeg reads it",
                _BETTER,
            ) from error
        try:
            self.channels, self.rate_hz = self._header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the run, wherever it is."""
        if self._run.poll() is None:
            self._run.kill()
        self._run.wait()
        if self._run.stdout:
            self._run.stdout.close()
        self._said.close()

    def blocks(self, frames: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        """Samples (frames, channels); raises `AudioError` at the end where ffmpeg was not content."""
        assert self._run.stdout is not None
        width = 4 * self.channels
        while data := self._run.stdout.read(frames * width):
            yield np.frombuffer(data[: len(data) // width * width], "<f4").reshape(-1, self.channels)
        self._judge()

    def _header(self) -> tuple[int, int]:
        """Channels and rate, read up to the first sample of what ffmpeg writes."""
        assert self._run.stdout is not None
        stream, layout = self._run.stdout, (0, 0)
        if len(stream.read(12)) == 12:
            while len(head := stream.read(8)) == 8:
                tag, size = head[:4], struct.unpack("<I", head[4:])[0]
                if tag == b"data" and all(layout):
                    return layout
                body = stream.read(min(size + size % 2, 1 << 20))
                if tag == b"fmt " and len(body) >= 16:
                    layout = struct.unpack("<HI", body[2:8])
        self._judge()
        raise faults.no_samples(self._name)

    def _judge(self) -> None:
        """Raises what ffmpeg says against the file."""
        code = self._run.wait()
        self._said.seek(0)
        lines = self._said.read(1 << 16).decode("utf-8", "replace").split("\n")
        said = [re.sub(r"^\[[^\]]*\] *", "", line).strip() for line in lines if line.strip()]
        if not code and not said:
            return
        if any("matches no streams" in line for line in said):
            raise faults.unreadable(self._name, f"it is {self._container} without an audio stream")
        if any(_CUT.search(line) for line in said):
            reason = next(line for line in said if _CUT.search(line))
            raise faults.truncated(self._name, f"ffmpeg says of this {self._container}: {reason}")
        reason = said[0] if said else f"exit code {code}"
        raise faults.unreadable(self._name, f"ffmpeg says of this {self._container}: {reason}")


def require_whole(content: Content, start: int, name: str, container: str) -> tuple[str, ...]:
    """What there is to say of the end of such a file.

    Raises `AudioError` for what ffmpeg conceals: a last part that is cut, a second file behind.
    """
    at, seen = start, 0
    if container == "AAC (ADTS)":
        while len(head := content.read(at, 7)) == 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
            at += max(7, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5)
        if (rest := content.size - after_tags(content, at)) > 0:
            return (f"ends with {rest} bytes that are no AAC frames",)
    elif container == "AMR":
        magic = next((m for m in _AMR_BYTES if content.read(start, len(m)) == m), b"")
        at += len(magic)
        sizes = _AMR_BYTES.get(magic)
        while sizes and (head := content.read(at, 1)):
            if content.read(at, len(magic)) == magic:
                raise faults.joined(name, "of which the first alone would be read", at)
            at += sizes[head[0] >> 3 & 15]
    elif container == "MP4 or M4A":
        return _require_boxes(content, start, name)
    elif container == "WMA (ASF)":
        while len(head := content.read(at, 24)) == 24 and any(head):
            size = int.from_bytes(head[16:], "little")
            seen = _require_first(head[:4] == _ASF, seen, at, name)
            at += size if size >= 24 else content.size - at
    _require_end(content, at, name)
    return ()


def _require_boxes(content: Content, start: int, name: str) -> tuple[str, ...]:
    """As `require_whole`: the boxes of an MP4 file, and what programs append that is none."""
    at, seen, known = start, 0, set[bytes]()
    while len(head := content.read(at, 16)) >= 8 and any(head):
        if head[4:8] not in _BOXES and {b"moov"} < known:
            rest = content.size - after_tags(content, at)
            return (f"ends with {rest} bytes that are no audio, left out",) if rest else ()
        known.add(head[4:8])
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size or content.size - at
        seen = _require_first(head[4:8] == b"ftyp", seen, at, name)
        at += max(8, size)
    _require_end(content, at, name)
    return ()


def _require_end(content: Content, at: int, name: str) -> None:
    if at > content.size:
        raise faults.truncated(
            name, f"its last part ends {at - content.size} bytes behind the end of the file"
        )


def _require_first(is_start: bool, seen: int, at: int, name: str) -> int:
    if is_start and seen:
        raise faults.joined(name, "of which the first alone would be read", at)
    return seen + is_start
