"""A microphone through PortAudio and ALSA, whose capture device here plays a file: no sound card is needed.

Needs the package sounddevice and the library PortAudio (Debian: libportaudio2). In processes of their own, for
ALSA reads its configuration once. ALSA's `file` plugin reads more than it hands over when its buffer wraps:
blocks are then missing between two others, but each is whole and they keep their order.
"""

import ctypes.util
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import DataError
from tests.children import communicate, run

ROOT = Path(__file__).parents[2]
NEEDED = importlib.util.find_spec("sounddevice") and ctypes.util.find_library("portaudio")
pytestmark = pytest.mark.skipif(
    not NEEDED or sys.platform != "linux",
    reason="needs ALSA, `pip install sounddevice` and `apt-get install libportaudio2`",
)
DEVICES = """
pcm.silence {{ type null }}
pcm.recording {{
    type file
    slave.pcm silence
    file /dev/null
    infile "{sound}"
    format raw
}}
pcm.!default {{
    type plug
    slave {{ pcm recording  format S16_LE  rate 16000  channels 1 }}
}}
"""
HEAR = """
import sys
from itertools import islice
import numpy as np
from tasks.asr.recordings.clipping import Clipping
from tasks.asr.streaming.source import from_microphone
clipping = Clipping()
blocks = list(islice(from_microphone(clipping), 10))
np.savez(sys.argv[1], *blocks, share=clipping.share)
"""


def environment(folder: Path, devices: str) -> dict[str, str]:
    (folder / "asound.conf").write_text(devices)
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "ALSA_CONFIG_PATH": str(folder / "asound.conf"), "PYTHONPATH": path}


def test_the_default_microphone_is_heard_block_by_block(tmp_path: Path) -> None:
    sound = tmp_path / "sound.raw"
    counted = np.arange(-32_000, 32_000).astype("<i2")  # every sample says where it stands
    np.concatenate([np.full(1_600, 32_767, "<i2"), counted]).tofile(sound)
    run(
        [sys.executable, "-c", HEAR, str(tmp_path / "heard.npz")],
        env=environment(tmp_path, DEVICES.format(sound=sound)),
        check=True,
    )
    with np.load(tmp_path / "heard.npz") as heard:
        first, *blocks = (heard[f"arr_{number}"] for number in range(10))
        share = float(heard["share"])
    assert share == pytest.approx(0.1) and np.all(first == np.float32(32_767 / 32_768))
    assert {(block.dtype, block.shape) for block in blocks} == {(np.dtype(np.float32), (1_600,))}
    places = np.array([block[0] for block in blocks]) * 32_768
    assert places[0] == -32_000 and np.all(np.diff(places) >= 1_600)
    for block, place in zip(blocks, places, strict=True):
        assert np.array_equal(block * 32_768, place + np.arange(1_600))


@contextmanager
def speaking(sound: Path) -> Iterator[None]:
    """Noise with pauses into the pipe `sound`, five times as fast as speech, until the end of the block."""
    os.mkfifo(sound)
    pipe = os.open(sound, os.O_RDWR)  # both ends: nobody waits for the other to open it
    done = threading.Event()

    def speak() -> None:
        rng = np.random.default_rng(3)
        for number in itertools.count():
            loudness = 3_000 * (number % 40 < 25)
            os.write(pipe, (rng.standard_normal(1_600) * loudness).astype("<i2").tobytes())
            if done.wait(0.02):
                break

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        yield
    finally:
        done.set()
        os.read(pipe, 65_536)  # so that a write that waits can end
        speaker.join()
        os.close(pipe)


def test_ctrl_c_switches_the_microphone_off_and_makes_the_text_final(
    checkpoint: Path, tmp_path: Path
) -> None:
    sound = tmp_path / "sound"
    command = [sys.executable, "-m", "flows.cli", "asr", "stream", "--microphone", "--json", "--greedy"]
    with (
        speaking(sound),
        subprocess.Popen(
            [*command, "--model", str(checkpoint)],
            cwd=ROOT,
            env=environment(tmp_path, DEVICES.format(sound=sound)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(json.loads(line))
            if len(lines) == 5:
                process.send_signal(signal.SIGINT)
        error = communicate(process)[1]
    assert process.returncode == 0 and "Traceback" not in error, error
    *partials, ended = lines
    assert len(partials) >= 5 and partials[-1]["final"]
    assert ended["text"] == " ".join(
        one["committed"] for one in partials if one["final"] and one["committed"]
    )
    assert ended["text"] and ended["mode"] == "windowed" and ended["audio_s"] > 1.0


def test_a_machine_without_a_microphone_says_so(checkpoint: Path, tmp_path: Path) -> None:
    done = run(
        [sys.executable, "-m", "flows.cli", "asr", "stream", "--microphone", "--model", str(checkpoint)],
        cwd=ROOT,
        env=environment(tmp_path, "pcm.!default { type hw  card 7 }"),
        text=True,
    )
    assert done.returncode == DataError.exit_code and "Traceback" not in done.stderr
    assert "no microphone" in done.stderr and "stream a file" in done.stderr
