"""What is judged: the answers of shipped files to test items. Types alone (`tasks.release.evidence`)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

SENTENCES, VOICES = "test_sentences", "test_voices"


class Answer(NamedTuple):
    """One system's answer to one test item.

    Attributes:
        split: the test split.
        id: utterance or example id.
        block: what is independent: the speaker, or the example itself.
        reference: the true text, to prove that two systems answered the same.
        errors: edits, or 1 for a wrong answer.
        units: reference characters, or 1.
    """

    split: str
    id: str
    block: str
    reference: str
    errors: float
    units: float


class Change(NamedTuple):
    """One item answered twice: as it is and under a condition, or by a model and by what was made of it.

    Attributes:
        block: what is independent, as in `Answer`.
        reference: the true text.
        before, after: edits, or 1 for a wrong answer.
        units: reference characters, or 1.
    """

    block: str
    reference: str
    before: float
    after: float
    units: float


@dataclass(frozen=True)
class Road:
    """Spoken command to tool call through shipped files, an answer per utterance; its block is the speaker,
    its reference what was said.
    """

    answers: tuple[Answer, ...]

    def right(self, split: str) -> float:
        """The share of right calls in a test split; not a number where it has none."""
        own = [answer for answer in self.answers if answer.split == split]
        return 1 - sum(answer.errors for answer in own) / len(own) if own else math.nan

    @property
    def exact_match_unseen_sentences(self) -> float:
        return self.right(SENTENCES)

    @property
    def exact_match_unseen_voices(self) -> float:
        return self.right(VOICES)


@dataclass(frozen=True)
class AsrEvidence:
    """What is known of a recogniser's shipped file; the block of every answer is its speaker.

    Attributes:
        artifact: digest of the shipped files.
        normaliser: id of the text normaliser that the errors were counted under.
        answers: the shipped file's transcripts of the plain test utterances, those out of domain apart.
        silence, joined: the same utterances of known voices without and with the condition.
        outside: the transcripts out of domain; empty when the corpus has no such slice.
        road: None when the road was not measured through this file.
    """

    artifact: str
    normaliser: str
    answers: tuple[Answer, ...]
    silence: tuple[Change, ...]
    joined: tuple[Change, ...]
    outside: tuple[Answer, ...] = ()
    road: Road | None = None

    def split(self, name: str) -> list[Answer]:
        """The answers of one test split."""
        return [answer for answer in self.answers if answer.split == name]


@dataclass(frozen=True)
class LlmEvidence:
    """What is known of a language model's GGUF that serves; the block of every answer is the command's text.

    Attributes:
        artifact: digest of the shipped files.
        quantisation: the type that serves, such as "Q8_0".
        failed_checks: names and details of failed verifications; empty when the file answers like the model.
        answers: the GGUF's answers to the test examples, from true text.
        quantised: the same examples by the merged model and by the GGUF made from it.
        road: None when the road was not measured through this file.
    """

    artifact: str
    quantisation: str
    failed_checks: tuple[str, ...]
    answers: tuple[Answer, ...]
    quantised: tuple[Change, ...]
    road: Road | None = None
