"""`malgil asr stream` on a terminal: text grows in its place, in rows of wide syllables, and Ctrl-C ends it."""

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from flows.asr_screen import Screen, UntilInterrupted
from flows.cli import app
from tasks.asr.checkpoints.checkpoint import Vocabulary, load_encoder, save_checkpoint
from tasks.asr.streaming.recogniser import Partial

ROOT = Path(__file__).parents[2]
CONTROL = re.compile(r"\x1b\[(\d*)([A-Za-z])")


class Terminal:
    """What a user sees: a screen of `columns` and `lines` that wraps, scrolls and knows wide characters."""

    def __init__(self, columns: int, lines: int) -> None:
        self.size = os.terminal_size((columns, lines))
        self.gone: list[str] = []  # rows that have left at the top
        self.rows: list[list[str]] = [[] for _ in range(lines)]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            if control := CONTROL.match(text, at):
                self._control(control[2], int(control[1] or 1))
                at = control.end()
                continue
            self._write(text[at])
            at += 1

    def _control(self, kind: str, number: int) -> None:
        if kind == "A":
            self.row = max(0, self.row - number)
        elif kind == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            self.rows[self.row + 1 :] = [[] for _ in self.rows[self.row + 1 :]]
        else:
            assert kind == "m", f"the terminal is told {kind}"

    def _write(self, character: str) -> None:
        if character in "\r\n":
            self.column = 0
            if character == "\n":
                self._down()
            return
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self.column + width > self.size.columns:
            self._down()
            self.column = 0
        self.rows[self.row][self.column :] = [character, *[""] * (width - 1)]
        self.column += width

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.gone.append("".join(self.rows.pop(0)))
            self.rows.append([])
            self.row -= 1

    @property
    def seen(self) -> str:
        """All text, rows joined."""
        return "".join([*self.gone, *("".join(row) for row in self.rows)])


def show(screen: Screen, one: Partial, terminal: Terminal, output: io.StringIO) -> None:
    screen.show(one)
    terminal.feed(output.getvalue())
    output.seek(0)
    output.truncate()


