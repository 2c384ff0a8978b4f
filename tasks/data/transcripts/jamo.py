"""Hangul jamo that stand alone, as people can read them. Pure.

A recogniser writes jamo; what composes to no syllable (a vowel without a consonant before it) would stay a
conjoining jamo, which fonts draw as a box or over its neighbour. Readers get the letter instead: ㅏ이머.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Conjoining jamo: the main block and its two extensions of old letters.
_CONJOINING = ((0x1100, 0x11FF), (0xA960, 0xA97C), (0xD7B0, 0xD7FB))
_PLACES = ("CHOSEONG", "JUNGSEONG", "JONGSEONG")
_FILLERS = frozenset("\u115f\u1160")  # stand for no letter


def visible(text: str) -> str:
    """The text composed to NFC, every conjoining jamo left over as its letter; the rest as it is.

    A jamo that has a compatibility letter (all modern ones) becomes that one character; of an old cluster
    without one the letters it is made of; a filler goes. Applied to its own result it changes nothing.
    """
    text = unicodedata.normalize("NFC", text)
    if text.isascii() or not any(_is_conjoining(character) for character in text):
        return text
    return "".join(_letter(c) if _is_conjoining(c) else c for c in text)


def _is_conjoining(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _CONJOINING)


@cache
def _letter(jamo: str) -> str:
    if jamo in _FILLERS:
        return ""
    place, _, name = unicodedata.name(jamo, "").removeprefix("HANGUL ").partition(" ")
    if place not in _PLACES:
        return "\ufffd"  # an unassigned place in the blocks
    return _named(name) or "".join(map(_letters, name.split("-")))


def _letters(name: str) -> str:
    """Of a part of a cluster: SSANGNIEUN is ㄴㄴ; a light or old sibilant letter is the plain one."""
    base = re.sub("^(KAPYEOUN|CHITUEUM|CEONGCHIEUM)", "", name)
    twice = base.removeprefix("SSANG")
    return _named(base) or _named(twice) * 2 or "\ufffd"


def _named(name: str) -> str:
    """The compatibility letter of this name: "KIYEOK" → ㄱ; "" where there is none."""
    try:
        return unicodedata.lookup(f"HANGUL LETTER {name}")
    except KeyError:
        return ""
