"""What stands in brackets: where it ends, and which kind of mark it is. Pure."""

from __future__ import annotations

import re
from enum import Enum

from tasks.data.hanja import read_hanja
from tasks.data.transcripts import conventions as table

_DEEPEST = 20  # brackets in brackets; more is no transcript
_OPENS = {opening: close for opening, close in table.BRACKETS.items() if opening != "<"}
_CLOSES = frozenset(_OPENS.values())


class Kind(Enum):
    """A sound that is no word, a name left out, something not understood, a tag of terms, or none known."""

    EVENT, ANONYMOUS, UNCLEAR, TERM, OTHER = range(5)


def closing(text: str, start: int) -> int | None:
    """The place behind the bracket that closes the one at `start`; None where they do not match."""
    waiting: list[str] = []
    for at in range(start, len(text)):
        character = text[at]
        if character in _OPENS:
            waiting.append(_OPENS[character])
            if len(waiting) > _DEEPEST:
                return None
        elif character in _CLOSES:
            if waiting.pop() != character:
                return None
            if not waiting:
                return at + 1
    return None


def kind_of(content: str) -> Kind:
    """Which kind of mark the content of brackets, or the word behind an `@`, is."""
    lower = content.casefold().strip(" \t.!~*_")
    if not lower:
        return Kind.OTHER
    for known, kind in (
        (table.UNCLEAR_WORDS, Kind.UNCLEAR),
        (table.ANONYMOUS, Kind.ANONYMOUS),
        (table.TERMS, Kind.TERM),
    ):
        if {_bare(lower), lower.replace(" ", ""), _sound(lower.replace(" ", ""))} & known:
            return kind
    if re.fullmatch("x+", lower):
        return Kind.UNCLEAR
    parts = [_sound(part) for part in re.split(r"[\s,·/&:+|_]+", lower) if part]
    whole = _sound(lower.replace(" ", ""))
    if whole in table.EVENTS or (lower.endswith("소리") and len(lower) <= 12 and lower != "소리"):
        return Kind.EVENT
    known_parts = all(part in table.EVENTS or part in table.MODIFIERS for part in parts)
    if known_parts and any(part in table.EVENTS for part in parts):
        return Kind.EVENT
    if any(part in table.ANONYMOUS and len(part) > 2 for part in parts) and len(parts) <= 3:
        return Kind.ANONYMOUS
    return Kind.OTHER


def tag_kind(inner: str) -> tuple[Kind, str]:
    """The kind of `<inner>` and what is said instead: tags of form go, their content stays."""
    found = re.match(r"/?\s*([A-Za-z가-힣][\w가-힣-]*)", inner)
    name = found[1].casefold() if found else ""
    form = re.fullmatch(r"/?\s*[A-Za-z]+(\.[\w.-]+)?(\s[^<>]*)?/?", inner)
    if form and name in table.INLINE_TAGS:
        return Kind.EVENT, ""
    if form and name in table.BREAKING_TAGS:
        return Kind.EVENT, " "
    if re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?([.,]\d{1,3})?", inner):
        return Kind.EVENT, " "
    return kind_of(inner.strip("/ ")), " "


def in_hangul(side: str) -> bool:
    """Whether a side of a pair is written in Hangul alone, marks aside."""
    return re.fullmatch(r"[가-힣\s.,?!~+*/]+", side) is not None


def is_tag(side: str) -> bool:
    """Whether a side of a pair names a sound or a term in Latin letters: `(말)/(idiom)`, `(네)/(noise)`."""
    return side.isascii() and kind_of(side) in (Kind.EVENT, Kind.TERM)


def spoken_is_left(left: str, right: str) -> bool:
    """A few corpora write the spoken side first; digits and Latin letters give the written side away."""
    return in_hangul(left) and re.search("[0-9A-Za-z]", right) is not None


def is_gloss(word: str, inner: str) -> bool:
    """Whether the brackets repeat in Hanja the word before them: 대한민국(大韓民國)."""
    if not word or re.fullmatch("[\u4e00-\u9fff\uf900-\ufaff]+", inner) is None:
        return False
    return read_hanja(f"{word}({inner})") == word


def is_time(inner: str, bracket: str) -> bool:
    """Whether it is the time of a cue; (10:30) in round brackets may be a time that is said."""
    hours = r"\d{1,2}:\d\d:\d\d([.,:]\d{1,3})?"
    short = r"(\d{1,3}:\d\d([.,]\d{1,3})?|\d+\.\d+)" if bracket != "(" else hours
    return re.fullmatch(rf"({hours}|{short})(\s*(-|--?>|~)\s*({hours}|{short}))?", inner) is not None


def _bare(word: str) -> str:
    """Without the number of `이름1` or `name_2`."""
    return re.sub(r"[\s_-]*\d+$", "", word)


def _sound(word: str) -> str:
    bare = _bare(word)
    return bare.removesuffix("소리") if len(bare) > 2 else bare
