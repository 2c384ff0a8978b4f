"""What a file is, told by its first bytes alone: never by its name. No command."""

from __future__ import annotations

import re
from typing import NamedTuple

SNIFFED = 4096  # bytes that `kind_of` wants to see


class Kind(NamedTuple):
    """A container.

    `name` is what messages call it. `by` says who decodes it: "libsndfile", "ffmpeg" or nobody (""), and then
    `next_step` what to do with such a file.
    """

    name: str
    by: str
    next_step: str = ""


_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_OWN = {
    "WAV": rb"RIF[FX].{4}WAVE",
    "RF64": rb"(RF64|BW64).{4}WAVE",
    "W64": re.escape(_W64),
    "AIFF": rb"FORM.{4}AIF[FC]",
    "AU": rb"(\.snd\x00|dns\.)",
    "CAF": rb"caff\x00\x01",
    "NIST": rb"NIST_1A\n",
    "FLAC": rb"fLaC",
    "Ogg": rb"OggS\x00",
}
_FFMPEG = {
    "MP4 or M4A": rb".{4}ftyp",
    "WebM or Matroska": rb"\x1aE\xdf\xa3",
    "WMA (ASF)": rb"0&\xb2u\x8ef\xcf\x11",
    "AMR": rb"#!AMR",
    "AAC (ADTS)": rb"\xff[\xf0\xf1\xf8\xf9].[\x00-\xff]",
    "WavPack": rb"wvpk",
    "AC-3": rb"\x0bw",
}
_EXPORT = "export it as WAV from the program that made it"
_UNCHECKED = "convert it (`ffmpeg -i FILE OTHER.wav`): nothing in such a file tells a whole one from a half"
_NOT_AUDIO = {
    "a pointer of git-lfs": (rb"version https://git-lfs", "fetch the file itself: `git lfs pull`"),
    "a web page": (
        rb"(?i)\s*<(!doctype|html|head|\?xml)",
        "download the file itself; look at what the page says",
    ),
    "JSON": (rb"\s*[\[{]\s*[\"\[{\]}]", "name the audio file itself"),
    "a gzip archive": (rb"\x1f\x8b\x08", "unpack it: `gunzip -c FILE > OTHER`, or `tar -xf FILE`"),
    "a zip archive": (rb"PK\x03\x04", "unpack it: `unzip FILE`"),
    "a 7z archive": (rb"7z\xbc\xaf\x27\x1c", "unpack it: `7z x FILE`"),
    "an xz archive": (rb"\xfd7zXZ\0", "unpack it: `xz -dc FILE > OTHER`"),
    "a zstd archive": (rb"\x28\xb5\x2f\xfd", "unpack it: `zstd -dc FILE > OTHER`"),
    "a bzip2 archive": (rb"BZh[1-9]1AY", "unpack it: `bunzip2 -c FILE > OTHER`"),
    "a PDF": (rb"%PDF-", "name the audio file itself"),
    "a picture": (rb"(\x89PNG|\xff\xd8\xff|GIF8)", "name the audio file itself"),
    "MIDI": (rb"MThd", "render it to WAV with a synthesiser"),
    "MAT5": (rb"MATLAB 5\.0 MAT-file", _EXPORT),
    "XI": (rb"Extended Instrument: ", _EXPORT),
    "AVI": (rb"RIFF.{4}AVI ", _UNCHECKED),
    "FLV": (rb"FLV\x01", _UNCHECKED),
    "Monkey's Audio": (rb"MAC .\x0f", _UNCHECKED),
    "AAC (ADIF)": (rb"ADIF", _UNCHECKED),
    "VOC": (rb"Creative Voice File\x1a", _UNCHECKED),
    "8SVX": (rb"FORM.{4}(8SVX|16SV)", _UNCHECKED),
    "IRCAM": (rb"(\x64\xa3[\x00-\x04]\x00|\x00[\x00-\x04]\xa3\x64)", _UNCHECKED),
    "AVR": (rb"2BIT", _UNCHECKED),
    "PAF": (rb"( paf|fap )", _UNCHECKED),
    "PVF": (rb"PVF1\n", _UNCHECKED),
    "SDS": (rb"\xf0\x7e.\x01", _UNCHECKED),
    "Psion WVE": (rb"ALawSoundFile\*\*", _UNCHECKED),
    "MPEG-TS": (rb"G.{187}G.{187}G", _UNCHECKED),
    "MPEG-TS of a camera": (rb".{4}G.{191}G.{191}G", _UNCHECKED),
    "MPEG-PS": (rb"\x00\x00\x01\xba", _UNCHECKED),
    "True Audio (TTA)": (rb"TTA[12]", _UNCHECKED),
    "Musepack": (rb"(MPCK|MP\+)", _UNCHECKED),
    "DSD": (rb"(DSD |FRM8.{8}DSD )", _UNCHECKED),
    "RealMedia": (rb"\.(RMF|ra\xfd)", _UNCHECKED),
    "OptimFROG": (rb"OFR ", _UNCHECKED),
    "SoX's own format": (rb"(\.SoX|XoS\.)", _UNCHECKED),
    "LATM": (rb"\x56[\xe0-\xff].{2,}", _UNCHECKED),
    "Parquet": (rb"PAR1", "name the audio files themselves"),
}
_PATTERNS = [
    *((Kind(name, "libsndfile"), re.compile(p, re.DOTALL)) for name, p in _OWN.items()),
    *((Kind(name, "", step), re.compile(p, re.DOTALL)) for name, (p, step) in _NOT_AUDIO.items()),
    *((Kind(name, "ffmpeg"), re.compile(p, re.DOTALL)) for name, p in _FFMPEG.items()),
]
MP3 = Kind("MP3", "libsndfile")
_TEXT = Kind("text", "", "name the audio file itself")
# bits per second in thousands by version (1 or else), layer and index
_RATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HZ = (44_100, 48_000, 32_000)