def partial(committed: str, tentative: str = "", final: bool = False) -> Partial:
    return Partial(0, committed, tentative, final, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("columns", [80, 20, 7, 2])
def test_a_growing_text_is_written_over_itself(columns: int) -> None:
    """However many rows it takes, and where a wide syllable does not fit into the last column."""
    terminal, output = Terminal(columns, 40), io.StringIO()
    screen = Screen(output, lambda: terminal.size)
    said = ""
    for text in ("거실 불 켜 줘", "a나 닫아"):
        for length in range(1, len(text) + 1):
            show(
                screen,
                partial(text[: max(0, length - 3)], text[max(0, length - 3) : length]),
                terminal,
                output,
            )
            assert terminal.seen == said + text[:length]
        show(screen, partial(text, final=True), terminal, output)
        said += text
        assert terminal.seen == said


def test_of_a_text_larger_than_the_screen_the_end_is_shown_until_it_is_final() -> None:
    terminal, output = Terminal(4, 2), io.StringIO()
    screen = Screen(output, lambda: terminal.size)
    text = "거실 불 켜 줘"
    for length in range(1, len(text) + 1):
        show(screen, partial(text[: length - 1], text[length - 1 : length]), terminal, output)
        assert not terminal.gone and text[:length].endswith(terminal.seen) and terminal.seen
    show(screen, partial(text, final=True), terminal, output)
    assert terminal.seen == text


def test_what_the_recogniser_has_committed_is_plain_and_the_rest_grey() -> None:
    output = io.StringIO()
    Screen(output, lambda: os.terminal_size((80, 24))).show(partial("거실 ", "부"))
    assert output.getvalue() == "\r\x1b[J거실 \x1b[2m부\x1b[0m"


@pytest.fixture(scope="module")
def talker(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained recogniser that says whole syllables, two columns wide."""
    folder = tmp_path_factory.mktemp("talker")
    vocabulary = Vocabulary.of_symbols(tuple("가나다라마바사아자차카타파하"))
    model = load_encoder(str(encoder), vocabulary, seed=4)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    save_checkpoint(folder, model, vocabulary, {})
    return folder


@pytest.fixture
def plain_ctrl_c() -> Iterator[None]:
    """Python's own handler: another test may have left that of a library."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("plain_ctrl_c")
def test_ctrl_c_waits_for_the_block_in_hand_and_a_second_one_does_not() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        for number in UntilInterrupted(range(10)):
            if number == 2:
                signal.raise_signal(signal.SIGINT)  # in the middle of computing
            done.append(number)
    assert done == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        for _ in UntilInterrupted(range(10)):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the second one was not heard")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("plain_ctrl_c")
def test_ctrl_c_is_heard_at_once_while_a_block_is_waited_for() -> None:
    def silent() -> Iterator[int]:
        yield 1
        signal.raise_signal(signal.SIGINT)
        yield 2

    heard = []
    with pytest.raises(KeyboardInterrupt):
        for block in UntilInterrupted(silent()):
            heard.append(block)
    assert heard == [1]


def talk(path: Path, seconds: float) -> Path:
    audio = np.random.default_rng(3).standard_normal(round(seconds * 16_000)) * 0.1
    audio[len(audio) // 2 : len(audio) // 2 + 32_000] = 0
    soundfile.write(path, audio, 16_000)
    return path


def start(terminal: Terminal, *arguments: object) -> tuple["subprocess.Popen[bytes]", int]:
    """The command with the terminal as its own, and our end of it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(
        theirs, termios.TIOCSWINSZ, struct.pack("HHHH", terminal.size.lines, terminal.size.columns, 0, 0)
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    environment.pop("LINES", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "asr", "stream", "--greedy", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C on it is then ours to press
    )
    os.close(theirs)
    return process, ours


def read(ours: int, until: str | None = None, limit_s: float = 600.0) -> str:
    """What the terminal is sent, up to the first `until`, or all."""
    data, deadline = b"", time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1.0)[0]:
            continue
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        data += piece
        if until and until in data.decode("utf-8", "ignore"):
            break
    return data.decode("utf-8")


def test_the_command_rewrites_its_line_and_leaves_the_final_texts(talker: Path, tmp_path: Path) -> None:
    recording = talk(tmp_path / "a.wav", 7.0)
    arguments = ["asr", "stream", "--greedy", "--json", "--model", str(talker), str(recording)]
    said = CliRunner().invoke(app, arguments, catch_exceptions=False)
    partials = [json.loads(line) for line in said.stdout.splitlines()][:-1]
    finals = [one["committed"] for one in partials if one["final"]]
    terminal = Terminal(30, 24)
    assert max(len(text) for text in finals) > 15 and len(partials) > len(finals) + 3, "nothing to rewrite"
    process, ours = start(terminal, "--model", talker, recording)
    sent = read(ours)
    error = process.communicate()[1].decode()
    assert process.returncode == 0 and "Traceback" not in error and "real time" in error
    frames = sent.split("\r\x1b[J")
    assert len(frames) - 1 == len(partials)  # everything is shown, and each time over what was there
    terminal.feed(sent)
    assert terminal.seen == "".join(finals)
    assert "A\r\x1b[J" in sent  # it went up: the text took more than a row


def test_ctrl_c_ends_the_stream_with_the_text_so_far(talker: Path, tmp_path: Path) -> None:
    recording = talk(tmp_path / "a.wav", 200.0)
    terminal = Terminal(80, 24)
    process, ours = start(terminal, "--realtime", "--model", talker, recording)
    sent = read(ours, until="\x1b[0m")
    assert "\x1b[2m" in sent, "no partial came"
    os.write(ours, b"\x03")
    sent += read(ours)
    error = process.communicate()[1].decode()
    assert process.returncode == 0 and "Traceback" not in error
    heard = re.search(r"; (\d+\.\d) s at ", error)
    assert heard and float(heard[1]) < 199, f"the rest of the recording was waited for: {error}"
    terminal.feed(sent.replace("^C", ""))
    assert sent.endswith("\r\n") and terminal.seen
