"""`malgil asr transcribe` as a user calls it: what is printed and written, in which form, and the exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from flows import asr_commands
from flows.cli import app
from tasks.asr.recordings.clipping import MOST
from tasks.errors import DataError
from tests.children import run

ROOT = Path(__file__).parents[2]


def malgil(*arguments: object, standard_input: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return run(
        [sys.executable, "-m", "flows.cli", "asr", "transcribe", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=standard_input,
    )


def test_the_command_prints_the_good_and_names_the_bad(odd: Path, shipped: Path) -> None:
    ended = malgil(
        odd, "-", "--model", shipped, "--format", "json", standard_input=(odd / "deep/good.wav").read_bytes()
    )
    rows = {Path(row["path"]).stem: row for row in json.loads(ended.stdout)}
    message = ended.stderr.decode()
    assert ended.returncode == 2 and "Traceback" not in message
    assert len(rows) == 6 and rows["-"]["text"] == rows["good"]["text"] != ""
    assert rows["good"]["model_sha256"] == json.loads((shipped / "malgil.json").read_text())["sha256"]
    assert [row["path"] for row in rows.values() if row["warnings"]] == [
        str(odd / name) for name in ("clipped.ogg", "one_sample.wav")
    ]
    assert rows["clipped"]["clipped_share"] > MOST and rows["clipped"]["warnings"][0] in message
    assert "6 of 12 recordings have no text" in message and "bad_nan.wav holds NaN" in message


def test_the_command_writes_a_file_per_recording(
    odd: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asr_commands, "log_to_console", lambda: None)
    out = tmp_path / "out"
    given = [odd / "deep", odd / "clipped.ogg", "--model", checkpoint, "--decoder", "greedy", "--out", out]
    ended = CliRunner().invoke(app, ["asr", "transcribe", *map(str, given), "--format", "textgrid"])
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["clipped.TextGrid", "good.TextGrid"]
    assert (out / "good.TextGrid").read_text().startswith('File type = "ooTextFile"')


def test_subtitles_of_several_recordings_need_a_folder(odd: Path) -> None:
    ended = malgil(odd, "--format", "srt")
    assert ended.returncode == 2 and b"--out DIR" in ended.stderr and not ended.stdout


def test_one_bad_file_of_many_stops_nothing(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for index in range(50):
        soundfile.write(folder / f"{index:02d}.wav", rng.uniform(-0.3, 0.3, 3_200 + 160 * index), 16_000)
    (folder / "23.wav").write_bytes((folder / "23.wav").read_bytes()[:2_000])
    ended = CliRunner().invoke(app, ["asr", "transcribe", str(folder), "--model", str(shipped)])
    assert ended.exit_code == DataError.exit_code
    told = [line.partition("\t")[0] for line in ended.stdout.splitlines()]
    assert told == [str(folder / f"{index:02d}.wav") for index in range(50) if index != 23]
    assert "23.wav is truncated" in ended.stderr and "1 of 50 recordings" in ended.stderr


def test_transcribing_by_onnx_never_imports_torch(shipped: Path, noises: list[Path]) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app;"
        "ended = CliRunner().invoke(app, ['asr', 'transcribe', *sys.argv[1:]]);"
        "print(ended.exit_code, [m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(noises[0]), "--model", str(shipped)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.strip() == "0 []"
