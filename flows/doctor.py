"""`malgil doctor`: what this machine has, what it lacks, and how to mend it.

Each check is a small function that returns a Finding; nothing is changed. A finding is `ok`, `missing`
(the road does not run without it: exit code 1) or `absent` (optional).
"""

import ctypes
import json
import os
import shutil
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from flows.environment import PROJECT_FILES, cores
from tasks.artifacts import sha256_file
from tasks.checkout import NO_COMMIT, read_checkout
from tasks.cpu import describe_cpu, model_name
from tasks.errors import MalgilError

PACKAGING, CONSTRAINTS = Path("pyproject.toml"), Path("constraints.txt")
BASE_MODEL = Path("infra/base-model.txt")
WHEELS, ENCODER = Path("store/wheels"), Path("models/malgil-xlsr-mini")
MIN_DISK_GB, MIN_MEMORY_GB = 8.0, 6.0
PORTS = {"Prefect": 4200, "MLflow": 5000}
REINSTALL = "make setup"


class Finding(NamedTuple):
    """The answer of one check."""

    check: str
    state: Literal["ok", "missing", "absent"]
    found: str
    mend: str = ""


def examine(*, as_json: bool = False) -> bool:
    """Prints all findings; returns whether nothing that is required is missing."""
    findings = [finding for check in CHECKS for finding in check()]
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], ensure_ascii=False, indent=2))
    else:
        _print(findings)
    return all(finding.state != "missing" for finding in findings)


def check_python() -> Iterator[Finding]:
    """Python 3.11, the version that the engines are built for."""
    version = ".".join(map(str, sys.version_info[:3]))
    right = sys.version_info[:2] == (3, 11)
    yield _required("Python 3.11", right, version, "make setup PYTHON=/path/to/python3.11")


def check_programs() -> Iterator[Finding]:
    """Programs that an installation and DVC call."""
    for name, why in {"git": "lineage", "make": "the verbs", "gcc": "triton on a GPU"}.items():
        path = shutil.which(name)
        found = path or f"not on PATH ({why})"
        mend = f"install {name} with the system's package manager"
        yield (
            _required(name, path is not None, found, mend)
            if name != "gcc"
            else _optional(name, path is not None, found, mend)
        )


def check_packages() -> Iterator[Finding]:
    """Every package that pyproject.toml asks for, at the version of constraints.txt."""
    from packaging.requirements import Requirement

    pinned, wrong = _constraints(), []
    needed = [Requirement(line).name for line in _dependencies()]
    if not needed or not pinned:
        yield Finding(
            "packages", "missing", f"{PACKAGING} or {CONSTRAINTS} cannot be read", "restore it from git"
        )
        return
    for name in needed:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        wanted = pinned.get(name.lower().replace("_", "-"))
        if wanted and version.partition("+")[0] != wanted:
            wrong.append(f"{name} {version}, constraints.txt says {wanted}")
    found = "; ".join(wrong) or f"{len(needed)} as in constraints.txt"
    yield _required("packages", not wrong, found, REINSTALL)


def check_espeak() -> Iterator[Finding]:
    """espeak-ng's library from its wheel loads and speaks Korean."""
    try:
        import espeakng_loader

        library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        rate = library.espeak_Initialize(2, 0, str(espeakng_loader.get_data_path()).encode(), 1 << 15)
        korean = rate > 0 and library.espeak_SetVoiceByName(b"ko") == 0
        found = "speaks Korean" if korean else "loads, but has no Korean voice"
    except (ImportError, OSError, AttributeError) as error:
        korean, found = False, f"{error}"
    yield _required("espeak-ng", korean, found, REINSTALL)


def check_machine() -> Iterator[Finding]:
    """The CPU and its instructions for 8-bit products, memory, disk."""
    import psutil

    memory_gb = psutil.virtual_memory().total / 1e9
    disk_gb = shutil.disk_usage(".").free / 1e9
    yield _required("CPU", True, f"{cores()} cores, {model_name()}", "")
    # which kernels the engines choose: what shipped files say does not depend on it, how fast they are does
    yield Finding("8-bit instructions", "ok", describe_cpu())
    found = f"{memory_gb:.1f} GB, {MIN_MEMORY_GB:.0f} needed"
    yield _required(
        "memory", memory_gb >= MIN_MEMORY_GB, found, "close other programs or use a larger machine"
    )
    found = f"{disk_gb:.1f} GB free, {MIN_DISK_GB:.0f} needed"
    yield _required("disk", disk_gb >= MIN_DISK_GB, found, "free some space: `dvc gc -w` drops old artifacts")


def check_project() -> Iterator[Finding]:
    """The project's files, its settings, and folders that can be written."""
    for name in PROJECT_FILES:
        there = Path(name).is_file()
        yield _required(
            name, there, "here" if there else "not in this folder", "work in the project's root folder"
        )
    yield _settings()
    for folder in ("build", "store", ".dvc"):
        reason = _not_writable(Path(folder))
        yield _required(
            f"{folder}/ writable", not reason, reason or "yes", "change its permissions, or its disk"
        )
    yield _checkout()


