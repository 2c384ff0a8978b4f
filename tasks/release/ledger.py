"""The ledger of decisions: append-only, one MLflow run per decision.

Its facts are MLflow params, which can be written once and never changed. The same decision on the same
evidence is one entry, however often it is run.
"""

import getpass
import json
from collections.abc import Mapping
from pathlib import Path

from tasks.release.decide import Decision
from tasks.release.registry import Registry, RunRecord


def experiment(registry: Registry) -> str:
    """The experiment that holds the ledger."""
    return f"{registry.params.experiment}-releases"


def record(
    registry: Registry, *, key: str, decision: Decision, facts: Mapping[str, str], files: Mapping[str, Path]
) -> str:
    """Writes an entry unless it is there; returns its run id.

    Args:
        key: tells this decision from every other.
        facts: line, from, to, evidence, artifact and whatever else explains it.
        files: evidence kept with the entry, such as decision.json.
    """
    entry = RunRecord(
        key=key,
        name=f"{facts['line']} {decision.verdict}",
        tags={
            "malgil.line": facts["line"],
            "malgil.verdict": decision.verdict,
            "malgil.reasons": json.dumps(decision.reasons, ensure_ascii=False),
        },
        params={
            "who": _who(),
            "verdict": decision.verdict,
            "reasons": "\n".join(decision.reasons),
            **{name: value for name, value in facts.items() if value},
        },
        metrics={f"difference.{c.name.replace(' ', '_')}": c.difference.value for c in decision.comparisons},
        artifacts=files,
    )
    return registry.ensure_run(experiment(registry), entry)


def find(registry: Registry, key: str) -> tuple[str, list[str], str] | None:
    """Verdict, reasons and run id of a finished entry; None if there is none."""
    run = registry.find_run(experiment(registry), key)
    if run is None or run.info.status != "FINISHED":
        return None
    return run.data.params["verdict"], json.loads(run.data.tags["malgil.reasons"]), str(run.info.run_id)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container user without a name
        return "unknown"
