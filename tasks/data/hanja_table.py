"""Makes `tasks/data/hanja_readings.py` from the Unihan database: the readings of KS X 1001, in its order.

    apt-get download unicode-data && dpkg-deb -x unicode-data_*.deb unicode-data
    python -m tasks.data.hanja_table unicode-data/usr/share/unicode/Unihan_Readings.txt.bz2

Unihan's field kHangul (Unicode Standard Annex 38) marks with `0` the readings that KS X 1001 gives a
character. Where it marks several, the standard's order says which one a place stands for: readings never
fall along it. Nothing else of Unihan is taken. Run by hand, when Unihan is to be looked at again.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from tasks.artifacts import write_text
from tasks.data.hanja_readings import characters
from tasks.errors import DataError, MalgilError, explain_os_error

TARGET = Path("tasks/data/hanja_readings.py")
KS_X_1001 = "0"
_WIDTH = 92
_MADE = "# made by tasks.data.hanja_table"


def readings(lines: Iterable[str], order: Sequence[str]) -> list[str]:
    """The reading of every character of `order`, from the lines of Unihan_Readings.txt.

    Raises:
        DataError: a character has no Korean reading there, or its place does not tell which.
    """
    known: dict[str, list[str]] = {}
    for line in lines:
        if "\tkHangul\t" in line:
            code, _, values = line.rstrip("\n").split("\t")
            pairs = [value.split(":") for value in values.split()]
            marked = [reading for reading, sources in pairs if KS_X_1001 in sources]
            known[chr(int(code.removeprefix("U+"), 16))] = marked or [reading for reading, _ in pairs]
    lost = [character for character in order if character not in known]
    if lost:
        raise DataError(
            f"no Korean reading of {' '.join(f'U+{ord(character):04X}' for character in lost[:10])}",
            f"{len(order)} characters need one (kHangul)",
            "name Unihan_Readings.txt of Unihan 6.0 or later",
        )
    highest, ceilings = "힣", []
    for character in reversed(order):
        highest = known[character][0] if len(known[character]) == 1 else highest
        ceilings.append(highest)
    found, lowest = [], "가"
    for character, ceiling in zip(order, reversed(ceilings), strict=True):
        fitting = [reading for reading in known[character] if lowest <= reading <= ceiling]
        if len(fitting) != 1:
            raise DataError(
                f"U+{ord(character):04X} is read {' or '.join(known[character])}",
                f"its place is between {lowest} and {ceiling}",
                "say in tasks/data/hanja_table.py which one it is",
            )
        lowest = fitting[0]
        found.append(lowest)
    return found


def make(source: Path, target: Path) -> None:
    """Writes the table of `source` (Unihan_Readings.txt, bzipped or not) into the module `target`."""
    try:
        data = source.read_bytes()
        text = (bz2.decompress(data) if source.suffix == ".bz2" else data).decode("utf-8")
        module = target.read_text(encoding="utf-8")
    except OSError as error:
        raise explain_os_error(error, source) from error
    version = re.search(r"^# Unicode version: ([\d.]+)", text, re.M)
    order = characters()
    counted = [f"{key}{len(list(group))}" for key, group in groupby(readings(text.splitlines(), order))]
    lines = [""]
    for item in counted:
        lines = [*lines, ""] if len(lines[-1]) + 2 * len(item) > _WIDTH else lines  # Hangul is two columns
        lines[-1] += item
    head = module[: module.index(_MADE)]
    made = [
        f"{_MADE}; of Unihan_Readings.txt:",
        f'UNIHAN = "{version[1] if version else ""}"',
        f'SHA256 = "{hashlib.sha256(text.encode()).hexdigest()}"',
        "READINGS = (",
        *(f'    "{line}"' for line in lines),
        ")",
    ]
    write_text(target, head + "\n".join(made) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.data.hanja_table", description=make.__doc__)
    parser.add_argument("source", type=Path, help="Unihan_Readings.txt or Unihan_Readings.txt.bz2")
    parser.add_argument("--target", type=Path, default=TARGET, help="the module that is written")
    arguments = parser.parse_args(argv)
    try:
        make(arguments.source, arguments.target)
    except MalgilError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
