"""Coded streams, walked frame by frame or page by page: FLAC, Ogg (MP3: `tasks.audio.mpeg`). No command.

Their lengths are counted and not believed: the last FLAC frame says where it lies, Ogg pages are numbered and
have checksums and an end mark.
"""

from __future__ import annotations

import struct
import zlib

from tasks.audio import faults
from tasks.audio.content import Content
from tasks.audio.kinds import SNIFFED, kind_of
from tasks.audio.layout import Part, after_tags, next_recording

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_TAIL = 1 << 17  # bytes in which the last FLAC frame is looked for
_FLAC_SIZES = (0, 192, 576, 1152, 2304, 4608, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x8005 if value & 0x8000 else value << 1) & 0xFFFF
        found.append(value)
    return tuple(found)


_CRC16 = _table()


def walk_flac(content: Content, start: int, name: str) -> Part:
    """FLAC; its header's number of samples is held against that of the last frame."""
    head = content.read(start, 42)
    if len(head) < 42 or head[4] & 127 != 0:
        raise faults.unreadable(name, "a FLAC file without its header")
    at, last = start + 4, False
    while not last:
        block = content.read(at, 4)
        if len(block) < 4:
            raise faults.truncated(name, "it ends within its FLAC header")
        last = bool(block[0] & 128)
        at += 4 + int.from_bytes(block[1:], "big")
    at = min(at, content.size)
    stated = int.from_bytes(head[21:26], "big") & (1 << 36) - 1
    fewest, most = struct.unpack(">HH", head[8:12])
    largest = int.from_bytes(head[15:18], "big") or _TAIL
    fixed = most if fewest == most else 0
    stop = _next_flac(content, at)
    stop = next_recording(content, max(at, stop - largest - 64), stop)
    audio_end = _without_tags(content, at, stop)
    counted = _flac_end(content, max(at, audio_end - largest - 64), audio_end, fixed, stated)
    if counted != stated:  # something else may lie behind it
        stop = next_recording(content, at, stop)
        audio_end = _without_tags(content, at, stop)
        counted = _flac_end(content, max(at, audio_end - largest - 64), audio_end, fixed, stated)
    if stated and counted < stated:  # cut off, or something lies behind the last frame
        rest = _end_of_frame(content, at, audio_end, fixed, stated)
        return Part("FLAC", start, rest if rest < audio_end else stop, ((start, audio_end),), stated)
    if counted <= stated:
        return Part("FLAC", start, stop, ((start, audio_end),), stated)
    notes = (f"states {stated} samples and holds {counted}: all were read",) if stated else ()
    header = bytearray(head[:26])
    header[21] &= 0xF0
    header[22:26] = bytes(4)
    return Part("FLAC", start, stop, (bytes(header), (start + 26, audio_end)), counted, 0, "", notes)


def _next_flac(content: Content, at: int) -> int:
    """Where the next FLAC file begins; the end of the file without one."""
    while (at := content.find(b"fLaC", at)) >= 0:
        if content.read(at + 4, 4) in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):
            return at
        at += 4
    return content.size


def _without_tags(content: Content, at: int, stop: int) -> int:
    """Without tags and padding at the end of a file, which a decoder would take for lost frames."""
    if stop != content.size:
        return stop
    for length in (128, 128 + 227):
        if content.read(stop - length, 3) == b"TAG" and stop - length > at:
            stop -= length
    foot = content.read(stop - 32, 32)
    if foot[:8] == b"APETAGEX":
        stop -= int.from_bytes(foot[12:16], "little") + (32 if foot[23] & 0x80 else 0)
    while stop > at and not any(tail := content.read(max(at, stop - 4096), min(4096, stop - at))):
        stop -= len(tail)
    if stop > at:
        tail = content.read(max(at, stop - 4096), min(4096, stop - at))
        zeros = len(tail) - len(tail.rstrip(b"\0"))
        if zeros >= 16:  # a frame ends with a checksum; fewer may be its own
            stop -= zeros
    return stop


def _flac_end(content: Content, at: int, stop: int, fixed: int, stated: int) -> int:
    """Samples up to the end of the last frame whose header lies between; 0 where none does.

    More than `stated` are believed of a frame that is whole up to `stop` alone.
    """
    tail = content.read(at, stop - at)
    where = len(tail)
    while (where := tail.rfind(b"\xff", 0, where)) >= 0:
        found = _flac_frame(tail[where : where + 16], fixed)
        if found and (found <= stated or _crc16(tail[where:]) == 0):
            return found
    return 0


