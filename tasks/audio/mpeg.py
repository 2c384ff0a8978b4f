"""MPEG audio (MP3, MP2), walked frame by frame: frames have sizes, and an index may state their number. No
command.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tasks.audio import faults
from tasks.audio.content import Content, Piece
from tasks.audio.kinds import Frame, id3_bytes, is_text, mpeg_frame
from tasks.audio.layout import Part, after_tags, alike, first_frame, next_recording

_HOLE = 1 << 15  # zeros at the end: fewer are padding, more a download that was never finished
_ODD = 256  # bytes behind the last frame that are no recording


class _Walked(NamedTuple):
    """MP3 frames: where the first begins, where the last ends, how many, what is missing, what was left out
    (`odd` bytes)."""

    first: int
    stop: int
    frames: int
    fault: str = ""
    notes: tuple[str, ...] = ()
    odd: int = 0


def walk_mp3(content: Content, start: int, name: str) -> Part:
    """MPEG audio: frames counted, the index in the first one held against the count."""
    frame = mpeg_frame(content.read(start, 4))
    if frame is None:
        raise faults.unreadable(name, "an MP3 file without frames")
    index, flags_at = _index(content, start, frame)
    walked = _walk_frames(content, start + frame.size if index else start, frame, name)
    count, notes, end = walked.frames, walked.notes, walked.stop + walked.odd
    fault, stated = walked.fault, _stated(content, index, flags_at)
    # some encoders count the index too, and players allow for it
    if stated is not None and stated > count + 1 and not fault:
        fault = f"{count} of {stated} frames"
    if walked.odd and stated is None:
        notes = (f"{notes[0]} (it states no length: whether more is missing is not known)",)
    if not fault and (zeros := _zeros(content, walked.stop)) > frame.size and stated is None:
        notes = (*notes, f"ends with {zeros} zeros and states no length")
        if zeros > _HOLE:
            fault = f"{zeros} zeros follow its {count} frames"
    if not index:
        # The decoder guesses a length from that of the file and stops there: zeros behind, which are never
        # read, make the guess too long.
        pieces: tuple[Piece, ...] = ((walked.first, walked.stop), 2 * count * frame.size + (1 << 16))
        return Part("MP3", start, end, pieces, count * frame.samples, 0, fault, notes)
    pieces = ((start, walked.stop),)
    if index != b"VBRI" and stated is not None and stated < count:
        notes = (*notes, f"states {stated} frames and holds {count}: all were read")
        header = bytearray(content.read(start, frame.size))
        struct.pack_into(">I", header, flags_at + 4 - start, count)
        pieces = (bytes(header), (walked.first, walked.stop))
    slack = 4 * frame.samples + 2 * 1105  # what encoder and decoder add, which an index says to leave out
    return Part("MP3", start, end, pieces, count * frame.samples, slack, fault, notes)


def _index(content: Content, at: int, frame: Frame) -> tuple[bytes, int]:
    """Xing, Info or VBRI in the first frame, and where its flags lie."""
    for where in (at + 4 + frame.side, at + 6 + frame.side):
        if (tag := content.read(where, 4)) in (b"Xing", b"Info"):
            return tag, where + 4
    return (b"VBRI", at + 40) if content.read(at + 36, 4) == b"VBRI" else (b"", 0)


def _stated(content: Content, index: bytes, flags_at: int) -> int | None:
    """The number of frames that an index states; None where it states none."""
    if index == b"VBRI":
        found = content.read(flags_at + 10, 4)
        return struct.unpack(">I", found)[0] or None if len(found) == 4 else None
    flags, stated = struct.unpack(">II", content.read(flags_at, 8).ljust(8, b"\0"))
    return stated if index and flags & 1 else None


def _zeros(content: Content, at: int) -> int:
    """How many zeros fill the rest of the file from here; 0 where something else follows."""
    return content.size - at if content.is_zero(at, content.size) else 0


def _walk_frames(content: Content, at: int, like: Frame, name: str) -> _Walked:
    first, count = at, 0
    held, base = b"", at
    while at < content.size:
        if at + 64 > base + len(held) and base + len(held) < content.size:
            held, base = content.read(at, 1 << 18), at
        head = held[at - base : at - base + 4]
        frame = mpeg_frame(head)
        if frame is None or not alike(frame, like):
            break
        if count and _index(content, at, frame)[0]:
            return _Walked(first, at, count)  # another file
        if at + frame.size > content.size:
            return _cut(first, at, count, content.size)
        at += frame.size
        count += 1
    return _rest(content, _Walked(first, at, count), like, name)


def _cut(first: int, at: int, count: int, size: int) -> _Walked:
    """A last frame that is not whole, as of a stream or an editor; decoders leave it out."""
    if not count:
        return _Walked(first, size, 0, "it ends within its first frame")
    note = f"ends within a frame: its last {size - at} bytes, behind {count} whole frames, were left out"
    return _Walked(first, at, count, "", (note,), size - at)


def _rest(content: Content, walked: _Walked, like: Frame, name: str) -> _Walked:
    """What follows the last frame: the end, tags, another recording, a few odd bytes; nothing else."""
    at, size = walked.stop, content.size
    rest = after_tags(content, at)
    head = content.read(rest, 1024)
    if rest >= size:
        return walked
    if rest == at and size - at < 4 and head[0] == 0xFF and head[1:2] >= b"\xe0"[: len(head) - 1]:
        return _cut(walked.first, at, walked.frames, size)
    if rest > at and content.is_zero(at, rest) and mpeg_frame(head):
        if _index(content, rest, like)[0]:
            return walked
        raise faults.unreadable(name, f"an MP3 file with a hole: {rest - at} zeros at byte {at}")
    if (rest > at and id3_bytes(head)) or mpeg_frame(head):
        return walked
    near = min(size, rest + 64)
    if next_recording(content, rest, near) != near:
        return walked
    if first_frame(content.read, rest, head) == rest and (size - rest <= _ODD or is_text(head)):
        return walked
    raise faults.unreadable(
        name, f"an MP3 file that holds no frame at byte {rest}, after {walked.frames} whole ones"
    )


WALKS = {"MP3": walk_mp3}
