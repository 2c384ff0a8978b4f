"""Words that the search is to expect: names and terms that no transcript of the training holds.

    HotWords.spelled(["말길", "부엌 조명"], vocabulary, weight=1.5)

Each symbol of a listed word or phrase is worth `weight` nats to the hypothesis that writes it, from the
beginning of a word on. What turns out to be another word gives back all it was given, so that a name
favours nothing but itself; endings may follow it (말길에서). Not here: the search (`decode.py`). No command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flashlight.lib.text.decoder import LM, LMState

from tasks.asr.checkpoints.vocabulary import SPACE, Vocabulary
from tasks.errors import DataError

WEIGHT = 3.0  # nats per symbol; docs/how-to/transcribe.md says how it was chosen
_FINALS = frozenset(chr(code) for code in range(0x11A8, 0x11C3))  # jamo that end a syllable


class Progress(NamedTuple):
    """How far a hypothesis is in a listed word: `node` of the tree (None: in another word), what it was
    given since the last listed word ended, and whether a word begins here.
    """

    node: int | None
    owed: float
    begins: bool


START = Progress(node=0, owed=0.0, begins=True)


class HotWords:
    """The listed words as a tree of labels."""

    def __init__(self, words: Sequence[Sequence[int]], weight: float, space: int, finals: frozenset[int]):
        self.weight, self.space, self.finals = weight, space, finals
        self.most = weight * max((len(word) for word in words), default=0)  # nats that a word can owe
        self._children: list[dict[int, int]] = [{}]
        self._ends = [False]
        for word in words:
            node = 0
            for label in word:
                if label not in self._children[node]:
                    self._children[node][label] = len(self._children)
                    self._children.append({})
                    self._ends.append(False)
                node = self._children[node][label]
            self._ends[node] = True

    @classmethod
    def spelled(cls, words: Sequence[str], vocabulary: Vocabulary, weight: float) -> HotWords:
        """The words in the symbols of a vocabulary.

        Raises:
            DataError: a word is empty, or has characters that the recogniser cannot write.
        """
        ids = vocabulary.ids
        spelled = []
        for word in words:
            text = " ".join(word.split())
            try:
                labels = vocabulary.encode(text)
            except DataError as error:
                what = error.what.replace("transcript", "hot word", 1)
                raise DataError(
                    what, "its characters must be in the recogniser's vocabulary", "write it as it is spoken"
                ) from error
            if not labels:
                raise DataError("a hot word is empty", "must have a character", "remove it from the list")
            spelled.append(labels)
        finals = frozenset(ids[symbol] for symbol in _FINALS if symbol in ids)
        return cls(spelled, weight, ids.get(SPACE, vocabulary.blank_id), finals)

    def step(self, at: Progress, label: int) -> tuple[Progress, float]:
        """Where a label leads, and what it is worth in nats (negative: it gives back)."""
        owed = at.owed
        if at.node is not None and self._ends[at.node] and label not in self.finals:
            owed = 0.0  # the word is whole: what it was given stays
        node = None if at.node is None else self._children[at.node].get(label)
        back = 0.0
        if node is None:
            back, owed = -owed, 0.0
            node = self._children[0].get(label) if at.begins else None
        if node is not None:
            return Progress(node, owed + self.weight, label == self.space), back + self.weight
        return (START if label == self.space else Progress(None, 0.0, begins=False)), back

    def end(self, at: Progress) -> float:
        """What the end of the text is worth in nats."""
        return 0.0 if at.node is not None and self._ends[at.node] else -at.owed


class Boosted(LM):  # type: ignore[misc]  # flashlight has no types
    """A language model of flashlight with a bonus for hot words.

    Args:
        inner: the model itself.
        lm_weight: by which the search multiplies what this returns.
    """

    def __init__(self, inner: LM, hot_words: HotWords, lm_weight: float) -> None:
        LM.__init__(self)
        self._inner, self._hot_words, self._lm_weight = inner, hot_words, lm_weight
        # one entry per hypothesis of a recording, kept alive here, since flashlight holds the states alone
        self._states: dict[LMState, tuple[Any, Progress, float]] = {}

    def start(self, start_with_nothing: bool) -> LMState:
        """The state before the first symbol."""
        self._states.clear()
        state = LMState()
        self._states[state] = (self._inner.start(start_with_nothing), START, 0.0)
        return state

    def score(self, state: LMState, label: int) -> tuple[LMState, float]:
        """The state after a symbol, and its score."""
        child = state.child(label)
        known = self._states.get(child)
        if known is None:
            inner, at, _ = self._states[state]
            after, score = self._inner.score(inner, label)
            at, worth = self._hot_words.step(at, label)
            known = self._states[child] = (after, at, score + worth / self._lm_weight)
        return child, known[2]

    def finish(self, state: LMState) -> tuple[LMState, float]:
        """The state after the end, and its score."""
        inner, at, _ = self._states[state]
        _, score = self._inner.finish(inner)
        return state, score + self._hot_words.end(at) / self._lm_weight
