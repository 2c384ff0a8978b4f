"""Answers from a GGUF through llama.cpp (cyllama): what ships, as it runs at a user's.

Several prompts decode at once, and the tokens that all of them share (system prompt, turn markers) are
computed once and shared in the key-value cache.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tasks.errors import ModelError
from tasks.inference.engine import Advance, goes_astray, shared_prefix

ROW_TOKENS = 512  # most tokens decoded in one call


class LlamaCppEngine:
    """A GGUF file, ready to answer.

    Args:
        path: the GGUF file.
        slots: prompts that decode at once.
        context: longest prompt and answer together, in tokens.
        threads: for decoding.

    Raises:
        ModelError: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path, *, slots: int = 8, context: int = 512, threads: int = 1) -> None:
        from cyllama.llama import llama_cpp

        llama_cpp.disable_logging()
        self._llama_cpp: Any = llama_cpp
        self.path, self.slots, self.context = path, slots, context
        settings = llama_cpp.LlamaContextParams()
        settings.n_ctx = context * slots
        settings.n_batch = settings.n_ubatch = ROW_TOKENS
        settings.n_seq_max = slots + 1
        settings.kv_unified = True  # so that the shared prefix is shared, not copied
        settings.n_threads = settings.n_threads_batch = threads
        model_settings = llama_cpp.LlamaModelParams()
        model_settings.n_gpu_layers = 0
        try:
            if not path.is_file():
                raise OSError("no such file")
            self._model = _model_class(llama_cpp)(str(path), model_settings)
            self._context = llama_cpp.LlamaContext(self._model, settings)
            self._vocabulary = self._model.get_vocab()
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(
                f"llama.cpp cannot load {path} ({error})",
                "a whole GGUF of a known architecture is needed",
                "make it again: `dvc repro -f convert_llm quantise_llm`",
            ) from error

    def tokenise(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are written out; nothing is added."""
        return list(self._vocabulary.tokenize(text, add_special=False, parse_special=True))

    def tokenise_as_server(self, text: str) -> list[int]:
        """Token ids as a chat server makes them: with the start token, if the file asks for one."""
        return list(self._vocabulary.tokenize(text, add_special=True, parse_special=True))

    def chat_template(self) -> str | None:
        """The template in the file."""
        return self.metadata().get("tokenizer.chat_template")

    def render(self, conversation: Sequence[Mapping[str, str]]) -> str:
        """A conversation as a prompt, by the template in the file; ends where the answer starts.

        Raises:
            ModelError: the file has no template, or one that does not render.
        """
        template = self.chat_template()
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            if template is None:
                raise TemplateError("it has none")
            return environment.from_string(template).render(
                messages=list(conversation),
                add_generation_prompt=True,
                bos_token=self._vocabulary.get_text(self._vocabulary.token_bos()),
                eos_token=self._vocabulary.get_text(self._vocabulary.token_eos()),
            )
        except TemplateError as error:
            raise ModelError(
                f"the chat template of {self.path} ({error})",
                "must render a conversation of system, user and assistant",
                "make the file again: `dvc repro -f convert_llm quantise_llm`",
            ) from error

    def metadata(self) -> dict[str, str]:
        """Scalar metadata of the file as llama.cpp reads them, as text."""
        return dict(self._model.metadata())

    def vocabulary_size(self) -> int:
        """How many tokens the file has."""
        return int(self._vocabulary.n_vocab)

    def end_token(self) -> int:
        """The end-of-turn token that the file names."""
        return int(self._vocabulary.token_eos())

    def ends_answer(self, token: int) -> bool:
        """Whether llama.cpp stops at this token."""
        return bool(self._vocabulary.is_eog(token))

    def logits(self, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(vocabulary,) logits after the last of `ids`."""
        self._context.kv_cache_clear()
        self._decode([(token, place, 0, place == len(ids) - 1) for place, token in enumerate(ids)])
        return np.array(self._context.get_logits_ith(-1), dtype=np.float32)

    def generate(
        self, prompts: Sequence[str], max_tokens: int, *, opening: str = "", advance: Advance | None = None
    ) -> list[str]:
        """See `Engine.generate`."""
        if not prompts:
            return []
        ids = [self.tokenise(prompt) for prompt in prompts]
        longest = max(map(len, ids))
        if longest + max_tokens > self.context:
            raise ModelError(
                f"a prompt of {longest} tokens with {max_tokens} for the answer",
                f"does not fit the context of {self.context} tokens",
                "shorten the command, or raise the engine's context",
            )
        return _Batch(self, ids, max_tokens, opening, advance).run()

    def _decode(self, entries: Sequence[tuple[int, int, int, bool]]) -> None:
        """Decodes (token, position, sequence, wants logits) entries, all in one call."""
        batch = self._llama_cpp.LlamaBatch(n_tokens=max(1, len(entries)), embd=0, n_seq_max=self.slots + 1)
        for token, position, sequence, wanted in entries:
            batch.add(token, position, [sequence], wanted)
        self._context.decode(batch)


def _model_class(llama_cpp: Any) -> Any:
    """cyllama's model with the attribute that its `get_logits_ith` reads and 0.2.18 does not have."""

    class Model(llama_cpp.LlamaModel):  # type: ignore[misc]
        @property
        def n_vocab(self) -> int:
            return int(self.get_vocab().n_vocab)

    return Model


class _Batch:
    """One call of `generate`: prompts enter slots as slots come free. Sequence 0 keeps the prefix."""

    def __init__(
        self,
        engine: LlamaCppEngine,
        ids: list[list[int]],
        max_tokens: int,
        opening: str,
        advance: Advance | None,
    ) -> None:
        self.engine, self.ids, self.max_tokens, self.opening = engine, ids, max_tokens, opening
        self.advance = advance
        self.prefix = shared_prefix(ids)
        self.answers: list[list[int]] = [[] for _ in ids]
        self.context, self.vocabulary = engine._context, engine._vocabulary
        self.sampler = engine._llama_cpp.LlamaSampler(engine._llama_cpp.LlamaSamplerChainParams())
        self.sampler.add_greedy()

    def run(self) -> list[str]:
        """Decodes everything; returns the answers' text."""
        self.context.kv_cache_clear()
        if self.prefix:
            self.engine._decode(
                [(token, place, 0, False) for place, token in enumerate(self.ids[0][: self.prefix])]
            )
        waiting = list(range(len(self.ids)))[::-1]
        free = list(range(1, self.engine.slots + 1))
        running: dict[int, int] = {}  # slot → prompt
        while waiting or running:
            entries: list[tuple[int, int, int, bool]] = []
            sampled: list[int] = []  # slots in the order of their logits
            places: list[int] = []
            for slot, number in running.items():
                position = len(self.ids[number]) + len(self.answers[number]) - 1
                entries.append((self.answers[number][-1], position, slot, True))
                sampled.append(slot)
                places.append(len(entries) - 1)
            while waiting and free and len(entries) + len(self.ids[waiting[-1]]) - self.prefix <= ROW_TOKENS:
                number, slot = waiting.pop(), free.pop()
                self._enter(number, slot, entries)
                running[slot] = number
                sampled.append(slot)
                places.append(len(entries) - 1)
            self.engine._decode(entries)
            for slot, place in zip(sampled, places, strict=True):
                if self._take(running[slot], self.sampler.sample(self.context, place)):
                    self.context.memory_seq_rm(slot, -1, -1)
                    del running[slot]
                    free.append(slot)
                    if self.advance:
                        self.advance(1)
        return [self.vocabulary.detokenize(answer, 4096, False, True) for answer in self.answers]

    def _enter(self, number: int, slot: int, entries: list[tuple[int, int, int, bool]]) -> None:
        if self.prefix:
            self.context.memory_seq_cp(0, slot, 0, self.prefix)
        own = self.ids[number][self.prefix :]
        for place, token in enumerate(own, self.prefix):
            entries.append((token, place, slot, place == len(self.ids[number]) - 1))

    def _take(self, number: int, token: int) -> bool:
        """Adds a token to an answer; True when the answer is finished."""
        answer = self.answers[number]
        if self.vocabulary.is_eog(token):
            return True
        answer.append(token)
        if len(answer) >= self.max_tokens:
            return True
        text = (
            self.vocabulary.detokenize(answer, 4096, False, True) if len(answer) <= 4 and self.opening else ""
        )
        return bool(text) and goes_astray(text, self.opening)
