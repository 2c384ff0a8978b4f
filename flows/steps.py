"""DVC stages as plain functions that a Prefect task can wrap: is it fresh, and make it.

DVC alone decides what is fresh. A fresh stage costs a look (in this process, hundredths of a second);
any other runs as `dvc repro -s <stage>` in a child, its output in build/logs/<stage>.log and its log
lines passed on.
"""

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows import process
from flows.environment import cores
from tasks.errors import ConflictError, MalgilError
from tasks.freshness import write_sources
from tasks.params import RESOLVED, SOURCES, read_yaml, write_resolved
from tasks.settings import Params

BUILD, LOGS = Path("build"), Path("build/logs")
LEFT_S = 3600.0
RWLOCK = Path(".dvc/tmp/rwlock")
GRAPH, PARAMS = Path("dvc.yaml"), Path("params.yaml")
SHARED = ("commands", "corpus", "embed_asr", "validate", "prepare_asr")
LINES: dict[str, tuple[str, ...]] = {
    "asr": ("train_asr", "language_model_asr", "export_asr", "evaluate_asr"),
    "llm": (
        "prepare_llm",
        "base_llm",
        "evaluate_base_llm",
        "train_llm",
        "merge_llm",
        "convert_llm",
        "quantise_llm",
        "verify_llm",
        "evaluate_llm",
    ),
}
PREPARED = {"asr": "prepare_asr", "llm": "prepare_llm"}  # what makes the test set of a line
ROAD = ("prepare_llm", "evaluate_road")  # the shipped files of both lines
YIELDING = ("evaluate_base_llm",)  # nothing waits for it until late: it takes what the trainings leave
BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
BUSY_RETRIES, BUSY_WAIT_S = 30, 2.0
STAMP = re.compile(r"^\d\d:\d\d:\d\d (?:malgil\.progress )?")
RESTORED = re.compile(r"^Stage '.*' (?:is cached - skipping run|didn't change, skipping)")

log = logging.getLogger("malgil")
_dvc = threading.Lock()  # one look at the repository at a time in this process


@dataclass(frozen=True)
class StageRun:
    """What a stage cost in this run. `cached`: nothing was computed."""

    seconds: float
    peak_rss_mb: float
    cached: bool
    fresh: bool = False  # not even restored: its outputs stood as they should

    def summary(self) -> dict[str, float | bool]:
        """Its entry in build/summary.json."""
        return {"seconds": round(self.seconds, 2), "peak_rss_mb": self.peak_rss_mb, "cached": self.cached}


class StageFailed(MalgilError):
    """A stage ended with an error; carries its own message, its exit code and the end of its log."""

    def __init__(self, stage: str, code: int, lines: list[str], log_path: Path) -> None:
        said = [line for line in lines if re.match(r"^[\w.]+: \w+Error: ", line) or line.startswith("  - ")]
        message = "\n".join(said) if said else f"it ended with exit code {code}"
        super().__init__(
            f"stage {stage} failed",
            f"{message}\n--- the end of {log_path} ---\n" + "\n".join(lines) + "\n---",
            f"mend that, then start the same command again; finished stages are kept. Whole log: {log_path}",
        )
        inner = re.search(r"exited with (\d+)", "\n".join(lines))
        self.exit_code = int(inner[1]) if inner else 2
        if not 2 <= self.exit_code <= 5:  # not one of ours: a crash of the stage
            self.exit_code = 1


def plan(lines: Sequence[str], *, road: bool) -> dict[str, list[str]]:
    """What a run makes: each stage, in the order of dvc.yaml, with the stages whose outputs it reads.

    A stage can start as soon as those are made, so the lines need no order of their own.

    Args:
        lines: the lines of the run.
        road: whether the shipped files of both lines are evaluated together.
    """
    names = {*SHARED, *(stage for line in lines for stage in LINES[line]), *(ROAD if road else ())}
    stages = {name: stage for name, stage in read_yaml(GRAPH)["stages"].items() if name in names}
    outs = {name: _paths(stage.get("outs", ())) for name, stage in stages.items()}
    reads = {name: _paths(stage.get("deps", ())) for name, stage in stages.items()}
    return {
        name: [other for other in stages if any(_overlap(out, read) for out in outs[other] for read in own)]
        for name, own in reads.items()
    }


