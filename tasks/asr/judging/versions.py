"""The versions that the figures of an evaluation depend on. No command."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("numpy", "onnxruntime", "rapidfuzz", "soundfile", "soxr", "torch", "transformers")


def versions() -> dict[str, str]:
    """Python and the packages that read audio, compute logits and count edits; those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
