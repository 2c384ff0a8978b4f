"""Who says what in the built-in corpus: sentences drawn and split, utterances given to voices. Pure.

No sentence is in two splits. `test_sentences` are unseen sentences by training voices, `test_voices` other
unseen sentences by voices that no training utterance has. Voices take turns, so each gets a fair share.
`test_ood` is drawn from a random stream of its own, so that the others are the same with and without it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from tasks.data.everyday import everyday_sentences
from tasks.data.grammar import Command, commands
from tasks.data.manifest import OUT_OF_DOMAIN, SPLITS
from tasks.data.surroundings import KINDS
from tasks.errors import DataError
from tasks.settings import Corpus

MAX_JOINED = 4


@dataclass(frozen=True)
class Sentence:
    """A command with its identifier (s00012) and the split of utterances that it belongs to."""

    sentence_id: str
    command: Command
    split: str


@dataclass(frozen=True)
class Utterance:
    """One to four sentences said in a row by one voice. `number` seeds its rate, pitch, silence and noise."""

    number: int
    utterance_id: str
    split: str
    speaker: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Unusual:
    """One utterance of the out-of-domain slice: an everyday sentence in a surrounding of `KINDS`."""

    number: int
    utterance_id: str
    speaker: str
    sentence_id: str
    text: str
    kind: str


def draw_sentences(params: Corpus) -> list[Sentence]:
    """Distinct sentences for every split, in the order of the grammar's draw.

    Raises:
        DataError: the grammar cannot give so many distinct sentences.
    """
    sizes = {
        "train": params.train_sentences,
        "validation": params.validation_sentences,
        "test_sentences": params.test_sentences,
        "test_voices": params.test_sentences,
    }
    order = [split for split in SPLITS for _ in range(sizes[split])]
    # Shuffled, so that rare sentences (drawn late) are spread over the splits like frequent ones.
    random.Random(params.seed).shuffle(order)
    sentences = [
        Sentence(f"s{number:05d}", command, split)
        for number, (command, split) in enumerate(zip(commands(params.seed), order, strict=False))
    ]
    if len(sentences) < len(order):
        raise DataError(
            f"the corpus asks for {len(order)} distinct sentences",
            f"the grammar gave {len(sentences)}",
            "lower corpus.train_sentences, corpus.validation_sentences or corpus.test_sentences",
        )
    return sentences


def plan_utterances(
    params: Corpus,
    sentences: Sequence[Sentence],
    training_voices: Sequence[str],
    unseen_voices: Sequence[str],
) -> list[Utterance]:
    """Every utterance of the corpus. Only training utterances are joined; others are one sentence each.

    Raises:
        DataError: `corpus.voices` or `corpus.unseen_voices` is more than the fixed lists hold.
    """
    known = _first(training_voices, params.voices, "corpus.voices")
    unseen = _first(unseen_voices, params.unseen_voices, "corpus.unseen_voices")
    rng = random.Random(params.seed + 1)
    pools = {split: [s for s in sentences if s.split == split] for split in SPLITS}
    joined = round(params.train_utterances * params.joined_share)
    counts = {
        "train": [1] * (params.train_utterances - joined) + [2 + i % (MAX_JOINED - 1) for i in range(joined)],
        "validation": [1] * len(pools["validation"]),
        "test_sentences": [1] * params.test_utterances,
        "test_voices": [1] * params.test_utterances,
    }
    planned: list[Utterance] = []
    for split in SPLITS:
        voices = _turns(rng, unseen if split == "test_voices" else known)
        pool = cycle(pools[split])
        for index, count in enumerate(counts[split]):
            said = tuple(next(pool) for _ in range(count))
            planned.append(Utterance(len(planned), f"{split}-{index:05d}", split, next(voices), said))
    return planned


def plan_out_of_domain(
    params: Corpus, training_voices: Sequence[str], unseen_voices: Sequence[str]
) -> list[Unusual]:
    """The out-of-domain slice: distinct sentences, every kind by known and by unseen voices in turn.

    Raises:
        DataError: more voices or sentences are asked for than there are.
    """
    rng = random.Random(f"{params.seed} out of domain")
    known = _turns(rng, _first(training_voices, params.voices, "corpus.voices"))
    unseen = _turns(rng, _first(unseen_voices, params.unseen_voices, "corpus.unseen_voices"))
    planned = []
    for number, text in enumerate(everyday_sentences(params.ood_utterances, rng)):
        kind = KINDS[number % len(KINDS)]
        speaker = next(unseen if number // len(KINDS) % 2 else known)
        planned.append(
            Unusual(number, f"{OUT_OF_DOMAIN}-{number:05d}", speaker, f"o{number:05d}", text, kind)
        )
    return planned


def _turns(rng: random.Random, voices: Sequence[str]) -> Iterator[str]:
    """The voices round after round, each round in a new order."""
    while True:
        yield from rng.sample(list(voices), len(voices))


def _first(voices: Sequence[str], count: int, setting: str) -> Sequence[str]:
    if count > len(voices):
        raise DataError(
            f"{setting} = {count}",
            f"must be at most {len(voices)}, the length of the fixed list in tasks/data/voices.py",
            f"lower {setting}",
        )
    return voices[:count]
