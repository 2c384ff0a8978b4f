"""Damaged audio files against the one reader: what is read is accounted for, what is not is refused.

    python benchmarks/fuzz_audio.py --inputs 5000 [--seed 0]

For each format and coding that libsndfile writes, a small file of known length is made, then cut, extended,
mutated in its header or anywhere, given sizes that lie, or joined to another. Each is decoded to its end in a
child process with a time limit. Counted, as JSON:

    refused      a `MalgilError`, with its state
    said         read, with a note that says what was put right
    whole        read without a note, all samples of the original (and of what was joined to it)
    other        a mutated header that states another rate, number of channels or coding, read as it says
    silent       fewer samples than there are, without a word: a fault of the reader
    traceback, hang, crash      likewise
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))
from tasks.audio.reader import inspect
from tasks.errors import MalgilError

RATE_HZ = 16_000
SECONDS = 0.4
BATCH = 250  # inputs per child
LIMIT_S = 120.0  # of a child
_SKIPPED = ("RAW", "SD2")  # without a header; with a second file
_SIZES = (0, 1, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 100, 1_000, 1 << 20)
FAULTS = ("silent", "traceback", "hang", "crash")


class Base(NamedTuple):
    """A whole file: its format and coding, its bytes, and what a decoder gets out of it."""

    label: str
    data: bytes
    samples: int
    channels: int
    header: int  # bytes before the first sample, at most


def bases() -> list[Base]:
    """One file per format and coding, mono and stereo in turn; the same every time."""
    rng = np.random.default_rng(0)
    found = []
    for number, (container, coding) in enumerate(
        (f, s) for f in soundfile.available_formats() for s in soundfile.available_subtypes(f)
    ):
        if container in _SKIPPED:
            continue
        channels = 1 + number % 2
        audio = 0.2 * rng.standard_normal((round(SECONDS * RATE_HZ), channels))
        stream = io.BytesIO()
        try:
            soundfile.write(stream, audio, RATE_HZ, format=container, subtype=coding)
        except (soundfile.LibsndfileError, ValueError, RuntimeError):
            continue
        data = stream.getvalue()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a")
            path.write_bytes(data)
            try:
                whole = inspect(path)
            except MalgilError:  # a format that is refused by name: its mutants must be as well
                samples = 0
            else:
                samples = whole.samples
        found.append(Base(f"{container} {coding}", data, samples, channels, min(512, len(data) // 4)))
    return found


def mutant(base: Base, rng: np.random.Generator) -> tuple[str, bytes, int]:
    """How it was damaged, the bytes, and the samples that a reader must give or account for."""
    data = bytearray(base.data)
    how = str(
        rng.choice(["cut", "cut", "header", "size", "anywhere", "zeros", "noise", "joined", "cut+joined"])
    )
    expected = base.samples
    if how.startswith("cut"):
        del data[int(rng.integers(1, len(data))) :]
    if how == "header":
        for _ in range(int(rng.integers(1, 5))):
            data[int(rng.integers(0, base.header))] = int(rng.integers(0, 256))
    if how == "size":
        at = int(rng.integers(0, base.header // 4)) * 4 + int(rng.integers(0, 2)) * 2
        size = int(rng.choice(_SIZES))
        data[at : at + 4] = size.to_bytes(4, "little" if rng.random() < 0.5 else "big")
    if how == "anywhere":
        for _ in range(int(rng.integers(1, 9))):
            data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
    if how == "zeros":
        data += bytes(int(rng.integers(1, 5_000)))
    if how == "noise":
        data += rng.bytes(int(rng.integers(1, 5_000)))
    if how.endswith("joined"):
        data += base.data
        expected *= 2
    return how, bytes(data), expected


def judge(base: Base, how: str, data: bytes, expected: int, folder: Path) -> str:
    """The outcome of one input."""
    path = folder / "mutant"
    path.write_bytes(data)
    try:
        found = inspect(path)
    except MalgilError as error:
        return f"refused: {getattr(error, 'state', type(error).__name__)}"
    except Exception as error:  # noqa: BLE001  what is looked for
        return f"traceback: {type(error).__name__}: {error}"
    if found.notes:
        return "said"
    if found.samples >= expected:
        return "whole"
    if how in ("header", "size", "anywhere") and _reads_otherwise(base, data, found.channels, found.rate_hz):
        return "other"
    return f"silent: {base.label}, {how}: {found.samples} of {expected}"


def _reads_otherwise(base: Base, data: bytes, channels: int, rate_hz: int) -> bool:
    """Whether the header now states other channels, another rate or coding than the original."""
    if channels != base.channels or rate_hz != RATE_HZ:
        return True
    if (index := base.data.find(b"LAME")) >= 0:  # what an MP3 says to leave out at its ends
        return base.data[index : index + 24] != data[index : index + 24]
    old, new = (soundfile.SoundFile(io.BytesIO(d)) for d in (base.data, data))
    with old, new:
        return (old.format, old.subtype, old.endian) != (new.format, new.subtype, new.endian)


def batch(count: int, seed: int) -> dict[str, int]:
    """Outcomes of `count` inputs, in this process."""
    rng = np.random.default_rng(seed)
    known = bases()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # libsndfile looks for files beside those it cannot tell
        for _ in range(count):
            base = known[int(rng.integers(len(known)))]
            how, data, expected = mutant(base, rng)
            outcomes[judge(base, how, data, expected, Path(folder))] += 1
        os.chdir("/")
    return dict(outcomes)


def fuzz(n: int, seed: int = 0, limit_s: float = LIMIT_S) -> Counter[str]:
    """Outcomes of `n` inputs, in children; one that does not end is a hang, one that dies a crash."""
    outcomes: Counter[str] = Counter()
    for start in range(0, n, BATCH):
        count = min(BATCH, n - start)
        command = [sys.executable, __file__, "--batch", str(count), "--seed", str(seed + start)]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            outcomes["hang"] += 1
            continue
        if ended.returncode:
            outcomes[f"crash: {ended.returncode}: {ended.stderr[-200:].decode('utf-8', 'replace')}"] += 1
        else:
            outcomes.update(json.loads(ended.stdout.splitlines()[-1]))
    return outcomes


def summary(outcomes: Counter[str]) -> dict[str, Any]:
    """Inputs, outcomes and faults by name."""
    bad = {name: count for name, count in outcomes.items() if name.startswith(FAULTS)}
    return {"inputs": sum(outcomes.values()), "outcomes": dict(sorted(outcomes.items())), "faults": bad}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.batch:
        print(json.dumps(batch(arguments.batch, arguments.seed)))
        return 0
    found = summary(fuzz(arguments.inputs, arguments.seed))
    print(json.dumps(found, indent=2))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
