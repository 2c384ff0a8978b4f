"""The bytes of a file, by position, and views of them that libsndfile reads as if they were a file. No
command.

Small files are held, large ones read as they are needed; nothing is mapped into memory, so a file that
becomes shorter meanwhile is a short read and not a crash.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

_HELD = 4 << 20  # bytes: files up to this size are read once, whole
_STEP = 1 << 20

# Bytes as they are, those of the file from the first position to the second, or so many zeros.
Piece = bytes | tuple[int, int] | int


class Content:
    """A file opened for reading at any position. Close it, or use it in a `with`.

    Attributes:
        size: in bytes, when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._file).st_size
        self._held = os.pread(self._file, self.size, 0) if self.size <= _HELD else None

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, at: int, count: int) -> bytes:
        """Up to `count` bytes from position `at`."""
        if self._held is not None:
            return self._held[at : at + count]
        return os.pread(self._file, count, at)

    def until(self, stop: int) -> Content:
        """The same file as if it ended there; closed with this one."""
        shorter = copy.copy(self)
        shorter.size = min(self.size, stop)
        return shorter

    def sha256(self) -> str:
        """Hex SHA-256 of the whole file."""
        if self._held is not None:
            return hashlib.sha256(self._held).hexdigest()
        digest = hashlib.sha256()
        at = 0
        while part := self.read(at, _STEP):
            digest.update(part)
            at += len(part)
        return digest.hexdigest()

    def find(self, wanted: bytes, at: int, stop: int | None = None) -> int:
        """Position of the first occurrence from `at` on and before `stop`; -1 without."""
        stop = self.size if stop is None else stop
        if self._held is not None:
            return self._held.find(wanted, at, stop)
        while at < stop:
            part = self.read(at, min(_STEP + len(wanted) - 1, stop - at))
            if (found := part.find(wanted)) >= 0:
                return at + found
            at += _STEP
        return -1

    def is_zero(self, at: int, stop: int) -> bool:
        """Whether all bytes between are zero."""
        while at < stop:
            part = self.read(at, min(_STEP, stop - at))
            if not part or part.count(0) != len(part):
                return False
            at += len(part)
        return True


class View:
    """Pieces of a file one behind the other, as a file object that libsndfile can read."""

    def __init__(self, content: Content, pieces: Sequence[Piece]) -> None:
        self._content, self._at = content, 0
        self._pieces: list[tuple[int, int, Piece]] = []  # from, to (in the view), piece
        end = 0
        for piece in pieces:
            length = (
                piece
                if isinstance(piece, int)
                else len(piece)
                if isinstance(piece, bytes)
                else piece[1] - piece[0]
            )
            self._pieces.append((end, end + length, piece))
            end += length
        self.size = end

    def tell(self) -> int:
        """The position in the view."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes, all without a count."""
        count = self.size - self._at if count < 0 else count
        found = []
        for start, stop, piece in self._pieces:
            if count <= 0 or self._at < start:
                break
            if self._at >= stop:
                continue
            inside, length = self._at - start, min(count, stop - self._at)
            if isinstance(piece, bytes):
                part = piece[inside : inside + length]
            elif isinstance(piece, int):
                part = bytes(length)
            else:
                part = self._content.read(piece[0] + inside, length)
            found.append(part)
            self._at += len(part)
            count -= len(part)
            if len(part) < length:  # the file has become shorter
                break
        return found[0] if len(found) == 1 else b"".join(found)

    def readinto(self, buffer: memoryview) -> int:
        """Fills a buffer; the number of bytes written."""
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def write(self, _: bytes) -> int:
        """Never: a view is read."""
        raise OSError("a view is not written")
