"""A file cut into the recordings that it holds, each with what its container promises. No command.

    parts(content, name)     where each recording begins and ends, and what libsndfile is to be shown of it

libsndfile corrects lengths that are wrong silently, reads the first of several recordings alone and stops
where a header says. So the structure of each container is walked here, and libsndfile sees one recording at a
time, with a length that is true. PCM containers are walked in `tasks.audio.chunks`, coded streams in
`tasks.audio.streams`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tasks.audio import faults
from tasks.audio.content import Content, Piece
from tasks.audio.kinds import MP3, SNIFFED, Frame, Kind, id3_bytes, is_text, kind_of, mpeg_frame

_MAGICS = (  # long enough to be no accident among samples; with the distance to where their file begins
    (b"WAVEfmt ", 8),
    (b"WAVEJUNK", 8),
    (b"WAVEbext", 8),
    (b"WAVEds64", 8),
    (b"WAVELIST", 8),
    (b"fLaC\x00\x00\x00\x22", 0),
    (b"fLaC\x80\x00\x00\x22", 0),
    (b"caff\x00\x01\x00\x00desc", 0),
    (b"NIST_1A\n   1024\n", 0),
    (b".snd\x00\x00\x00\x18", 0),
    (b".snd\x00\x00\x00\x1c", 0),
    (b".snd\x00\x00\x00\x20", 0),
    (b"OggS\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00", 0),
    (b"AIFFCOMM", 8),
    (b"AIFCFVER", 8),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", 0),
)


class Part(NamedTuple):
    """One recording of a file.

    Attributes:
        kind: of its container, as messages call it.
        start, stop: its bytes in the file.
        pieces: what libsndfile is shown.
        stated: samples (per channel) that its header states and the decoder must give; None where it states
            none. What the decoder may fall short of it is `slack`.
        fault: what is missing ("x of y bytes of samples"), "" where nothing is.
        notes: what was put right, each a clause whose subject is the file.
    """

    kind: str
    start: int
    stop: int
    pieces: tuple[Piece, ...]
    stated: int | None = None
    slack: int = 0
    fault: str = ""
    notes: tuple[str, ...] = ()


Walk = Callable[[Content, int, str], Part]


def parts(content: Content, name: str, walks: Mapping[str, Walk]) -> tuple[Kind, list[Part], tuple[str, ...]]:
    """The kind of the file, its recordings in their order (none for what ffmpeg reads), and notes on the
    rest.

    Raises:
        AudioError: not audio, or of an unknown format.
    """
    start = after_tags(content, 0)
    head = content.read(start, SNIFFED)
    kind, notes = kind_of(head), tuple[str, ...]()
    if kind is None and not start and (start := first_frame(content.read, 0, head)):
        kind, notes = MP3, (f"begins with {start} bytes that are no audio, left out",)
    if kind is None:
        raise faults.unreadable(
            name,
            "format not recognised",
            next_step="convert it to WAV; of raw samples with `ffmpeg -f s16le "
            "-ar 16000 -ac 1 -i FILE OTHER.wav`",
        )
    if kind.by == "":
        raise faults.unreadable(name, f"it is {kind.name}", next_step=kind.next_step)
    found: list[Part] = []
    this: Kind | None = kind
    while this is not None and this.by == "libsndfile":
        part = walks[this.name](content, start, name)
        found.append(part)
        start = after_tags(content, part.stop)
        this = kind_of(content.read(start, SNIFFED)) if start < content.size else None
        if start < content.size and (this is None or this.by != "libsndfile") and not part.fault:
            notes = (
                *notes,
                f"ends with {content.size - start} bytes that are no audio, left out",
            )
    return kind, found, notes


def first_frame(read: Callable[[int, int], bytes], start: int, head: bytes) -> int:
    """Where MPEG audio begins that was cut in front: within `head`, the bytes at `start`. `start` without.

    `read` gives bytes by position and number.
    """
    at = -1
    while (at := head.find(b"\xff", at + 1)) >= 0:
        position, chain, like = start + at, 0, mpeg_frame(head[at : at + 4])
        frame = like
        while frame and like and frame.size > 4 and chain < 4 and alike(frame, like):
            position, chain = position + frame.size, chain + 1
            frame = mpeg_frame(read(position, 4))
        if chain == 4:
            return start + at
    return start


def alike(frame: Frame, like: Frame) -> bool:
    """Whether frames may be of one recording."""
    return (frame.rate_hz, frame.layer) == (like.rate_hz, like.layer)


def after_tags(content: Content, at: int) -> int:
    """Where what follows begins: zeros to the end, ID3, APE and Lyrics tags are passed over."""
    while at < content.size:
        head = content.read(at, 32)
        if head[:3] == b"TAG" and (content.size - at in (128, 128 + 227) or _is_id3v1(content, at)):
            at += 227 if content.read(at + 227, 3) == b"TAG" else 128
        elif size := id3_bytes(head):
            at += size
        elif head[:8] == b"APETAGEX":
            at += int.from_bytes(head[12:16], "little") + 32 if head[23] & 0x20 else 32  # else a footer alone
        elif head[:11] == b"LYRICSBEGIN":
            end = content.find(b"LYRICS200", at)
            at = end + 9 if end >= 0 else content.size
        elif not any(head):
            return _after_zeros(content, at)
        elif (end := _ape_end(content, at)) > at:
            at = end
        else:
            break
    return min(at, content.size)


def _is_id3v1(content: Content, at: int) -> bool:
    """Whether the tag that begins here was cut, or has another file behind it; 0 is no place for one."""
    if not at or content.size - at < 128:
        return at > 0
    following = content.read(at + 128, 16)
    is_tag = following[:3] in (b"ID3", b"TAG") or following[:8] == b"APETAGEX"
    return is_tag or not any(following) or kind_of(following) is not None


def _ape_end(content: Content, at: int) -> int:
    """Behind an APE tag without a header that begins here; where it was without one."""
    for end in (content.size, content.size - 128):
        foot = content.read(max(0, end - 32), 32)
        if foot[:8] == b"APETAGEX" and end - int.from_bytes(foot[12:16], "little") == at:
            return end
    return at


def _after_zeros(content: Content, at: int) -> int:
    """Behind padding that a file of a known kind follows, or that fills the rest; else where it was."""
    zero = at
    while zero < content.size:
        part = content.read(zero, 4096)
        bare = part.lstrip(b"\0")
        zero += len(part) - len(bare)
        if bare or not part:
            break
    if zero >= content.size:
        return content.size
    kind = kind_of(content.read(zero, SNIFFED))
    return zero if kind is not None and kind.by == "libsndfile" else at


def is_known_rest(content: Content, at: int) -> bool:
    """Whether what begins here is the end, padding, tags, text, or a recording of its own; not samples."""
    start = after_tags(content, at)
    if start >= content.size:
        return True
    head = content.read(start, SNIFFED)
    kind = kind_of(head)
    return (kind is not None and kind.name not in ("AC-3", "SDS", "JSON")) or is_text(head)


def next_recording(content: Content, at: int, stop: int) -> int:
    """Where another recording begins between two positions; `stop` without one."""
    found = stop
    for magic, before in _MAGICS:
        where = content.find(magic, at + before, found)
        if where >= 0:
            found = min(found, where - before)
    return found
