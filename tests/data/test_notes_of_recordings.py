"""What was put right in a recording stands in its row, and the card says it once for many, by name."""

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from tasks.data.own.intake import take_audio
from tasks.data.own.paths import Found


def test_what_was_put_right_is_in_each_row_and_told_once_for_many(tmp_path: Path) -> None:
    names = [f"a{number}.wav" for number in range(6)]
    for number, name in enumerate(names):
        soundfile.write(tmp_path / name, 0.1 * np.ones(8_000 + number), 16_000)
        content = bytearray((tmp_path / name).read_bytes())
        if number:  # an early size, written before the last samples came: another in each file
            content[40:44] = struct.pack("<I", 2_000 + 2 * number)
        (tmp_path / name).write_bytes(bytes(content))
    frame = pd.DataFrame({"path": names, "origin_path": names, "sha256": ""})
    frame = frame.assign(duration_s=0.0, sample_rate_hz=0, origin_detail="")
    (tmp_path / "corpus").mkdir()
    found = [Found(tmp_path / name) for name in names]
    rows, notes = take_audio(frame, found, tmp_path / "corpus")
    assert rows["origin_detail"].tolist() == [
        f"states {2_000 + 2 * number} bytes of samples and holds {16_000 + 2 * number}: all were read"
        if number
        else ""
        for number in range(6)
    ]
    told = [note for note in notes if "states" in note]
    assert told == [
        "5 files: states N bytes of samples and holds N: all were read (a1.wav, a2.wav, a3.wav and 2 more)"
    ]