class Frame(NamedTuple):
    """The header of an MPEG audio frame: `size` in bytes, `samples` per channel, `side` bytes."""

    size: int
    samples: int
    rate_hz: int
    channels: int
    layer: int
    side: int


def mpeg_frame(head: bytes) -> Frame | None:
    """The frame whose first four bytes these are; None where they are none, or of free format."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, hz = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate in (0, 15) or hz == 3 or head[3] & 3 == 2:
        return None
    first = version == 3
    bits = _RATES[1 if first else 2, layer][rate] * 1000
    rate_hz = _HZ[hz] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    padding = head[2] >> 1 & 1
    size = (12 * bits // rate_hz + padding) * 4 if layer == 1 else samples // 8 * bits // rate_hz + padding
    channels = 1 if head[3] >> 6 == 3 else 2
    side = (32, 17) if first else (17, 9)
    return Frame(size, samples, rate_hz, channels, layer, side[channels == 1])


def id3_bytes(head: bytes) -> int:
    """Length of the ID3v2 tag that begins here, 0 without one."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127 or head[3] == 255:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 16 else 0)


def kind_of(head: bytes) -> Kind | None:
    """What begins with these bytes (`SNIFFED` of them, fewer at the end of a file); None: not known.

    An ID3 tag is to be passed over before.
    """
    frame = mpeg_frame(head)
    if frame and frame.size > 4:
        following = head[frame.size : frame.size + 4]
        if len(head) <= frame.size or (
            (mpeg_frame(following) and following[1] & 0xFE == head[1] & 0xFE)
            or following[:3] in (b"TAG", b"ID3")
        ):
            return MP3
    for kind, pattern in _PATTERNS:
        if pattern.match(head):
            return kind
    return _TEXT if is_text(head) else None


def is_text(head: bytes) -> bool:
    """Whether these bytes are text, as a log or a message is."""
    sample = head[:1024]
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 3:
            return False
    control = sum(byte < 32 and byte not in (9, 10, 13) for byte in sample)
    return bool(sample) and not control
