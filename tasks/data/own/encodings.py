"""What a text file is encoded in when it is not UTF-8, and a command that converts it. Pure; no command."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

from tasks.errors import DataError

# UTF-32 first: its mark begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_NO_TEXTS = (
    (
        b"PK\3\4",
        "an Excel workbook or a ZIP archive",
        "save the sheet as CSV UTF-8, or unpack the archive, and name the new file",
    ),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV UTF-8 and name the new file"),
    (b"PAR1", "a Parquet file", "give it the suffix .parquet"),
    (b"\x1f\x8b", "packed with gzip", "unpack it (`gunzip`) and name the new file"),
)
_WIDE = {"UTF-32LE": (4, 0), "UTF-32BE": (4, 3), "UTF-16LE": (2, 0), "UTF-16BE": (2, 1)}
# Name of Python's codec to the name that iconv knows.
_ICONV = {
    "utf_32": "UTF-32",
    "utf_16": "UTF-16",
    "cp949": "CP949",
    "johab": "JOHAB",
    "shift_jis": "SHIFT_JIS",
    "cp932": "CP932",
    "euc_jp": "EUC-JP",
    "gb18030": "GB18030",
    "big5": "BIG5",
    "latin_1": "ISO-8859-1",
    "mac_roman": "MACINTOSH",
    **{f"iso8859_{number}": f"ISO-8859-{number}" for number in range(1, 17)},
    **{f"cp{number}": f"CP{number}" for number in range(1250, 1259)},
}
_SAMPLE_BYTES = 1 << 18
_HANGUL_SHARE = 0.8  # of two-byte signs that are KS X 1001 syllables; Chinese and Japanese have fewer


def other_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, as iconv names it, told by a byte order mark or by where zeros stand; else None."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    start = data[:400]  # a header is ASCII
    if b"\0" not in start:
        return None
    for name, (width, at) in _WIDE.items():
        units = [start[i : i + width] for i in range(0, len(start) - width + 1, width)]
        narrow = [unit for unit in units if unit[at] and unit.count(0) == width - 1]
        if units and len(narrow) * 2 > len(units) and start[at] != 0:
            return name
    return None


def no_text(path: Path, data: bytes) -> DataError | None:
    """The refusal of a file that is no text at all, whatever its name says; None for one that may be."""
    for magic, what, step in _NO_TEXTS:
        if data.startswith(magic):
            return DataError(f"{path} is {what}, not text", "its name says that it is text", step)
    return None


def wrong_encoding(path: Path, data: bytes, name: str | None, what: str | None = None) -> DataError:
    """The refusal of a text that is not UTF-8, with a command that has been seen to work on these bytes.

    Args:
        name: the encoding, where it is known; else it is looked for.
        what: what was found, for the message.
    """
    found = name or _told(data)
    target = path.with_name(f"{path.stem}.utf-8{path.suffix}")
    if found is None:
        step = "save it as UTF-8 with the program that wrote it"
    else:
        command = f"iconv -f {found} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(target))}"
        step = f"convert it and name the new file: `{command}`"
    looks = f", it looks like {found}" if found and name is None else ""
    return DataError(f"{path} {what or f'is {name}'}{looks}", "text is UTF-8", step)


def _told(data: bytes) -> str | None:
    """The encoding that all of the bytes decode in, as iconv names it; None if that cannot be told."""
    if b"\0" in data:
        return None
    if _is_korean(data):
        return "CP949"
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE_BYTES].rpartition(b"\n")[0] or data[:_SAMPLE_BYTES]).best()
    if best is None or best.encoding not in _ICONV:
        return None
    try:
        data.decode(best.encoding)
    except UnicodeDecodeError:
        return None
    return _ICONV[best.encoding]


def _is_korean(data: bytes) -> bool:
    """Whether the bytes are CP949 (EUC-KR) throughout, and nearly all that is not ASCII is Hangul."""
    try:
        text = data.decode("cp949")
    except UnicodeDecodeError:
        return False
    beyond = [letter for letter in text if ord(letter) > 127]
    common = 0
    for letter in beyond:
        lead = letter.encode("cp949")
        common += 0xB0 <= lead[0] <= 0xC8 and len(lead) == 2 and lead[1] >= 0xA1
    return common >= _HANGUL_SHARE * len(beyond) > 0
