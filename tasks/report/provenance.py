"""Where a run's results come from, as rows for the report: code, settings, data, artifacts, versions."""

import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.release.lineage import read_lineage

PACKAGES = (
    "malgil", "torch", "transformers", "peft", "onnxruntime", "gguf", "cyllama", "espeakng-loader",
    "great-expectations", "dvc", "prefect", "mlflow", "pandas", "numpy",
)  # fmt: skip


def read_provenance(build_dir: Path, root: Path, lines: Iterable[str]) -> dict[str, Any]:
    """{"code", "data": {path: md5}, "versions": {package: version}} for the lines ("asr", "llm") of a run."""
    data: dict[str, str] = {}
    code: dict[str, str] = {}
    for line in lines:
        if line not in ("asr", "llm"):
            continue
        lineage = read_lineage("asr" if line == "asr" else "llm", build_dir, root)
        data |= dict(lineage.data)
        code = {
            "git commit": lineage.commit_in_words().replace("`", ""),
            "dvc.lock, SHA-256": lineage.dvc_lock,
            "settings (build/params.yaml), SHA-256": lineage.params,
            "constraints.txt, SHA-256": lineage.constraints,
        }
    return {"code": code, "data": dict(sorted(data.items())), "versions": versions()}


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
