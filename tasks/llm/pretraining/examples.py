"""Documents as token ids, in groups whose prompts start alike. No drawing and no training here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.llm.packing import Example, shared_prefix
from tasks.llm.pretraining.documents import Document
from tasks.llm.training import Group


def group_documents(tokenizer: Any, documents: Sequence[Document]) -> list[Group]:
    """The documents' examples, those of one system prompt together, text alone in a group of its own."""
    by_system: dict[tuple[str, bool], list[Document]] = {}
    for document in documents:
        by_system.setdefault((document.system, not document.user), []).append(document)
    groups = []
    for _, same in sorted(by_system.items()):
        examples = _encode(tokenizer, same)
        groups.append(Group(examples, shared_prefix(examples)))
    return groups


def _encode(tokenizer: Any, documents: Sequence[Document]) -> list[Example]:
    prompts = [_prompt(tokenizer, document) for document in documents]
    answers = [document.answer + tokenizer.eos_token for document in documents]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return [Example(tuple(p), tuple(a)) for p, a in zip(prompt_ids, answer_ids, strict=True)]


def _prompt(tokenizer: Any, document: Document) -> str:
    """The conversation up to the answer, or the token that text starts after."""
    if not document.user:
        return str(tokenizer.bos_token or tokenizer.eos_token)
    turns = [{"role": "system", "content": document.system}] if document.system else []
    turns.append({"role": "user", "content": document.user})
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