def _end_of_frame(content: Content, at: int, stop: int, fixed: int, stated: int) -> int:
    """Where the frame ends that brings the samples to the number stated; `stop` where there is none."""
    end = stop
    while end > at:
        begin = max(at, end - (1 << 20))
        part = content.read(begin, min(end + 16, stop) - begin)
        where = end - begin
        while (where := part.rfind(b"\xff", 0, where)) >= 0:
            if _flac_frame(part[where : where + 16], fixed) == stated:
                frame, value = content.read(begin + where, min(1 << 18, stop - begin - where)), 0
                ends = []
                for index, byte in enumerate(frame, begin + where + 1):
                    value = value << 8 & 0xFFFF ^ _CRC16[value >> 8 ^ byte]
                    if not value and index > begin + where + 10:
                        ends.append(index)
                # a checksum fits by chance once in 65,536 bytes: what is known behind it decides
                known = [e for e in ends if kind_of(content.read(after_tags(content, e), SNIFFED))]
                return (known or ends or [stop])[0]
        end = begin
    return stop


def _flac_frame(head: bytes, fixed: int) -> int:
    """Samples up to the end of the frame that begins here; 0 where none does."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return 0
    size, hz = head[2] >> 4, head[2] & 15
    if size == 0 or hz == 15 or head[3] >> 4 > 10:
        return 0
    first, at = head[4], 5
    more = 0
    if first & 0x80:
        more = 7 - (first ^ 0xFF).bit_length()  # leading ones, less one
        if not 1 <= more <= 6:
            return 0
        first &= (1 << 6 - more) - 1
    if any(byte & 0xC0 != 0x80 for byte in head[at : at + more]):
        return 0
    for byte in head[at : at + more]:
        first = first << 6 | byte & 63
    at += more
    samples = _FLAC_SIZES[size]
    if size in (6, 7):
        length = size - 5
        samples = int.from_bytes(head[at : at + length], "big") + 1
        at += length
    at += {12: 1, 13: 2, 14: 2}.get(hz, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return 0
    return first + samples if head[1] & 1 else first * (fixed or samples) + samples


def _crc16(data: bytes) -> int:
    """Of a frame with its checksum: zero where it is whole."""
    value = 0
    for byte in data:
        value = value << 8 & 0xFFFF ^ _CRC16[value >> 8 ^ byte]
    return value


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07 if value & 0x80 else value << 1) & 0xFF
    return value


def ogg_checksum(page: bytes) -> int:
    """Of a page whose own checksum is zeroed: CRC-32 of another bit order than zlib's."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)


def walk_ogg(content: Content, start: int, name: str) -> Part:
    """Ogg of any codec: every page in its place, up to the end mark or the next chain."""
    at, is_ended, numbers, begun = start, set[int](), dict[int, int](), False
    last = start
    fault, goes_on = "", dict[int, bool]()  # whether a packet goes on in the next page
    while at < content.size:
        head = content.read(at, 27)
        if head[:4] != b"OggS":
            rest = content.size - at
            known = after_tags(content, at) >= content.size or (numbers and is_ended >= set(numbers))
            if not known and (rest >= 4 or not b"OggS".startswith(head)):
                raise faults.unreadable(name, f"an Ogg file is damaged at byte {at}")
            fault = "" if known else "it ends within a page"
            break
        table = content.read(at + 27, head[26]) if len(head) == 27 else b""
        length = 27 + len(table) + sum(table)
        if len(head) < 27 or len(table) < head[26] or at + length > content.size:
            fault = "it ends within a page"
            at = content.size
            break
        flags = head[5]
        serial, number, crc = struct.unpack("<III", head[14:26])
        if flags & 2 and begun:
            break
        page = bytearray(content.read(at, length))
        page[22:26] = bytes(4)
        if ogg_checksum(bytes(page)) != crc:
            raise faults.unreadable(name, f"an Ogg file whose page at byte {at} is damaged")
        if serial in numbers and number != numbers[serial] + 1:
            raise faults.unreadable(name, f"an Ogg file that lacks pages before byte {at}")
        numbers[serial], last = number, at
        goes_on[serial] = table[-1:] == b"\xff"
        begun = begun or not flags & 2
        if flags & 4:
            is_ended.add(serial)
        at += length
    notes: tuple[str, ...] = ()
    if not fault and not is_ended >= set(numbers):
        is_stream = (at == content.size or head[5:6] == b"\x02") and not any(goes_on.values())
        if is_stream:
            notes = ("has no end mark, as a stream: read to the end of its last whole page",)
        fault = "" if is_stream else "its end mark is missing"
        if is_stream:
            return Part(
                "Ogg", start, at, ((start, last), _with_end(content.read(last, at - last))), notes=notes
            )
    return Part("Ogg", start, at, ((start, at),), fault=fault)


def _with_end(page: bytes) -> bytes:
    """A page with the end mark, without which the length that it states would be a fault."""
    found = bytearray(page)
    found[5] |= 4
    found[22:26] = bytes(4)
    found[22:26] = struct.pack("<I", ogg_checksum(bytes(found)))
    return bytes(found)


WALKS = {"FLAC": walk_flac, "Ogg": walk_ogg}
