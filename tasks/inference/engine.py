"""What every back end offers: greedy answers to rendered prompts, and its own token ids.

An engine is made from files and used as a context manager or until the process ends. Back ends:
`transformers_engine` (Hugging Face folder), `llama_cpp_engine` (GGUF).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

Advance = Callable[[int], None]


class Engine(Protocol):
    """A language model that answers greedily."""

    def generate(
        self, prompts: Sequence[str], max_tokens: int, *, opening: str = "", advance: Advance | None = None
    ) -> list[str]:
        """The answers to rendered prompts, in their order, without the end-of-turn token.

        Args:
            prompts: as `tasks.llm.chat.render_prompt` gives them.
            max_tokens: longest answer.
            opening: an answer whose text does not start with this is stopped at once; what stands by then
                is returned. A caller that only accepts JSON objects passes "{" and saves the ramblings of
                an untuned model, without changing whether any answer is right.
            advance: called with the number of answers just finished.

        Raises:
            ModelError: a prompt does not fit the model's context.
        """

    def tokenise(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are written out; nothing is added."""


def goes_astray(answer: str, opening: str) -> bool:
    """Whether an unfinished answer can no longer start with `opening` (leading white space aside)."""
    text = answer.lstrip()
    return not (text.startswith(opening) or opening.startswith(text))


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all prompts share, at least one token of each left over."""
    first, last = min(map(list, prompts)), max(map(list, prompts))
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return max(0, min(shared, min(len(prompt) for prompt in prompts) - 1))
