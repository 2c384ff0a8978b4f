"""`malgil check`: everything that can be known before work, all faults at once, each with its remedy.

    malgil check [--line asr|llm|all] [--quick] [-S section.key=value]... [--json]

The checks are in `tasks.preflight`; here stand those of the servers, the printing, and the call with which a
run begins. `malgil doctor` looks at the machine and its installation, whatever is to be run on it.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows import server
from flows.environment import QUIET, find_project
from tasks.errors import MalgilError
from tasks.preflight.finding import Check, Finding, Subject, as_json, exit_code, faults, ok, warning

PARAMS = Path("params.yaml")
AGAIN_S = 120.0  # within one process: the command has just looked when its flow begins
SERVERS = "servers"
_looked: dict[tuple[str, bool, tuple[str, ...]], float] = {}
log = logging.getLogger("malgil")


def quieten() -> None:
    """What no library may do without being asked (`flows.environment`), without making a folder."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "HF_ENDPOINT" in os.environ:
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")


def lines_of(line: str) -> tuple[str, ...]:
    """The lines of a `--line`."""
    return ("asr", "llm") if line == "all" else (line,)


def look_at_servers(subject: Subject) -> Iterator[Finding]:
    """The Prefect server that a run would use; the ports of `malgil up`."""
    url = os.environ.get("PREFECT_API_URL")
    if url and not server.is_healthy(url):
        raise MalgilError(
            f"no Prefect server answers at {url}",
            "a flow needs one",
            "correct or unset PREFECT_API_URL (without it Malgil starts its own server)",
        )
    if url:
        yield ok(SERVERS, f"Prefect at {url}")
        return
    running = server.running_up()
    if running:
        yield ok(SERVERS, f"Prefect of `malgil up` at {running}")
        return
    server.free_port()  # raises OSError where no port of this machine can be bound
    yield ok(SERVERS, "Prefect is started with the run")
    taken = [
        f"{port} ({what})" for what, port in (("Prefect", 4200), ("MLflow", 5000)) if not server.is_free(port)
    ]
    if taken:
        yield warning(
            SERVERS,
            f"in use: port {' and '.join(taken)}",
            "`malgil up` takes them unless it is told others; a run needs neither",
            "malgil up --prefect-port N --mlflow-port N",
        )


def findings_of(
    line: str, quick: bool, overrides: Sequence[str], *, progress: bool = False, keep: bool = True
) -> list[Finding]:
    """What is found of a run: its settings first, then every check that they allow."""
    quieten()
    from tasks.preflight.check import examine, look_at_settings

    subject, findings = look_at_settings(PARAMS, quick=quick, sets=overrides, lines=lines_of(line))
    shown = progress and sys.stderr.isatty()

    def advance(name: str) -> None:
        if shown:
            print(f"\r\x1b[Kchecking {name} …", end="", file=sys.stderr, flush=True)

    more = (Check(SERVERS, (), look_at_servers),)
    found = examine(subject, more=more, advance=advance, keep=keep and not faults(findings))
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return [*findings, *found]


def before_run(line: str, quick: bool, overrides: Sequence[str]) -> None:
    """The first seconds of a run: refuses what cannot work, says what is doubtful.

    Raises:
        Preflight: with every fault. Nothing has been started or written.
    """
    from tasks.preflight.check import require

    key = (line, quick, tuple(overrides))
    if time.monotonic() - _looked.get(key, -AGAIN_S) < AGAIN_S:
        return
    began = time.monotonic()
    findings = findings_of(line, quick, overrides)
    require(findings)
    for finding in findings:
        if finding.state == "warning" and finding.check != "project":  # the run says that as it begins
            log.warning("%s: %s", finding.check, finding)
    log.info("checked in %.1f s: nothing is in the way of this run", time.monotonic() - began)
    _looked[key] = time.monotonic()


def check_and_print(line: str, quick: bool, overrides: Sequence[str], *, json_wanted: bool) -> int:
    """Prints what is found of a run; returns the exit code."""
    find_project()
    began = time.monotonic()
    findings = findings_of(line, quick, overrides, progress=not json_wanted)
    took = time.monotonic() - began
    if json_wanted:
        found = {"ok": not faults(findings), "seconds": round(took, 2), "findings": as_json(findings)}
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return exit_code(findings)
    for finding in findings:
        mark = {"ok": "ok     ", "warning": "warning", "fault": "FAULT  "}[finding.state]
        print(f"{mark}  {finding.check:15}  {finding.what}")
        if finding.state != "ok":
            print(f"{'':26}{finding.rule}\n{'':26}Next: {finding.next_step}")
    count = len(faults(findings))
    warnings = sum(finding.state == "warning" for finding in findings)
    said = f"{count} fault{'s' * (count != 1)}" if count else "Nothing is in the way of this run"
    print(f"{said}{f', {warnings} to know of' if warnings else ''} ({took:.1f} s).")
    return exit_code(findings)