def check_models() -> Iterator[Finding]:
    """The base model's wheel and the pre-trained encoder, by hash."""
    line = next((x for x in _lines(BASE_MODEL) if "--hash=sha256:" in x), "")
    wanted = line.partition("--hash=sha256:")[2].split()[:1]
    wheels = [wheel for wheel in sorted(WHEELS.glob("*.whl")) if [sha256_file(wheel)] == wanted]
    found = wheels[0].name if wheels else f"no wheel with the hash of {BASE_MODEL} in {WHEELS}"
    yield _required("base model", bool(wheels), found, REINSTALL)
    yield _encoder()


def check_ports() -> Iterator[Finding]:
    """The default ports of `malgil up`."""
    from flows.server import require_port

    for what, port in PORTS.items():
        try:
            require_port(port, what, f"malgil up --{what.lower()}-port")
            yield Finding(f"port {port} ({what})", "ok", "free")
        except MalgilError as error:
            yield Finding(f"port {port} ({what})", "absent", "in use", error.next_step)


def check_optional() -> Iterator[Finding]:
    """GPU, Hub token, an MLflow server where one is configured."""
    from flows.summary import gpu

    name = gpu()
    triton = find_spec("triton") is not None
    found = f"{name or 'none: the CPU is used'}; triton {'is' if triton else 'is not'} installed"
    yield _optional("GPU", name is not None, found, "none needed; with one, install the CUDA build of torch")
    token = bool(os.environ.get("HF_TOKEN"))
    found = "set" if token else "not set"
    yield _optional("HF_TOKEN", token, found, "only for publish.target: hub: export HF_TOKEN=…")
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith("http"):
        yield _required("MLflow server", _reaches(uri), uri, "start it, or unset MLFLOW_TRACKING_URI")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_programs,
    check_packages,
    check_espeak,
    check_machine,
    check_project,
    check_models,
    check_ports,
    check_optional,
)


def _required(check: str, good: bool, found: str, mend: str) -> Finding:
    return Finding(check, "ok" if good else "missing", found, "" if good else mend)


def _optional(check: str, good: bool, found: str, mend: str) -> Finding:
    return Finding(check, "ok" if good else "absent", found, "" if good else mend)


def _constraints() -> dict[str, str]:
    pairs = (line.split("==") for line in _lines(CONSTRAINTS) if "==" in line and not line.startswith("#"))
    return {name.strip().lower().replace("_", "-"): version.split(";")[0].strip() for name, version in pairs}


def _dependencies() -> list[str]:
    try:
        return list(tomllib.loads(PACKAGING.read_text("utf-8"))["project"]["dependencies"])
    except (OSError, ValueError, KeyError):
        return []


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.is_file() else []


def _settings() -> Finding:
    from tasks.params import load

    try:
        load()
    except MalgilError as error:
        return Finding("settings", "missing", f"{error}", error.next_step)
    return Finding("settings", "ok", "params.yaml holds")


def _checkout() -> Finding:
    """What git can tell of the checkout; a repository without a commit is one that has just begun."""
    git = read_checkout(Path.cwd())
    changed = " with uncommitted changes" if git.dirty else ""
    found = git.trouble or f"commit {git.commit[:12]}{changed}"
    if git.trouble == NO_COMMIT:
        return _optional("git repository", False, found, git.mend)
    return _required("git repository", not git.trouble, found, git.mend)


def _not_writable(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{error.strerror or error}"


def _encoder() -> Finding:
    name, mend = "encoder malgil-xlsr-mini", f"git checkout -- {ENCODER}, or make it: malgil pretrain"
    try:
        said = json.loads((ENCODER / "PROVENANCE.json").read_text("utf-8"))
        weights = ENCODER / "model.safetensors"
        digest = sha256_file(weights)
    except (OSError, ValueError, MalgilError):
        return Finding(name, "missing", f"weights or provenance missing in {ENCODER}", mend)
    known = digest in json.dumps(said)
    found = f"sha256 {digest[:12]}…" + ("" if known else " is not the one of PROVENANCE.json")
    return _required(name, known, found, mend)


def _reaches(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _print(findings: list[Finding]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "check", "found", "how to mend it"):
        table.add_column(name, overflow="fold")
    marks = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "absent": "[yellow]–[/]"}
    for finding in findings:
        table.add_row(
            marks[finding.state], *(_plain(text) for text in (finding.check, finding.found, finding.mend))
        )
    Console().print(table)
    wrong = [finding.check for finding in findings if finding.state == "missing"]
    print(f"Missing: {', '.join(wrong)}." if wrong else "Everything needed is here: make run.")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
