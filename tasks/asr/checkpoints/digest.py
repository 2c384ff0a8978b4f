"""The SHA-256 that names a checkpoint's weights, whole or in shards. No torch, no command."""

from __future__ import annotations

from pathlib import Path

from tasks.artifacts import digest_json, sha256_file
from tasks.asr.checkpoints.layout import WEIGHTS


def weights_sha256(folder: Path) -> str:
    """Of model.safetensors; of shards the SHA-256 of the JSON of their names and hashes."""
    hashes = {file.name: sha256_file(file) for file in sorted(folder.glob("model*.safetensors"))}
    return hashes.get(WEIGHTS) or digest_json(hashes)
