"""What is decided about a line's files, and on what; read back when nothing has changed.

The judgement is handed from step to step of a release (`tasks.release.release`).
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, cast

from tasks.artifacts import digest_json
from tasks.release import ledger
from tasks.release.answers import SENTENCES, VOICES, AsrEvidence, LlmEvidence
from tasks.release.champion import Ask, Questions, champion_answers
from tasks.release.decide import Decision, Verdict, decide_asr, decide_llm, error_rate, floors_of
from tasks.release.evidence import (
    Line,
    asr_evidence,
    checksums,
    evidence_digest,
    items_digest,
    llm_evidence,
    shipped_files,
)
from tasks.release.publish import Published, make_publisher
from tasks.release.record import digest_of
from tasks.release.registry import Registry, Version
from tasks.settings import Params

log = logging.getLogger(__name__)


class ReleaseResult(TypedDict):
    """The outcome of a line's release, as it stands in summary.json.

    `floors` are those of the section `decide`, each with its interval (`tasks.release.floors`). `already`
    says that an earlier run had done it all. `published`, `version` and `alias` are null where there is
    none.
    """

    verdict: str
    reasons: list[str]
    floors: list[dict[str, Any]]
    version: int | None
    alias: str | None
    published: str | None
    repository: str | None
    revision: str | None
    run_id: str | None
    already: bool


@dataclass(frozen=True)
class Judgement:
    """What was decided, on what; handed from step to step.

    Attributes:
        decision: verdict, reasons, comparisons.
        evidence: of the challenger.
        keys: digests: artifact, evidence, decide (the rules), champion (its artifact, or "none"), items
            (the test set), normaliser.
        champion: number of the version that served, None if there was none.
        settled: the result, if an earlier run released these very bytes on this very evidence.
    """

    line: Line
    decision: Decision
    evidence: AsrEvidence | LlmEvidence
    keys: Mapping[str, str] = field(default_factory=dict)
    champion: int | None = None
    settled: ReleaseResult | None = None

    @property
    def ledger_key(self) -> str:
        """Tells this decision from every other."""
        return digest_of(
            self.line, *(self.keys[name] for name in ("artifact", "evidence", "decide", "champion"))
        )


def decide_line(
    line: Line, params: Params, *, build_dir: Path, store_dir: Path, ask: Ask | None = None
) -> Judgement:
    """Judges the line's shipped files; reads the verdict back if nothing has changed since the last run.

    Args:
        build_dir: the artifacts of the run.
        store_dir: what outlives it: downloads, answers of champions on later test sets.
        ask: how a champion answers a changed test set; by default with its own files.

    Raises:
        ArtifactError: evidence is missing or was measured on other bytes than those that would ship.
        PublishError: the champion's files are gone or changed, or MLflow cannot be reached.
        ConflictError: another process holds the MLflow store.
    """
    sums = checksums(shipped_files(line, build_dir))
    evidence: AsrEvidence | LlmEvidence
    if line == "asr":
        evidence = asr_evidence(build_dir, sums)
    else:
        evidence = llm_evidence(build_dir, sums, params.evaluate_road.quantisation)
    registry = Registry(params.registry)
    champion = registry.by_alias(model_name(line, params), params.registry.environments[0])
    judgement = Judgement(
        line,
        Decision("hold", (), floors=floors_of(evidence, params.decide)),
        evidence,
        {
            "artifact": evidence.artifact,
            "evidence": evidence_digest(evidence),
            "decide": digest_json(params.decide.model_dump()),
            "champion": champion.tags.get("malgil.artifact", "unknown") if champion else "none",
            "items": items_digest(evidence.answers),
            "normaliser": evidence.normaliser
            if isinstance(evidence, AsrEvidence)
            else params.prepare.inverse_normaliser,
        },
        champion.number if champion else None,
    )
    settled = _settled(judgement, registry, params, store_dir)
    if settled:
        log.info("%s: nothing has changed since it was released: %s", line, settled["verdict"])
        decision = replace(
            judgement.decision,
            verdict=cast(Verdict, settled["verdict"]),
            reasons=tuple(settled["reasons"]),
        )
        return replace(judgement, decision=decision, settled=settled)
    theirs = _champion_evidence(judgement, champion, params, build_dir, store_dir, ask)
    if isinstance(evidence, AsrEvidence):
        decision = decide_asr(evidence, theirs if isinstance(theirs, AsrEvidence) else None, params.decide)
    else:
        decision = decide_llm(evidence, theirs if isinstance(theirs, LlmEvidence) else None, params.decide)
    log.info("%s: %s: %s", line, decision.verdict, decision.reasons[0])
    return replace(judgement, decision=decision)


def _settled(
    judgement: Judgement, registry: Registry, params: Params, store_dir: Path
) -> ReleaseResult | None:
    """The result of an earlier run on the same bytes, evidence and rules; None if there is none."""
    keys, environment = judgement.keys, params.registry.environments[0]
    version = registry.by_artifact(model_name(judgement.line, params), keys["artifact"])
    if version is None:
        entry = ledger.find(registry, judgement.ledger_key)
        if entry is None or entry[0] != "reject":
            return None
        decision = replace(judgement.decision, verdict="reject", reasons=tuple(entry[1]))
        return result_of(decision, None, None, None, entry[2], already=True)
    tags = version.tags
    same = all(tags.get(f"malgil.{name}") == keys[name] for name in ("evidence", "decide"))
    serves = judgement.champion == version.number
    held = tags.get("malgil.verdict") == "hold" and tags.get("malgil.champion") == keys["champion"]
    if not same or tags.get("malgil.complete") != "true" or not (serves or held):
        return None
    if tags["malgil.target"] != params.publish.target:
        return None
    publisher = make_publisher(tags["malgil.target"], params.publish, store_dir)
    if not publisher.has(tags["malgil.repository"], tags["malgil.revision"]):
        return None
    decision = replace(
        judgement.decision,
        verdict=cast(Verdict, tags["malgil.verdict"]),
        reasons=tuple(json.loads(tags["malgil.reasons"])),
    )
    alias = environment if serves else None
    return result_of(decision, version, alias, published_of(version), version.run_id, already=True)


def _champion_evidence(
    judgement: Judgement,
    champion: Version | None,
    params: Params,
    build_dir: Path,
    store_dir: Path,
    ask: Ask | None,
) -> AsrEvidence | LlmEvidence | None:
    """The challenger's evidence with the champion's answers in its place: what the paired test needs."""
    mine = judgement.evidence
    if champion is None:
        return None
    if judgement.keys["champion"] == mine.artifact:
        return mine  # the same bytes under other rules or on other evidence
    published = published_of(champion)
    publisher = make_publisher(published.target, params.publish, store_dir)
    folder = publisher.fetch(published.repository, published.revision)
    tests = Questions(build_dir / "prepared", mine.answers)
    kept = store_dir / "champions"
    artifact = judgement.keys["champion"]
    answers = champion_answers(judgement.line, folder, artifact, tests, params, kept, ask)
    return replace(mine, artifact=artifact, answers=answers)


def published_of(version: Version) -> Published:
    tags = version.tags
    return Published(
        tags["malgil.published"],
        tags["malgil.target"],
        tags["malgil.repository"],
        tags["malgil.revision"],
        tags["malgil.published_digest"],
        already=True,
    )


def result_of(
    decision: Decision,
    version: Version | None,
    alias: str | None,
    published: Published | None,
    run_id: str,
    already: bool = False,
) -> ReleaseResult:
    return ReleaseResult(
        verdict=decision.verdict,
        reasons=list(decision.reasons),
        floors=[floor.as_dict() for floor in decision.floors],
        version=version.number if version else None,
        alias=alias,
        published=published.uri if published else None,
        repository=published.repository if published else None,
        revision=published.revision if published else None,
        run_id=run_id,
        already=already,
    )


def model_name(line: Line, params: Params) -> str:
    return params.registry.asr_model if line == "asr" else params.registry.llm_model


def rates_of(evidence: AsrEvidence | LlmEvidence) -> dict[str, float]:
    """The rates judged, as the registry names them; fractions."""
    if isinstance(evidence, AsrEvidence):
        sentences, voices = evidence.split(SENTENCES), evidence.split(VOICES)
        found = {
            "cer_unseen_sentences": _share([(a.errors, a.units) for a in sentences]),
            "cer_unseen_voices": error_rate(voices, 0.95, each_voice=True).value,
            "cer_with_silence": _share([(c.after, c.units) for c in evidence.silence]),
            "cer_joined": _share([(c.after, c.units) for c in evidence.joined]),
        }
        if evidence.outside:
            found["cer_ood"] = _share([(a.errors, a.units) for a in evidence.outside])
    else:
        found = {
            "exact_match": 1 - _share([(a.errors, a.units) for a in evidence.answers]),
            "exact_match_merged": 1 - _share([(c.before, c.units) for c in evidence.quantised]),
        }
    if evidence.road:
        found["exact_match_road_unseen_voices"] = evidence.road.exact_match_unseen_voices
    return found


def _share(pairs: Sequence[tuple[float, float]]) -> float:
    """Errors over units."""
    return sum(errors for errors, _ in pairs) / sum(units for _, units in pairs)
