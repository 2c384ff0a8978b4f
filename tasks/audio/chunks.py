"""Containers of plain samples, walked by their own structure: W64, AIFF, AU, CAF, NIST; and what they have in
common with WAV (`tasks.audio.riff`). No command.

What a header says of lengths is a promise: held against the bytes that are there, and put right in what
libsndfile is shown. A definite size that the file does not hold is a cut file; a size that programs write who
pipe (0, -1, about 2 or 4 GiB) means: to the end.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from tasks.audio import faults
from tasks.audio.content import Content, Piece
from tasks.audio.layout import Part, is_known_rest, next_recording

_W64_GUID = bytes.fromhex("d311 8cd1 00c0 4f8e db8a")  # the end of all but the first
CHUNK = re.compile(rb"[ -~]{4}")
_OTHER_FILES = (
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"BW64",
    b"FORM",
    b"fLaC",
    b"OggS",
    b"caff",
    b"NIST",
    b"riff",
    b".snd",
    b"dns.",
)
_PLAIN = frozenset(  # codings of AIFF-C whose samples lie as they are
    b"NONE sowt twos fl32 FL32 fl64 FL64 in24 in32 alaw ulaw ALAW ULAW".split()
) | {b"raw "}
UNFINISHED = "states no length of its own (piped or unfinished): read to its end"


class Data(NamedTuple):
    """The samples of a container: from `at`, as long as stated (None: to the end), of `frame` bytes each."""

    at: int
    stated: int | None
    frame: int = 1


def stated_bytes(size: int, rest: int, bits: int = 32) -> int | None:
    """A size as written in a header; None where it is one that stands for "to the end of what comes"."""
    if size <= rest and size:
        return size
    high = 1 << bits
    sentinels = ((1 << 31) - (1 << 16), (1 << 31) + (1 << 16)), (high - (1 << 16), high)
    if not size or any(low <= size <= top for low, top in sentinels):
        return None if rest else 0
    if bits == 64 and (size >= 1 << 62 or stated_bytes(size, rest) is None):
        return None
    return size


def ending(content: Content, data: Data) -> tuple[int, str, tuple[str, ...]]:
    """Where the samples end, what is missing, and what there is to say."""
    rest = content.size - data.at
    if data.stated is None:
        stop = next_recording(content, data.at, content.size)
        over = (stop - data.at) % data.frame
        return stop - over, "", (UNFINISHED,)
    if data.stated > rest:
        return content.size, f"{rest} of {data.stated} bytes of samples", ()
    return data.at + data.stated, "", ()


def to_the_end(content: Content, data: Data, stop: int) -> tuple[int, str, tuple[str, ...]]:
    """For a header that states too little: samples go on where nothing known begins.

    As `ending`. Where another recording begins among the samples, those of the first are cut short.
    """
    if fault := cut_before(content, data, stop):
        return stop, fault, ()
    for at in (stop, stop + stop % 2):
        if is_known_rest(content, at):
            return stop, "", ()
    if (other := next_recording(content, data.at, stop)) < stop:
        how = f"another recording begins after {other - data.at} of {stop - data.at} bytes of samples"
        return stop, how, ()
    end = next_recording(content, stop, content.size)
    end -= (end - data.at) % data.frame
    if end - stop < 64:  # no sound: a few odd bytes
        return stop, "", ()
    note = f"states {stop - data.at} bytes of samples and holds {end - data.at}: all were read"
    return end, "", (note,)


def cut_before(content: Content, data: Data, stop: int) -> str:
    """Says so where the samples of a cut file run into the header of the next, whose chunks follow then."""
    if stop >= content.size:
        return ""
    other = next_recording(content, max(data.at, stop - 4096), min(content.size, stop + 64))
    if other >= stop:
        return ""
    return f"another recording begins after {other - data.at} of {stop - data.at} bytes of samples"


def chunks_end(content: Content, at: int, order: str) -> int:
    """Where the chunks end that begin here; `at` where none does."""
    while True:
        for begin in (at + at % 2, at):
            head = content.read(begin, 8)
            if len(head) < 8 or not CHUNK.match(head) or head[:4] in _OTHER_FILES or head[:3] == b"TAG":
                continue
            size = struct.unpack(order + "I", head[4:])[0]
            if begin + 8 + size <= content.size:
                at = min(content.size, begin + 8 + size)
                break
        else:
            return at


def put(header: bytearray, at: int, layout: str, value: float) -> None:
    """Writes a number into a header."""
    struct.pack_into(layout, header, at, value)


def walk_w64(content: Content, start: int, name: str) -> Part:
    """Sony Wave64: chunks of 64 bits, aligned to 8 bytes."""
    at, frame = start + 40, 1
    while len(head := content.read(at, 24)) == 24:
        size = struct.unpack("<Q", head[16:])[0]
        if head[:4] == b"fmt ":
            frame = max(1, struct.unpack("<H", content.read(at + 36, 2).ljust(2, b"\0"))[0])
        if head[:4] == b"data":
            found = at + 24
            rest = content.size - found
            stated = stated_bytes(size - 24 if size >= 24 else 0, rest, 64)
            data = Data(found, stated, frame)
            stop, fault, notes = ending(content, data)
            if not fault and stated is not None:
                aligned = found + -(-(stop - found) // 8) * 8
                if _is_w64_chunk(content, aligned):
                    fault = cut_before(content, data, stop)
                else:
                    stop, fault, notes = to_the_end(content, data, stop)
            header = bytearray(content.read(start, found - start))
            put(header, 16, "<Q", stop - start)
            put(header, found - start - 8, "<Q", stop - found + 24)
            pieces = (bytes(header), (found, stop))
            return Part("W64", start, _w64_end(content, found, stop), pieces, None, 0, fault, notes)
        if size < 24:
            break
        at += -(-size // 8) * 8
    raise faults.unreadable(name, "a W64 file without a data chunk")


def _is_w64_chunk(content: Content, at: int) -> bool:
    """Whether a chunk begins here that may lie behind samples, and ends in the file."""
    head = content.read(at, 24)
    if len(head) < 24 or head[:4] in (b"riff", b"wave", b"fmt ", b"data") or head[6:16] != _W64_GUID:
        return False
    return 24 <= int.from_bytes(head[16:], "little") <= content.size - at


def _w64_end(content: Content, found: int, stop: int) -> int:
    at = found + -(-(stop - found) // 8) * 8
    if not _is_w64_chunk(content, at):
        return stop
    while _is_w64_chunk(content, at):
        at += max(24, -(-struct.unpack("<Q", content.read(at + 16, 8))[0] // 8) * 8)
    return min(content.size, max(at, stop))


def walk_aiff(content: Content, start: int, name: str) -> Part:
    """AIFF and AIFF-C."""
    at, frame, comm, is_plain = start + 12, 1, 0, content.read(start + 8, 4) == b"AIFF"
    while len(head := content.read(at, 8)) == 8:
        tag, size = head[:4], struct.unpack(">I", head[4:])[0]
        if tag == b"COMM":
            comm = at + 8
            channels, _, bits = struct.unpack(">hIh", content.read(comm, 8).ljust(8, b"\0"))
            coding = content.read(comm + 18, 4)
            is_plain = is_plain or coding in _PLAIN
            width = 1 if coding.lower() in (b"alaw", b"ulaw") else max(1, bits + 7 >> 3)
            frame = max(1, channels * width) if is_plain else 1
        if tag == b"SSND":
            offset = struct.unpack(">I", content.read(at + 8, 4).ljust(4, b"\0"))[0]
            found = min(at + 16 + offset, content.size)
            rest = content.size - found
            stated = stated_bytes(size, rest)
            if stated is not None:
                stated = max(0, stated - 8 - offset)
            if size == 8 + offset and rest and chunks_end(content, found, ">") != content.size:
                stated = None  # written before the first sample, and never again
            data = Data(found, stated, frame)
            stop, fault, notes = ending(content, data)
            end = stop
            if not fault and stated is not None:
                end = chunks_end(content, stop, ">")
                if end == stop:
                    stop, fault, notes = to_the_end(content, data, stop)
                    end = stop
                else:
                    fault = cut_before(content, data, stop)
            pieces: tuple[Piece, ...] = ((start, end),)
            if stated != stop - found:
                header = bytearray(content.read(start, found - start))
                put(header, 4, ">I", min(stop - start - 8, 0xFFFFFFFF))
                put(header, at - start + 4, ">I", min(stop - found + 8 + offset, 0xFFFFFFFF))
                if comm and is_plain:
                    put(header, comm - start + 2, ">I", min((stop - found) // frame, 0xFFFFFFFF))
                pieces = (bytes(header), (found, stop))
            return Part("AIFF", start, end, pieces, None, 0, fault, notes)
        if not CHUNK.match(tag):
            break
        at += 8 + size + size % 2
    raise faults.unreadable(name, "an AIFF file without samples")


def walk_au(content: Content, start: int, name: str) -> Part:
    """Sun and NeXT, of either byte order."""
    order = "<" if content.read(start, 4) == b"dns." else ">"
    if len(head := content.read(start, 24)) < 24:
        raise faults.unreadable(name, "an AU file without samples")
    offset, size, coding, _, channels = struct.unpack(order + "5I", head[4:])
    found = start + offset
    if offset < 24 or found > content.size:
        raise faults.unreadable(name, "an AU file without samples")
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(coding, 0)
    data = Data(found, stated_bytes(size, content.size - found), max(1, width * channels))
    stop, fault, notes = ending(content, data)
    if not fault and data.stated is not None:
        stop, fault, notes = to_the_end(content, data, stop)
    header = bytearray(content.read(start, offset))
    put(header, 8, order + "I", min(stop - found, 0xFFFFFFFF))
    return Part("AU", start, stop, (bytes(header), (found, stop)), None, 0, fault, notes)


def walk_caf(content: Content, start: int, name: str) -> Part:
    """Apple Core Audio; a table of packets may lie before or behind the samples."""
    at, frame, packet, table = start + 8, 1, (0, 0), 0
    while len(head := content.read(at, 12)) == 12:
        tag, size = head[:4], struct.unpack(">Q", head[4:])[0]
        if tag == b"desc":
            packet = struct.unpack(">II", content.read(at + 12 + 16, 8).ljust(8, b"\0"))
            frame = max(1, packet[0])
        if tag == b"pakt":
            table = at
        if tag == b"data":
            found = at + 16  # behind the edit count
            rest = content.size - found
            stated = stated_bytes(size, rest + 4, 64)
            data = Data(found, None if stated is None else max(0, stated - 4), frame)
            stop, fault, notes = ending(content, data)
            end = stop
            if not fault and stated is not None:
                end, behind = _caf_end(content, stop)
                table = table or behind
                if end == stop:
                    stop, fault, notes = to_the_end(content, data, stop)
                    end = stop
                else:
                    fault = cut_before(content, data, stop)
            if not fault and not packet[0] and not _table_fits(content, table, packet[1], stop - found):
                raise faults.unreadable(name, "a CAF file whose table of packets does not fit its samples")
            pieces: tuple[Piece, ...] = ((start, end),)
            if stated != stop - found + 4:
                header = bytearray(content.read(start, found - start))
                put(header, at - start + 4, ">Q", stop - found + 4)
                pieces = (bytes(header), (found, stop))
            return Part("CAF", start, end, pieces, None, 0, fault, notes)
        if not CHUNK.match(tag) or size > content.size:
            break
        at += 12 + size
    raise faults.unreadable(name, "a CAF file without samples")


def _caf_end(content: Content, at: int) -> tuple[int, int]:
    """Where the chunks end that begin here, and where a table of packets is among them (0: nowhere)."""
    table = 0
    while len(head := content.read(at, 12)) == 12 and CHUNK.match(head) and head[:4] not in _OTHER_FILES:
        size = struct.unpack(">Q", head[4:])[0]
        if at + 12 + size > content.size:
            break
        table = at if head[:4] == b"pakt" else table
        at += 12 + size
    return at, table


def _table_fits(content: Content, table: int, frames: int, length: int) -> bool:
    """Whether the sizes of all packets are those of the samples, and their number that of the frames."""
    size = struct.unpack(">Q", content.read(table + 4, 8).ljust(8, b"\0"))[0] if table else 0
    body = content.read(table + 12, min(size, content.size))
    if len(body) < 24:
        return False
    packets, valid, priming, remainder = struct.unpack(">qqii", body[:24])
    count = total = value = 0
    for byte in body[24:]:
        value = value << 7 | byte & 127
        if not byte & 128:
            count, total, value = count + 1, total + value, 0
            if count == packets:
                break
    return count == packets and total == length and valid + priming + remainder == packets * frames


def walk_nist(content: Content, start: int, name: str) -> Part:
    """SPHERE: a header of text that states the number of samples."""
    head = content.read(start, 16)
    try:
        length = int(head[8:16])
        fields = dict(re.findall(rb"^(\w+) -\w+ (.*?)\s*$", content.read(start, length), re.MULTILINE))
        channels, width = int(fields.get(b"channel_count", b"1")), int(fields[b"sample_n_bytes"])
        count = int(fields.get(b"sample_count", b"0"))
    except (ValueError, KeyError) as error:
        raise faults.unreadable(name, "the header of a NIST file is damaged") from error
    if b"," in fields.get(b"sample_coding", b""):
        coding = fields[b"sample_coding"].decode("ascii", "replace")
        raise faults.unreadable(
            name, f"a NIST file of {coding}", next_step="unpack it with `sph2pipe -p -f wav`"
        )
    found = start + length
    stated = count * channels * width or None
    data = Data(found, stated, max(1, channels * width))
    stop, fault, notes = ending(content, data)
    if not fault and stated is not None:
        stop, fault, notes = to_the_end(content, data, stop)
    return Part("NIST", start, stop, ((start, stop),), None, 0, fault, notes)


WALKS = {
    "W64": walk_w64,
    "AIFF": walk_aiff,
    "AU": walk_au,
    "CAF": walk_caf,
    "NIST": walk_nist,
}
