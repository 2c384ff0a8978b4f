"""What an earlier check has found in order, so that a run which changes nothing does not look again.

build/work/preflight.json: for each check with a stamp, what its answer hangs on (settings, sizes and times of
the files named, versions, this code) and what it found. Only checks without a fault are kept. Whatever the
network, the disk or a server says is asked anew each time.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.artifacts import digest_json, files_in, write_json
from tasks.errors import MalgilError
from tasks.params import section
from tasks.preflight.finding import Check, Finding, Subject, faults

RECORD = Path("build/work/preflight.json")
_CODE = [Path(__file__).parent, *(Path(__file__).parents[1] / room for room in ("gguf", "llm", "data"))]
_VERSIONS = ("transformers", "tokenizers", "gguf", "safetensors", "huggingface_hub", "mlflow")


def key_of(check: Check, subject: Subject) -> str | None:
    """What the answer of a check hangs on; None: it is asked every time."""
    if check.stamp is None:
        return None
    return digest_json(
        {
            "settings": {name: section(subject.params, name).model_dump() for name in check.needs},
            "lines": subject.lines,
            "files": check.stamp(subject),
            "versions": {name: metadata.version(name) for name in _VERSIONS},
            "code": [_listing(folder) for folder in _CODE],
        }
    )


def stamp(name: str | Path) -> Any:
    """Sizes and times of a file, or of all files in a folder; None where there is nothing."""
    path = Path(name) if name else None
    if path is None or not path.exists():
        return None
    if path.is_dir():
        return digest_json([[file.relative_to(path).as_posix(), *_seen(file)] for file in files_in(path)])
    return _seen(path)


def _seen(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _listing(folder: Path) -> list[list[Any]]:
    return [[path.name, path.stat().st_mtime_ns] for path in sorted(folder.rglob("*.py"))]


def read() -> dict[str, Any]:
    """Name of a check to its key and findings; empty where there is no record."""
    try:
        found = json.loads(RECORD.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def recalled(record: dict[str, Any], check: Check, key: str | None) -> list[Finding] | None:
    """The findings of an earlier check of the same; None: it must be asked."""
    entry = record.get(check.name)
    if key is None or not isinstance(entry, dict) or entry.get("key") != key:
        return None
    try:
        return [Finding(**finding) for finding in entry["findings"]]
    except (KeyError, TypeError):
        return None


def write(record: dict[str, Any]) -> None:
    """Keeps the record; where it cannot be written the next check looks again."""
    try:
        write_json(RECORD, record)
    except MalgilError:
        return


def entry(key: str, findings: Sequence[Finding]) -> dict[str, Any] | None:
    """What is kept of a check; nothing of one with a fault."""
    return None if faults(findings) else {"key": key, "findings": [asdict(finding) for finding in findings]}
