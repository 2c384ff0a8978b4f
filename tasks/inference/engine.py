"""What every back end offers: greedy answers to rendered prompts, and its own token ids.

An engine is made from files and used as a context manager or until the process ends. Back ends:
`transformers_engine` (Hugging Face folder), `llama_cpp_engine` (GGUF).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from tasks.llm.constrain import Choices

Advance = Callable[[int], None]
Allowed = Sequence[Sequence[str] | None]


class Engine(Protocol):
    """A language model that answers greedily."""

    def generate(
        self,
        prompts: Sequence[str],
        max_tokens: int,
        *,
        allowed: Allowed | None = None,
        advance: Advance | None = None,
    ) -> list[str]:
        """The answers to rendered prompts, in their order, without the end-of-turn token.

        Args:
            prompts: as `tasks.llm.chat.render_prompt` gives them.
            max_tokens: longest answer.
            allowed: for each prompt the only answers it may get, as `tasks.llm.constrain` lists them, or
                None where any answer may come. The most likely allowed token is taken at every place.
            advance: called with the number of answers just finished.

        Raises:
            ModelError: a prompt does not fit the model's context.
        """

    def tokenise(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are written out; nothing is added."""


def choices_for(
    allowed: Allowed | None, number: int, tokenise: Callable[[str], list[int]], end: int
) -> Choices | None:
    """The tree of allowed answers of prompt `number`, each ending with the end-of-turn token."""
    answers = allowed[number] if allowed is not None else None
    return None if answers is None else Choices([[*tokenise(answer), end] for answer in answers])


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all prompts share, at least one token of each left over."""
    first, last = min(map(list, prompts)), max(map(list, prompts))
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return max(0, min(shared, min(len(prompt) for prompt in prompts) - 1))
