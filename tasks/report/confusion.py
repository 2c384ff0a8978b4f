"""What the language model calls instead of what was meant: tool by tool, and argument by argument. Pure.

An answer is unparsable when it is not JSON with the name of a tool; with the right tool and wrong arguments
it is an argument error.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

UNPARSABLE = "unparsable"


def tool_called(answer: str, tools: Iterable[str]) -> str:
    """The tool's name in an answer, or UNPARSABLE."""
    try:
        call = json.loads(answer.strip())
    except ValueError:
        return UNPARSABLE
    name = call.get("name") if isinstance(call, dict) else None
    return name if isinstance(name, str) and name in set(tools) else UNPARSABLE


def confuse(samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The matrix of meant against called tools.

    Args:
        samples: rows with `reference` (canonical JSON), `hypothesis` (the raw answer) and `exact`.

    Returns:
        {"tools": names, "rows": {meant: {called: n}}, "exact": {meant: n}, "n": samples}; UNPARSABLE is a
        column.
    """
    rows = list(samples)
    meant = [str(json.loads(row["reference"])["name"]) for row in rows]
    tools = sorted(set(meant))
    matrix: dict[str, Counter[str]] = {tool: Counter() for tool in tools}
    exact: Counter[str] = Counter()
    for tool, row in zip(meant, rows, strict=True):
        matrix[tool][tool_called(row["hypothesis"], tools)] += 1
        exact[tool] += bool(row["exact"])
    return {
        "tools": tools,
        "rows": {tool: dict(matrix[tool]) for tool in tools},
        "exact": {tool: exact[tool] for tool in tools},
        "n": len(rows),
    }


def argument_errors(samples: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Wrong arguments of calls to the right tool, most frequent first: {"tool", "argument", "n", "examples"}.

    An example is "meant → given"; a missing or an additional argument shows as "–".
    """
    found: dict[tuple[str, str], list[str]] = {}
    for row in samples:
        reference = json.loads(row["reference"])
        if row["exact"] or tool_called(row["hypothesis"], [reference["name"]]) == UNPARSABLE:
            continue
        meant, given = reference["arguments"], json.loads(row["hypothesis"].strip()).get("arguments")
        given = given if isinstance(given, dict) else {}
        for name in sorted({*meant, *given}):
            if (
                name not in meant
                or name not in given
                or meant[name] != given[name]
                or type(meant[name]) is not type(given[name])
            ):
                found.setdefault((reference["name"], name), []).append(
                    f"{_show(meant, name)} → {_show(given, name)}"
                )
    return [
        {
            "tool": tool,
            "argument": name,
            "n": len(examples),
            "examples": [e for e, _ in Counter(examples).most_common(4)],
        }
        for (tool, name), examples in sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _show(arguments: Mapping[str, Any], name: str) -> str:
    return json.dumps(arguments[name], ensure_ascii=False) if name in arguments else "–"
