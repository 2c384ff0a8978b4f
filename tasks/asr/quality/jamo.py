"""Which jamo are taken for which: substitutions, deletions and insertions counted by pair. Pure; no command.

A Hangul syllable is two or three jamo (Unicode NFD), and initial, medial and final consonants are different
symbols there: 각 has an initial and a final ㄱ. Texts are compared without spaces, jamo by jamo, in a minimal
alignment; an error is counted under the place (initial, medial, final) of the jamo that was said, an
insertion under the place of what was heard.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from rapidfuzz.distance import Levenshtein

from tasks.asr.quality.metrics import heard_words

Place = Literal["initial", "medial", "final", "other"]

_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"  # from U+1100
_MEDIALS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"  # from U+1161
_FINALS = "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"  # from U+11A8
_PLACES: tuple[tuple[Place, int, str], ...] = (
    ("initial", 0x1100, _INITIALS),
    ("medial", 0x1161, _MEDIALS),
    ("final", 0x11A8, _FINALS),
)


def place_and_letter(jamo: str) -> tuple[Place, str]:
    """Where a conjoining jamo stands and the letter that people write for it; ("other", itself) else."""
    for place, first, letters in _PLACES:
        if 0 <= ord(jamo) - first < len(letters):
            return place, letters[ord(jamo) - first]
    return "other", jamo


def confusions(references: Sequence[str], hypotheses: Sequence[str], limit: int = 20) -> list[dict[str, Any]]:
    """The most frequent confusions, most frequent first.

    Returns:
        Rows {"kind": "substitution" | "deletion" | "insertion", "place", "said", "heard", "heard_place",
        "n", "rate", "example"}. `rate` is `n` over how often the jamo was said at that place; for an
        insertion, over all jamo said. `example` is one word as said and as heard.

    Raises:
        ValueError: lists of different length.
    """
    counts: Counter[tuple[str, str]] = Counter()  # conjoining jamo said and heard, "" for none
    said: Counter[str] = Counter()
    examples: dict[tuple[str, str], dict[str, str]] = {}
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        jamo, word_of = _jamo(reference)
        said.update(jamo)
        for pair, at in _errors(jamo, _jamo(hypothesis)[0]):
            counts[pair] += 1
            if pair not in examples:
                examples[pair] = _example(reference, hypothesis, word_of[at] if word_of else 0)
    total = sum(said.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [_row(pair, n, said, total) | {"example": examples[pair]} for pair, n in ranked[:limit]]


def counts(references: Sequence[str], hypotheses: Sequence[str]) -> list[dict[str, Any]]:
    """How often each jamo was heard as another of its place, or not at all: what a heat map is drawn of.

    Returns:
        Rows {"place", "said", "heard", "n", "of"} in the order of the alphabet. `heard` is "" where the jamo
        was left out; `of` is how often it was said at that place. Insertions are not among them.

    Raises:
        ValueError: lists of different length.
    """
    found: Counter[tuple[str, str]] = Counter()
    said: Counter[str] = Counter()
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        jamo, _ = _jamo(reference)
        said.update(jamo)
        found.update(pair for pair, _ in _errors(jamo, _jamo(hypothesis)[0]) if pair[0])
    rows = []
    for (one, other), n in sorted(found.items()):
        place, letter = place_and_letter(one)
        heard_place, heard = place_and_letter(other) if other else (place, "")
        if place == heard_place and place != "other":
            rows.append({"place": place, "said": letter, "heard": heard, "n": n, "of": said[one]})
    return rows


def _jamo(text: str) -> tuple[str, list[int]]:
    """All jamo of a text without spaces, and the word that each stands in.

    NFKD: a recogniser's jamo without a syllable is a letter (ㅏ), which NFD leaves as it is.
    """
    parts = [unicodedata.normalize("NFKD", word) for word in text.split()]
    return "".join(parts), [number for number, part in enumerate(parts) for _ in part]


def _errors(said: str, heard: str) -> list[tuple[tuple[str, str], int]]:
    """((said, heard), place in `said`) of every edit."""
    found = []
    for step in Levenshtein.editops(said, heard):
        one = said[step.src_pos] if step.tag != "insert" else ""
        other = heard[step.dest_pos] if step.tag != "delete" else ""
        found.append(((one, other), step.src_pos if step.tag != "insert" else max(step.src_pos - 1, 0)))
    return found


def _row(pair: tuple[str, str], n: int, said: Counter[str], total: int) -> dict[str, Any]:
    one, other = pair
    place, letter = place_and_letter(one) if one else place_and_letter(other)
    heard_place, heard = place_and_letter(other) if other else (place, "")
    kind = "substitution" if one and other else "deletion" if one else "insertion"
    return {
        "kind": kind,
        "place": place,
        "said": letter if one else "",
        "heard": heard,
        "heard_place": heard_place,
        "n": n,
        "rate": n / max(said[one] if one else total, 1),
    }


def _example(reference: str, hypothesis: str, word: int) -> dict[str, str]:
    """One word as said and as heard; all of a reference without words."""
    words = reference.split()
    if not words:
        return {"said": "", "heard": hypothesis}
    return {"said": words[word], "heard": heard_words(reference, hypothesis)[word]}
