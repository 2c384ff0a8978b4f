"""A release of one line, step by step: decide, publish, register.

    judgement = decide_line("asr", params, build_dir=..., store_dir=...)
    published = publish_line(judgement, params, ...)       None if rejected
    result = register_line(judgement, published, params, ...)

`flows/` makes each a Prefect task; `release_line` is the three in a row. Every step finds what a killed run
left and completes it. The alias moves last: whatever it points at is published, verified and recorded.

| verdict | published | version | alias |
|---|---|---|---|
| promote | yes | yes | moves to it; `previous-<alias>` to the one before |
| hold | yes | yes | stays |
| reject | no | no (an MLflow run and a ledger entry) | stays |
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from tasks.artifacts import write_text
from tasks.checkout import UNKNOWN
from tasks.release import ledger
from tasks.release.check import loads
from tasks.release.evidence import Line
from tasks.release.judgement import (
    Judgement,
    ReleaseResult,
    decide_line,
    model_name,
    published_of,
    rates_of,
    result_of,
)
from tasks.release.left_runs import close_left_runs
from tasks.release.lineage import LOCK, Lineage, read_lineage
from tasks.release.publish import Check, Published, make_publisher
from tasks.release.record import digest_of, run_record, version_tags
from tasks.release.registry import Registry, RunRecord, Version
from tasks.release.repository import repository_texts
from tasks.release.tree import build_tree, gather, json_text
from tasks.settings import Params

__all__ = [
    "Judgement",
    "Line",
    "ReleaseResult",
    "attach_report",
    "decide_line",
    "publish_line",
    "register_line",
    "release_line",
]

log = logging.getLogger(__name__)


def publish_line(
    judgement: Judgement, params: Params, *, build_dir: Path, store_dir: Path, check: Check | None = None
) -> Published | None:
    """Publishes the judged files with their card, unless they are rejected or there already.

    Args:
        check: loads what was read back; by default with the line's own recogniser or engine.

    Returns:
        Where they are; None for a rejected version.

    Raises:
        PublishError: the target refused or holds other bytes under the same name.
        CapacityError: no space, no permission; earlier versions are as they were.
        ModelError: what was read back does not load.
    """
    line, settled = judgement.line, judgement.settled
    if judgement.decision.verdict == "reject":
        return None
    if settled and settled["published"]:
        return Published(
            settled["published"],
            params.publish.target,
            str(settled["repository"]),
            str(settled["revision"]),
            "",
            True,
        )
    repository = params.publish.asr_repo if line == "asr" else params.publish.llm_repo
    lineage = read_lineage(line, build_dir)
    texts = repository_texts(judgement, params, lineage, build_dir)
    tree = build_tree(repository, gather(line, build_dir), texts, _work(line, build_dir))
    publisher = make_publisher(params.publish.target, params.publish, store_dir)
    published = publisher.publish(tree, check or loads(line))
    log.info(
        "%s: %s %s", line, "already published as" if published.already else "published as", published.uri
    )
    return published


def register_line(
    judgement: Judgement,
    published: Published | None,
    params: Params,
    *,
    build_dir: Path,
    store_dir: Path,
    flow_run_id: str = "",
) -> ReleaseResult:
    """Records the run, registers the version, writes the ledger and, on promote, moves the alias.

    Raises:
        PublishError, ConflictError, CapacityError: the MLflow store or the publishing target refused.
            Started again, it goes on where it stopped.
    """
    if judgement.settled:
        return judgement.settled
    line, decision, model = judgement.line, judgement.decision, model_name(judgement.line, params)
    environment = params.registry.environments[0]
    registry = Registry(params.registry)
    lineage = read_lineage(line, build_dir)
    record = _record(judgement, published, params, lineage, build_dir, flow_run_id)
    close_left_runs(registry, params.registry.experiment)
    run_id = registry.ensure_run(params.registry.experiment, record)
    version = None
    if published:
        model_id = registry.ensure_model(run_id, model, record)
        tags = version_tags(
            line,
            keys=judgement.keys,
            verdict=decision.verdict,
            reasons=decision.reasons,
            metrics=rates_of(judgement.evidence),
            published=published,
            lineage=lineage,
            flow_run_id=flow_run_id,
        )
        version = registry.ensure_version(model, run_id, model_id, tags, decision.reasons[0])
    facts = {
        "line": line,
        "model": model,
        "environment": environment,
        "from": str(judgement.champion or ""),
        "to": str(version.number) if version else "",
        "artifact": judgement.keys["artifact"],
        "evidence": judgement.keys["evidence"],
        "published": published.uri if published else "",
        "flow_run_id": flow_run_id,
    }
    entry = {"decision.json": record.artifacts["decision.json"]}
    ledger.record(registry, key=judgement.ledger_key, decision=decision, facts=facts, files=entry)
    alias = None
    if version and published and decision.verdict == "promote":
        _point(registry, params, published, version, environment, store_dir)
        alias = environment
    if version:
        registry.tag(version, {"malgil.complete": "true"})
    return result_of(decision, version, alias, published, run_id)


def _record(
    judgement: Judgement,
    published: Published | None,
    params: Params,
    lineage: Lineage,
    build_dir: Path,
    flow_run_id: str,
) -> RunRecord:
    """What MLflow is told of the run."""
    line, work = judgement.line, _work(judgement.line, build_dir)
    files = {"decision.json": work / "decision.json"}
    write_text(files["decision.json"], json_text(judgement.decision.as_dict()))
    if published:
        files["README.md"] = work / "README.md"
    if lineage.dvc_lock != UNKNOWN:
        files[LOCK.name] = LOCK  # the digest among the tags names it; the next run writes over it
    tags = {f"malgil.{name}": value for name, value in judgement.keys.items()} | {
        "malgil.line": line,
        "malgil.verdict": judgement.decision.verdict,
        "malgil.flow_run_id": flow_run_id or "none",
        "malgil.published": published.uri if published else "none",
    }
    return run_record(
        line,
        params,
        build_dir=build_dir,
        key=digest_of(line, judgement.keys["artifact"], judgement.keys["evidence"]),
        artifact=judgement.keys["artifact"],
        tags=lineage.tags() | tags,
        lineage=lineage,
        files=files,
    )


def release_line(
    line: Line, params: Params, *, build_dir: Path, store_dir: Path, flow_run_id: str = ""
) -> ReleaseResult:
    """Decide, publish, register: the release of one line.

    Raises:
        MalgilError: see the three steps.
    """
    judgement = decide_line(line, params, build_dir=build_dir, store_dir=store_dir)
    published = publish_line(judgement, params, build_dir=build_dir, store_dir=store_dir)
    return register_line(
        judgement, published, params, build_dir=build_dir, store_dir=store_dir, flow_run_id=flow_run_id
    )


def attach_report(results: Mapping[Line, ReleaseResult], report: Path, params: Params) -> None:
    """Puts the run's HTML report beside each line's MLflow run, if it is not there yet.

    Raises:
        PublishError, ConflictError: MLflow cannot be reached, or is held by another process.
    """
    fresh = [r["run_id"] for r in results.values() if r["run_id"] and not r["already"]]
    if not fresh:
        return
    registry = Registry(params.registry)
    for run_id in fresh:
        registry.attach(run_id, report)


def _point(
    registry: Registry,
    params: Params,
    published: Published,
    version: Version,
    environment: str,
    store_dir: Path,
) -> None:
    """Moves the environment to the version: at the publishing target first, in the registry last."""
    publisher = make_publisher(published.target, params.publish, store_dir)
    before = registry.by_alias(version.model, environment)
    if before and before.number != version.number and before.tags.get("malgil.target") == published.target:
        publisher.point(published_of(before), f"previous-{environment}")
    publisher.point(published, environment)
    registry.move_alias(version.model, environment, version.number)


def _work(line: Line, build_dir: Path) -> Path:
    return build_dir / "release" / line
