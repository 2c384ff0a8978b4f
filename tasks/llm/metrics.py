"""Figures of tool calling from answers. Pure; no command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.llm.chat import Tools, canonical, exact_match


@dataclass(frozen=True)
class Judged:
    """One answer beside its reference; `reference` is the canonical JSON of the right call."""

    id: str
    written: str
    intent: str
    reference: str
    hypothesis: str
    exact: bool


def judge(rows: Sequence[Mapping[str, Any]], answers: Sequence[str], tools: Tools) -> list[Judged]:
    """Every answer judged against the tool call of its row.

    Raises:
        ValueError: another number of answers than rows.
    """
    return [
        Judged(
            id=row["id"],
            written=row["written"],
            intent=row["intent"],
            reference=canonical(row["tool_call"]),
            hypothesis=answer,
            exact=exact_match(answer, row["tool_call"], tools),
        )
        for row, answer in zip(rows, answers, strict=True)
    ]


def share_exact(judged: Sequence[Judged]) -> float:
    """Exact matches as a fraction of all answers.

    Raises:
        ZeroDivisionError: there is no answer.
    """
    return sum(one.exact for one in judged) / len(judged)
