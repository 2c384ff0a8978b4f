"""What a run and a version are told about themselves: params, metrics, data and tags for MLflow.

Turns files of build/ into plain values; writes nothing (`tasks.release.registry` does).
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.artifacts import digest_json, read_json, sha256_file
from tasks.release.evidence import Line
from tasks.release.lineage import Lineage
from tasks.release.publish import Published
from tasks.release.registry import DataInput, RunRecord
from tasks.settings import Params
from tasks.tracking import read_history

SECTIONS = {
    "asr": (
        "corpus",
        "embed_asr",
        "validate_",
        "prepare",
        "train_asr",
        "language_model_asr",
        "export_asr",
        "evaluate_asr",
        "decide",
    ),
    "llm": (
        *(
            "corpus",
            "embed_asr",
            "validate_",
            "prepare",
            "base_llm",
            "train_llm",
            "convert_llm",
            "quantise_llm",
        ),
        *("verify_llm", "evaluate_llm", "evaluate_road", "decide"),
    ),
}
DIGEST_CHARACTERS = 36  # MLflow's limit for the digest of a data set; a DVC folder md5 is just that long


def run_record(
    line: Line,
    params: Params,
    *,
    build_dir: Path,
    key: str,
    artifact: str,
    tags: Mapping[str, str],
    lineage: Lineage,
    files: Mapping[str, Path],
) -> RunRecord:
    """The record of a line's run.

    Args:
        tags: of the run.
        files: small artifacts that are written for the release: card, decision.
    """
    training = build_dir / line / "training"
    artifacts = dict(files)
    for name in ("evaluation/metrics.json", "training/result.json", "verification.json"):
        if (build_dir / line / name).is_file():
            artifacts[name] = build_dir / line / name
    small = build_dir / ("asr/shipped" if line == "asr" else "llm/adapter")
    artifacts |= {f"{small.name}/{path.name}": path for path in sorted(small.glob("*")) if path.is_file()}
    return RunRecord(
        key=key,
        name=f"{line}-{artifact[:8]}",
        tags=tags,
        params=flat_params(line, params),
        history=read_history(training / "history.jsonl"),
        metrics=flat_numbers(read_json(build_dir / line / "evaluation/metrics.json")),
        inputs=data_inputs(line, build_dir, lineage),
        artifacts=artifacts,
    )


def flat_params(line: Line, params: Params) -> dict[str, str]:
    """The settings that have a part in the line, as "section.key": value."""
    found = {}
    for name in SECTIONS[line]:
        for key, value in getattr(params, name).model_dump().items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[f"{name.rstrip('_')}.{key}"] = text
    return found


def flat_numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of nested JSON, named "a.b.c", in characters that MLflow takes."""
    found: dict[str, float] = {}
    for key, value in values.items():
        name = re.sub(r"[^\w\-./ ]", "_", f"{prefix}{key}")
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def data_inputs(line: Line, build_dir: Path, lineage: Lineage) -> list[DataInput]:
    """The corpus and the prepared data, named by DVC's md5 (by SHA-256 where dvc.lock knows nothing)."""
    tables = {
        "corpus": ("corpus", "corpus/manifest.parquet"),
        "prepared": (
            f"prepared/{line}",
            "prepared/asr/utterances.parquet" if line == "asr" else "prepared/llm/train.jsonl",
        ),
    }
    found = []
    for name, (tracked, table) in tables.items():
        path = build_dir / table
        if not path.is_file():
            continue
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_json(path, lines=True)
        md5 = lineage.data.get(f"{build_dir.name}/{tracked}") or sha256_file(path)
        found.append(
            DataInput(name, path, md5[:DIGEST_CHARACTERS], frame.drop(columns="tool_call", errors="ignore"))
        )
    return found


def version_tags(
    line: Line,
    *,
    keys: Mapping[str, str],
    verdict: str,
    reasons: tuple[str, ...],
    metrics: Mapping[str, float],
    published: Published,
    lineage: Lineage,
    flow_run_id: str,
) -> dict[str, str]:
    """The tags of a model version: lineage, where it is, what it reached.

    Args:
        keys: digests that tell this release from others, by short name ("artifact", "evidence", ...).
        metrics: the rates judged, under the normaliser in `keys`.
    """
    tags = {f"malgil.{name}": value for name, value in keys.items()}
    tags |= {f"malgil.metric.{name}": f"{value:.6g}" for name, value in metrics.items()}
    tags |= {
        "malgil.complete": "false",  # until the ledger and the alias are written
        "malgil.line": line,
        "malgil.verdict": verdict,
        "malgil.reasons": json.dumps(reasons, ensure_ascii=False),
        "malgil.flow_run_id": flow_run_id or "none",
        "malgil.target": published.target,
        "malgil.repository": published.repository,
        "malgil.revision": published.revision,
        "malgil.published": published.uri,
        "malgil.published_digest": published.digest,
    }
    return tags | lineage.tags()


def digest_of(*parts: Any) -> str:
    """A key made of parts."""
    return digest_json(list(parts))
