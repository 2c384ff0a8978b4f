"""WAV in its four forms (RIFF, RIFX, RF64, BW64), walked chunk by chunk. No command."""

from __future__ import annotations

import struct
from typing import NamedTuple

from tasks.audio import faults
from tasks.audio.chunks import CHUNK, Data, chunks_end, cut_before, ending, put, stated_bytes, to_the_end
from tasks.audio.content import Content, Piece
from tasks.audio.layout import Part
from tasks.audio.mpeg import walk_mp3

_MPEG = (0x50, 0x55)  # the codings of fmt whose samples are a stream of MPEG frames


class _Head(NamedTuple):
    """What lies before the samples.

    Attributes:
        order: of bytes, as `struct` writes it.
        found: where the samples begin.
        size: of the data chunk, as written.
        riff: size of the whole, as written.
        coding, frame: of the samples, bytes of all channels at one time.
        large: where the chunk of 64-bit sizes begins (0: there is none), and the size that it states.
        only: the chunks to keep of those before the samples, where one of odd length lacks its last byte.
    """

    order: str
    found: int
    size: int
    riff: int
    coding: int
    frame: int
    large: tuple[int, int]
    only: bytes


def walk_wav(content: Content, start: int, name: str) -> Part:
    """RIFF, RIFX, RF64 and BW64."""
    kind = "WAV" if content.read(start, 3) == b"RIF" else "RF64"
    head = _head(content, start, name, kind)
    found, order, rest = head.found, head.order, content.size - head.found
    is_large = head.large[0] and head.size == 0xFFFFFFFF
    stated = stated_bytes(head.large[1], rest, 64) if is_large else stated_bytes(head.size, rest)
    if stated is None and not head.size and chunks_end(content, found, order) == content.size:
        stated = 0
    said: tuple[str, ...] = ()
    if stated is not None and rest < stated <= rest + found - start and start + head.riff + 8 == content.size:
        # the length of the whole is true: whoever wrote it counted the header among the samples
        said = (f"states {stated} bytes of samples, which counts its header, and holds {rest}",)
        stated = rest
    data = Data(found, stated, head.frame)
    stop, fault, notes = ending(content, data)
    end, more = stop, list[tuple[int, int]]()
    if not fault and stated is not None:
        end, more, fault = _chunks_behind(content, stop, order)
        if end == stop and not fault:
            stop, fault, notes = to_the_end(content, data, stop)
            end = stop
        elif not fault:
            fault = cut_before(content, data, stop)
    if more:
        notes = (*notes, f"holds its samples in {1 + len(more)} chunks: all were read")
    length = stop - found + sum(last - first for first, last in more)
    if end == stop and length % 2 and content.read(stop, 1) == b"\0":
        end += 1  # the byte that fills an odd chunk
    notes = (*said, *notes)
    if head.coding in _MPEG and not fault:
        inner = walk_mp3(content.until(stop), found, name)
        fault = inner.fault or fault
        return Part(kind, start, end, inner.pieces, inner.stated, inner.slack, fault, (*notes, *inner.notes))
    pieces: tuple[Piece, ...] = ((start, end if end == stop + length % 2 else stop),)
    if stated != length or head.large[0] or said or head.only:
        pieces = (_true_header(content, start, head, length), (found, stop), *more)
    return Part(kind, start, end, pieces, None, 0, fault, notes)


def _head(content: Content, start: int, name: str, kind: str) -> _Head:
    order = ">" if content.read(start, 4) == b"RIFX" else "<"
    riff = struct.unpack(order + "I", content.read(start + 4, 4))[0]
    at, coding, frame, large, only, is_odd = start + 12, 1, 1, (0, 0), b"", False
    while len(head := content.read(at, 8)) == 8:
        tag, size = head[:4], struct.unpack(order + "I", head[4:])[0]
        if tag == b"ds64":
            large = (at + 8, struct.unpack("<Q", content.read(at + 16, 8).ljust(8, b"\0"))[0])
        if tag == b"fmt ":
            only = content.read(at, 8 + size + size % 2)
            coding, frame = struct.unpack(order + "H10xH", content.read(at + 8, 14).ljust(14, b"\0"))
        if tag == b"data":
            return _Head(order, at + 8, size, riff, coding, max(1, frame), large, only if is_odd else b"")
        if not CHUNK.match(tag):
            break
        at += 8 + size
        if size % 2:
            lacks = content.read(at, 1) != b"\0" and CHUNK.match(content.read(at, 4)) is not None
            is_odd, at = is_odd or lacks, at + (not lacks)  # the byte that fills an odd chunk
    raise faults.unreadable(name, f"a {kind} file without a data chunk")


def _chunks_behind(content: Content, at: int, order: str) -> tuple[int, list[tuple[int, int]], str]:
    """Where the chunks behind the samples end, further samples among them, and what is missing of those."""
    more: list[tuple[int, int]] = []
    end = chunks_end(content, at, order)
    while at < end:
        begin = at + at % 2 if CHUNK.match(content.read(at + at % 2, 4)) else at
        tag, size = content.read(begin, 4), struct.unpack(order + "I", content.read(begin + 4, 4))[0]
        at = begin + 8 + size
        if tag == b"data" and size:
            more.append((begin + 8, at))
    for begin in {end, end + end % 2}:
        if content.read(begin, 4) == b"data" and len(head := content.read(begin + 4, 4)) == 4:
            size, rest = struct.unpack(order + "I", head)[0], content.size - begin - 8
            return end, more, f"{rest} of {size} bytes of samples in its data chunk {2 + len(more)}"
    return end, more, ""


def _true_header(content: Content, start: int, head: _Head, length: int) -> bytes:
    """The header with the sizes that are true."""
    header = bytearray(content.read(start, head.found - start))
    if head.only and not head.large[0]:
        header = header[:12] + head.only + header[-8:]
    size = len(header)
    put(header, 4, head.order + "I", min(size + length - 8, 0xFFFFFFFF))
    put(header, size - 4, head.order + "I", min(length, 0xFFFFFFFF))
    if head.large[0]:
        put(header, 4, head.order + "I", 0xFFFFFFFF)
        put(header, size - 4, head.order + "I", 0xFFFFFFFF)
        at = head.large[0] - start
        header[at : at + 24] = struct.pack("<QQQ", size + length - 8, length, length // head.frame)
    return bytes(header)


WALKS = {"WAV": walk_wav, "RF64": walk_wav}
