"""The documents of a pre-training: prompts and answers, or text alone.

Built in, one request (`requests.py`) gives one of four: its tool call, its English, the same said another
way, or a line of a word list. A document is a conversation (system, user, answer: the loss is on the
answer) or plain text (the loss is on all of it). Only drawing and reading; token ids are `examples.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tasks.data.own.json_rows import parse_object
from tasks.data.own.lines import read_text_lines
from tasks.errors import DataError
from tasks.llm.chat import SYSTEM, render_tool_call
from tasks.llm.pretraining.overlap import apart_from_builtin
from tasks.llm.pretraining.requests import Request, requests

ENGLISH, ANOTHER_WAY = "Say it in English.", "Say it another way."
_SHARES = {"call": 70, "english": 14, "another": 10, "list": 6}
_PATIENCE = 10_000  # draws without a new document before the grammar counts as exhausted


@dataclass(frozen=True)
class Document:
    """A conversation, or plain text where `system` and `user` are empty."""

    system: str
    user: str
    answer: str


def builtin_documents(count: int, seed: int) -> list[Document]:
    """`count` distinct documents of the built-in requests, the same for the same seed.

    Raises:
        DataError: the grammar cannot give so many.
    """
    found = list(islice(_draw(seed), count))
    if len(found) < count:
        raise DataError(
            f"pretrain_llm.documents = {count}",
            f"the grammar of tasks/llm/pretraining gave {len(found)} that differ",
            "lower pretrain_llm.documents",
        )
    return found


def _draw(seed: int) -> Iterator[Document]:
    rng = random.Random(seed)
    apart = apart_from_builtin()
    kinds, weights = tuple(_SHARES), tuple(_SHARES.values())
    seen: set[Document] = set()
    stale = 0
    for request in requests(rng):
        document = _document(rng.choices(kinds, weights=weights)[0], request, rng)
        if document in seen or not apart.is_free(f"{document.user} {document.answer}"):
            stale += 1
            if stale > _PATIENCE:
                return
            continue
        stale = 0
        seen.add(document)
        yield document


def _document(kind: str, request: Request, rng: random.Random) -> Document:
    said = request.say(rng)
    if kind == "call":
        return Document(SYSTEM, said, render_tool_call(request.tool_call))
    if kind == "english":
        return Document(ENGLISH, said, request.english)
    if kind == "another":
        return Document(ANOTHER_WAY, said, request.say(rng))
    return Document("", "", f"{said}: {request.english}")


def read_documents(path: Path) -> list[Document]:
    """Documents of the user's own: `.txt`, one per paragraph, or `.jsonl`.

    A line of JSONL holds `text`, or `user` and `answer` and optionally `system`.

    Raises:
        DataError: the file holds none, or a line is not one; the message names the line.
        ArtifactError: the file cannot be read.
    """
    lines = read_text_lines(path)
    if path.suffix == ".jsonl":
        found = [_line(f"{path} line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    else:
        paragraphs = (part.strip() for part in "\n".join(lines).split("\n\n"))
        found = [Document("", "", part) for part in paragraphs if part]
    if not found:
        raise DataError(f"{path} holds no document", "at least one is needed", "name another file")
    return found


def _line(where: str, line: str) -> Document:
    try:
        row = parse_object(line)
    except ValueError as error:
        raise _bad(f"{where} is not JSON ({error})") from error
    if not all(isinstance(value, str) for value in row.values()):
        raise _bad(f"{where} is not an object of strings")
    if set(row) == {"text"} and row["text"].strip():
        return Document("", "", row["text"])
    if (
        {"user", "answer"} <= set(row) <= {"system", "user", "answer"}
        and row["user"].strip()
        and row["answer"].strip()
    ):
        return Document(row.get("system", ""), row["user"], row["answer"])
    raise _bad(f"{where} has the keys {', '.join(sorted(row)) or 'of nothing'}")


def _bad(what: str) -> DataError:
    return DataError(
        what,
        'a line holds {"text"}, or {"user", "answer"} and optionally "system", none of them empty',
        "correct the line, then start again",
    )
