"""The audio of single utterances as `data:` addresses, few and small enough to be carried inside a page."""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.data.audio import flac_bytes

MAX_CLIPS = 26  # the worst in domain, and those of every kind out of domain
MAX_SECONDS = 15.0
MAX_TOTAL_BYTES = 3_000_000  # before base64, which adds a third
_RATE_HZ = 16_000


def read_clips(prepared: Path, utterance_ids: Sequence[str]) -> dict[str, str]:
    """FLAC data addresses of the first MAX_CLIPS utterances, as the recogniser heard them.

    What is longer than MAX_SECONDS, or no longer fits into MAX_TOTAL_BYTES, is left out; so is everything
    when the prepared audio is not there.
    """
    table, samples = prepared / "utterances.parquet", prepared / "audio.npy"
    if not (table.is_file() and samples.is_file()):
        return {}
    rows = pd.read_parquet(table, columns=["utterance_id", "offset", "samples"]).set_index("utterance_id")
    store = np.load(samples, mmap_mode="r")
    clips: dict[str, str] = {}
    left = MAX_TOTAL_BYTES
    for name in [name for name in dict.fromkeys(utterance_ids) if name in rows.index][:MAX_CLIPS]:
        offset, length = int(rows["offset"][name]), int(rows["samples"][name])
        if length > MAX_SECONDS * _RATE_HZ:
            continue
        data = flac_bytes(store[offset : offset + length].astype(np.float32) / 32767.0)
        if len(data) > left:
            continue
        left -= len(data)
        clips[name] = "data:audio/flac;base64," + base64.b64encode(data).decode("ascii")
    return clips
