"""Answers from a GGUF through llama.cpp (cyllama): what ships, as it runs at a user's.

Several prompts decode at once, and the tokens that all of them share (system prompt, turn markers) are
computed once and shared in the key-value cache.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError

from tasks.errors import ModelError
from tasks.inference.engine import Advance, Allowed, choices_for, shared_prefix
from tasks.llm.chat import render_plainly
from tasks.llm.constrain import Choices
from tasks.weights.gguf_header import check_gguf

ROW_TOKENS = 512  # most tokens decoded in one call; half for prompts that enter, half for answers


class LlamaCppEngine:
    """A GGUF file, ready to answer.

    Args:
        path: the GGUF file.
        slots: prompts that decode at once.
        context: longest prompt and answer together, in tokens.
        threads: for decoding; OMP_NUM_THREADS by default, or 1: more than the free cores make it slower.

    Raises:
        ModelError: the file is no whole GGUF, its tensors are not those that it describes, or llama.cpp
            cannot load it.
    """

    def __init__(self, path: Path, *, slots: int = 8, context: int = 512, threads: int | None = None) -> None:
        check_gguf(path)  # llama.cpp ends the process on some files that are none
        from cyllama.llama import llama_cpp

        llama_cpp.disable_logging()
        self._llama_cpp: Any = llama_cpp
        self.path, self.slots, self.context = path, slots, context
        settings = llama_cpp.LlamaContextParams()
        settings.n_ctx = context * slots
        settings.n_batch = settings.n_ubatch = ROW_TOKENS
        settings.n_seq_max = slots + 1
        settings.kv_unified = True  # so that the shared prefix is shared, not copied
        settings.n_threads = settings.n_threads_batch = threads or int(os.environ.get("OMP_NUM_THREADS", "1"))
        model_settings = llama_cpp.LlamaModelParams()
        model_settings.n_gpu_layers = 0
        # Not laid out anew for this CPU: answers would differ by CPU, and by how many prompts decode at once
        model_settings.use_extra_bufts = False
        try:
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
        try:
            if template is None:
                raise TemplateError("it has none")
            return render_plainly(
                template,
                conversation,
                bos=self._vocabulary.get_text(self._vocabulary.token_bos()),
                eos=self._vocabulary.get_text(self._vocabulary.token_eos()),
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
        self,
        prompts: Sequence[str],
        max_tokens: int,
        *,
        allowed: Allowed | None = None,
        advance: Advance | None = None,
    ) -> list[str]:
        """See `Engine.generate`."""
        answers = self.generate_ids(prompts, max_tokens, allowed=allowed, advance=advance)
        return [self._vocabulary.detokenize(answer, 4096, False, True) for answer in answers]

    def generate_ids(
        self,
        prompts: Sequence[str],
        max_tokens: int,
        *,
        allowed: Allowed | None = None,
        advance: Advance | None = None,
    ) -> list[list[int]]:
        """The token ids of `generate`'s answers, without the end-of-turn token."""
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
        return _Batch(self, ids, max_tokens, allowed, advance).run()

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


@dataclass
class _Slot:
    """A prompt that is being answered.

    Attributes:
        number: which prompt.
        pending: tokens not yet decoded; the logits after the last of them choose the next token.
        position: place of the first pending token.
        choices: what the answer may be; None for anything.
    """

    number: int
    pending: list[int]
    position: int
    choices: Choices | None


class _Batch:
    """One call of `generate`: prompts enter slots as slots come free. Sequence 0 keeps the prefix.

    Where the choices leave one way only, the tokens up to the next decision are decoded at once.
    """

    def __init__(
        self,
        engine: LlamaCppEngine,
        ids: list[list[int]],
        max_tokens: int,
        allowed: Allowed | None,
        advance: Advance | None,
    ) -> None:
        self.engine, self.ids, self.max_tokens, self.allowed = engine, ids, max_tokens, allowed
        self.advance = advance
        self.prefix = shared_prefix(ids)
        self.answers: list[list[int]] = [[] for _ in ids]
        self.context, self.vocabulary = engine._context, engine._vocabulary
        self.sampler = engine._llama_cpp.LlamaSampler(engine._llama_cpp.LlamaSamplerChainParams())
        self.sampler.add_greedy()
        self.running: dict[int, _Slot] = {}  # by sequence
        self.free = list(range(1, engine.slots + 1))

    def run(self) -> list[list[int]]:
        """Decodes everything; returns the answers' token ids."""
        self.context.kv_cache_clear()
        if self.prefix:
            start = self.ids[0][: self.prefix]
            self.engine._decode([(token, place, 0, False) for place, token in enumerate(start)])
        waiting = list(range(len(self.ids)))[::-1]
        while waiting or self.running:
            width = sum(len(slot.pending) for slot in self.running.values())
            while (
                waiting and self.free and width + len(self.ids[waiting[-1]]) - self.prefix <= ROW_TOKENS // 2
            ):
                width += self._enter(waiting.pop())
            self._step()
        return self.answers

    def _enter(self, number: int) -> int:
        """Gives a prompt a slot; returns how many tokens it adds to the next call."""
        sequence = self.free.pop()
        if self.prefix:
            self.context.memory_seq_cp(0, sequence, 0, self.prefix)
        own = self.ids[number][self.prefix :]
        choices = choices_for(self.allowed, number, self.engine.tokenise, self.engine.end_token())
        slot = _Slot(number, own, self.prefix, choices)
        self.running[sequence] = slot
        return len(own) + self._follow(slot)

    def _step(self) -> None:
        """Decodes what is pending and takes one decision in every slot."""
        entries: list[tuple[int, int, int, bool]] = []
        places: dict[int, int] = {}
        for sequence, slot in self.running.items():
            last = len(slot.pending) - 1
            for offset, token in enumerate(slot.pending):
                entries.append((token, slot.position + offset, sequence, offset == last))
            places[sequence] = len(entries) - 1
        self.engine._decode(entries)
        for sequence, slot in list(self.running.items()):
            slot.position += len(slot.pending)
            slot.pending = []
            if not self._ended(slot):
                self._take(slot, self._choose(slot, places[sequence]))
            if self._ended(slot):
                self.context.memory_seq_rm(sequence, -1, -1)
                del self.running[sequence]
                self.free.append(sequence)
                if self.advance:
                    self.advance(1)

    def _choose(self, slot: _Slot, place: int) -> int:
        if slot.choices is None:
            return int(self.sampler.sample(self.context, place))
        tokens = slot.choices.tokens
        logits = self.context.get_logits_ith(place)
        token = max(tokens, key=lambda token: logits[token])
        slot.choices.take(token)
        return token

    def _take(self, slot: _Slot, token: int) -> None:
        """Adds a token to the answer, and those that leave no choice after it."""
        slot.pending.append(token)
        if not self.vocabulary.is_eog(token):
            self.answers[slot.number].append(token)
            self._follow(slot)

    def _follow(self, slot: _Slot) -> int:
        forced = slot.choices.forced() if slot.choices is not None else []
        slot.pending = slot.pending + forced
        self.answers[slot.number] += [token for token in forced if not self.vocabulary.is_eog(token)]
        return len(forced)

    def _ended(self, slot: _Slot) -> bool:
        """Whether nothing more is to be chosen."""
        if slot.choices is not None and not slot.choices.tokens:
            return True
        if slot.pending and self.vocabulary.is_eog(slot.pending[-1]):
            return True
        return len(self.answers[slot.number]) >= self.max_tokens