def _paths(entries: Sequence[str | dict[str, object]]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def _overlap(out: str, read: str) -> bool:
    return out == read or read.startswith(f"{out}/") or out.startswith(f"{read}/")


def settle(quick: bool, overrides: Sequence[str]) -> Params:
    """Writes this run's settings as the stage `settings` does, which is never fresh: DVC has no say in it.

    Raises:
        SettingsError: with every mistake.
    """
    began = time.monotonic()
    params = write_resolved(PARAMS, RESOLVED, quick=quick, sets=overrides)
    write_sources(params, SOURCES)
    log.info("%-13s | made in %.1f s", "settings", time.monotonic() - began)
    return params


def make(stage: str, environment: Mapping[str, str] | None = None, *, known_fresh: bool = False) -> StageRun:
    """Brings a stage up to date.

    Args:
        stage: its name in dvc.yaml; the stages before it must be up to date.
        environment: what the stage sees over this process's environment.
        known_fresh: nobody need look again (`find_fresh`).

    Raises:
        StageFailed: with the stage's own message.
        ConflictError: another DVC process holds its files for over a minute.
    """
    began = time.monotonic()
    if known_fresh or is_fresh(stage):
        log.info("%-13s | fresh", stage)
        return StageRun(time.monotonic() - began, 0.0, cached=True, fresh=True)
    log_path = LOGS / f"{stage}.log"
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", stage]
    if stage in YIELDING:
        command = ["nice", "-n", "10", *command]
    full = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
    for attempt in range(BUSY_RETRIES):
        ended = process.run(command, log=log_path, environment=full, on_line=partial(_pass_on, stage))
        lines = process.tail(log_path, 25)
        if ended.stopped:
            raise KeyboardInterrupt
        if ended.code == 0:
            cached = any(RESTORED.match(line) for line in lines)
            took = f"{ended.seconds:.1f} s, {ended.peak_rss_mb:.0f} MB"
            log.info("%-13s | %s in %s", stage, "restored" if cached else "made", took)
            return StageRun(time.monotonic() - began, ended.peak_rss_mb, cached=cached)
        if not BUSY.search("\n".join(lines)):
            raise StageFailed(stage, ended.code, lines, log_path)
        log.info("%-13s | its files are locked by another DVC process; again in %.0f s", stage, BUSY_WAIT_S)
        time.sleep(BUSY_WAIT_S + 0.1 * attempt)
    raise ConflictError(
        f"stage {stage} waited for DVC's lock in vain",
        "another `dvc` command works on the same files",
        "let it end (its pid is in " + str(log_path) + "), then start the same command again",
    )


def has_commands(speech: Path) -> bool:
    """Whether both test splits of the prepared speech have utterances with a tool call: else there is no road
    to drive down, and its stage would refuse. True where that cannot be read: the stage says why.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(speech / "utterances.parquet", columns=["split", "tool_call"])
    except (OSError, pa.ArrowException):
        return True
    called = table.filter(pc.field("tool_call").is_valid() & (pc.field("tool_call") != ""))
    return set(called["split"].to_pylist()) >= {"test_sentences", "test_voices"}


def is_fresh(stage: str) -> bool:
    """Whether DVC finds a stage's code, values, inputs and outputs as its lock file says."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with _dvc, Repo(".", _wait_for_lock=True) as repo:
            return not repo.status(targets=[stage])
    except DvcException as error:  # locked files, a broken dvc.yaml: `dvc repro` waits, or says what it is
        log.info("%-13s | DVC cannot tell whether it is fresh (%s); asking it to make it", stage, error)
        return False


def find_fresh(planned: Mapping[str, Sequence[str]]) -> set[str]:
    """The stages of a plan that need no other look: fresh, and so is all that they were made from.

    DVC opens the project once for all of them. A fresh stage below a stale one is looked at again when that
    one is made.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with _dvc, Repo(".", _wait_for_lock=True) as repo:
            stale = set(repo.status(targets=list(planned)))
    except DvcException as error:
        log.debug("DVC cannot tell which stages are fresh (%s)", error)
        return set()
    fresh: set[str] = set()
    for stage, reads in planned.items():
        if stage not in stale and fresh.issuperset(reads):
            fresh.add(stage)
    return fresh


def threads(lines_at_work: int) -> dict[str, str]:
    """The environment that shares the cores among the lines at work."""
    return {"OMP_NUM_THREADS": str(max(1, cores() // max(1, lines_at_work)))}


def clear_stale_locks() -> None:
    """Removes what a killed DVC left in its lock table; call it while holding the run lock.

    DVC drops entries of dead processes by itself, but not those whose pid another program has got since,
    and it stops at a table cut off in the middle of a write.
    """
    try:
        table = json.loads(RWLOCK.read_text("utf-8"))
        entries = [*table.get("write", {}).values(), *(i for r in table.get("read", {}).values() for i in r)]
        alive = [entry for entry in entries if _holds(int(entry["pid"]), str(entry["cmd"]))]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError):
        entries, alive = [{}], []
    if entries and not alive:
        log.info("a killed run had left DVC's lock table behind; removed")
        RWLOCK.unlink(missing_ok=True)


def clear_left_files() -> None:
    """Removes half-written files of killed writers from build/; call it while holding the run lock.

    A living writer (a stage started by hand) has touched its file within the hour. Half-written folders are
    removed by the next writer of the same folder.
    """
    for path in BUILD.rglob(".*.part"):
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > LEFT_S:
                path.unlink()
                log.info("removed %s, which a killed run had left half-written", path)
        except OSError:
            continue  # gone meanwhile, or not ours to remove


def _holds(pid: int, command: str) -> bool:
    """Whether a process is the one that wrote a lock, by the end of its command line.

    Where a program stands says nothing: any program of a folder named malgil would be taken for ours.
    """
    import psutil

    try:
        words = " ".join(psutil.Process(pid).cmdline()).split()
    except psutil.Error:
        return False
    return words[-1:] == command.split()[-1:]


def _pass_on(stage: str, line: str) -> None:
    """Log lines of the stage go on with its name; DVC's own talk and library chatter stay in the file."""
    if STAMP.match(line):
        log.info("%-13s | %s", stage, STAMP.sub("", line))
