"""A fine-tuning under a real limit of memory, as a batch system or a container sets one.

    python -m tests.asr.limited_memory PREPARED ENCODER FOLDER      # prints result.json of the limited training

Child of test_limited_memory.py: a limit on the address space holds for a whole process.
"""

import json
import logging
import resource
import sys
from pathlib import Path
from typing import Any

from tasks.asr.train import train
from tests.tiny_asr import tiny_settings

SMALL_S, LARGE_S = 2.0, 40.0
# Beyond what a training with small batches takes: half of what a large batch takes (310 MB; one of 5 s takes 12).
ROOM_BYTES = 150 * 2**20


def run(prepared: Path, encoder: Path, folder: Path, batch_seconds: float) -> dict[str, Any]:
    """Three steps."""
    return train(
        tiny_settings(encoder, steps=3, batch_seconds=batch_seconds, evaluate_every=3, checkpoint_every=3),
        prepared=prepared,
        out_dir=folder / "checkpoint",
        training_dir=folder / "training",
        work_dir=folder / "work",
    )


def largest_address_space() -> int:
    """Of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmPeak")) * 1024


def main(prepared: Path, encoder: Path, folder: Path) -> None:
    """A training with small batches first, which loads all libraries and evaluates once; then the limit."""
    logging.basicConfig(level=logging.WARNING)
    run(prepared, encoder, folder / "small", SMALL_S)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (largest_address_space() + ROOM_BYTES, hard))
    print(json.dumps(run(prepared, encoder, folder / "large", LARGE_S)))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
