"""The content of a published repository: which file comes from where, and the digest that names it.

A tree is a list of sources, not a copy: publishers write it to their target and read it back. Its digest
is that of its SHA256SUMS, so two trees with one digest are the same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifacts import files_in, sha256_file, write_text
from tasks.errors import ArtifactError, PublishError
from tasks.release.evidence import Line, checksums, digest_files, shipped_files, sums_text

SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Tree:
    """A repository to publish.

    Attributes:
        repository: its name, without namespace.
        files: source file of each path in the repository, SHA256SUMS included.
        sums: SHA-256 of each, SHA256SUMS not included.
        digest: SHA-256 of SHA256SUMS; names the version.
    """

    repository: str
    files: Mapping[str, Path]
    sums: Mapping[str, str]
    digest: str


def gather(line: Line, build_dir: Path) -> dict[str, Path]:
    """All files of the line that go into the repository, without those written for it (card, sums).

    Raises:
        ArtifactError: a folder or file is missing.
    """
    files = shipped_files(line, build_dir)
    if line == "asr":
        checkpoint = build_dir / "asr/checkpoint"
        files |= {f"checkpoint/{p.relative_to(checkpoint).as_posix()}": p for p in files_in(checkpoint)}
        files |= {
            f"evaluation/{n}": build_dir / "asr/evaluation" / n
            for n in ("metrics.json", "utterances.parquet")
        }
    else:
        files["tools.json"] = build_dir / "prepared/llm/tools.json"
        files |= {
            f"evaluation/{n}": build_dir / "llm/evaluation" / n for n in ("metrics.json", "samples.parquet")
        }
        files["evaluation/verification.json"] = build_dir / "llm/verification.json"
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise ArtifactError(
            f"{', '.join(missing)} missing",
            "a published repository is complete or not at all",
            "run the stages before the release: `dvc repro`",
        )
    return files


def build_tree(repository: str, sources: Mapping[str, Path], texts: Mapping[str, str], work: Path) -> Tree:
    """A tree of `sources` and of `texts`, which are written below `work`."""
    files = dict(sources)
    for name, text in texts.items():
        write_text(work / name, text)
        files[name] = work / name
    sums = checksums(files)
    write_text(work / SUMS, sums_text(sums))
    return Tree(repository, {**files, SUMS: work / SUMS}, sums, digest_files(sums))


def json_text(value: Any) -> str:
    """Indented UTF-8 JSON with sorted keys; NaN is refused."""
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"


def verify_folder(folder: Path, digest: str) -> None:
    """Reads a published folder back: every file listed and no other, every byte as listed.

    Args:
        digest: of the tree that was meant.

    Raises:
        PublishError: naming the first file that is missing, added or changed.
    """
    sums_path = folder / SUMS
    if not sums_path.is_file() or sha256_file(sums_path) != digest:
        raise _tampered(folder, SUMS, "is missing or lists another version")
    rows = [row.partition("  ") for row in sums_path.read_text(encoding="utf-8").split("\n") if row]
    listed = {name: digest for digest, _, name in rows}
    present = {path.relative_to(folder).as_posix(): path for path in files_in(folder)}
    for name in sorted(listed.keys() | (present.keys() - {SUMS})):
        if name not in present:
            raise _tampered(folder, name, "is missing")
        if name not in listed:
            raise _tampered(folder, name, "does not belong to this version")
        if sha256_file(present[name]) != listed[name]:
            raise _tampered(folder, name, "has other bytes than were published")


def _tampered(folder: Path, name: str, says: str) -> PublishError:
    return PublishError(
        f"{folder}: {name} {says}",
        "a published version never changes",
        "move that folder away and start the same command again; it will be published anew",
    )
