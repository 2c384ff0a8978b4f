"""The files that are written for a published repository: card, lineage, decision, how to use the model."""

from pathlib import Path

from tasks.artifacts import read_json
from tasks.release.answers import LlmEvidence
from tasks.release.card import write_card
from tasks.release.champion import ABOUT
from tasks.release.evidence import served_gguf
from tasks.release.judgement import Judgement
from tasks.release.lineage import Lineage
from tasks.release.tree import json_text
from tasks.settings import Params


def repository_texts(
    judgement: Judgement, params: Params, lineage: Lineage, build_dir: Path
) -> dict[str, str]:
    """The files written for the repository."""
    line, evidence = judgement.line, judgement.evidence
    metrics = read_json(build_dir / line / "evaluation/metrics.json")
    served = ""
    texts = {
        "lineage.json": json_text(lineage.as_dict()),
        "evaluation/decision.json": json_text(judgement.decision.as_dict()),
    }
    if evidence.road:
        texts["evaluation/road.json"] = json_text(read_json(build_dir / "road/metrics.json"))
    if isinstance(evidence, LlmEvidence):
        from tasks.llm.chat import SYSTEM

        served = served_gguf(
            {path.name: "" for path in (build_dir / "llm/gguf").iterdir()}, evidence.quantisation
        )
        about = {
            "serves": served,
            "quantisation": evidence.quantisation,
            "system": SYSTEM,
            "inverse_normaliser": params.prepare.inverse_normaliser,
            "normaliser": params.prepare.normaliser,
            "max_new_tokens": params.evaluate_llm.max_new_tokens,
        }
        texts[ABOUT] = json_text(about)
    voices = frozenset(a.block for a in evidence.answers if a.split == "test_voices")
    texts["README.md"] = write_card(
        line,
        params,
        decision=judgement.decision,
        metrics=metrics,
        lineage=lineage,
        artifact=judgement.keys["artifact"],
        road=evidence.road,
        unseen_voices=voices,
        served=served,
    )
    return texts
