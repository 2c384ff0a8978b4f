"""Latin letters spelled in Hangul (step `latin-1`): abbreviations by the names of their letters. Pure.

"AI" → "에이아이", "TV" → "티비", "KBS" → "케이비에스", "G20" → "지이십". Known words stand in `WORDS`. A word
that is neither known nor an abbreviation ("hello", "iPhone") stays as it is: nobody can say from its letters
how the speaker said it, so the validation stage quarantines the row (`not_hangul`) and names it.
"""

from __future__ import annotations

import re

from tasks.data.read_out import say_number

_NAMES = (
    "에이 비 씨 디 이 에프 지 에이치 아이 제이 케이 엘 엠 엔 오 피 큐 알 에스 티 유 브이 "
    "더블유 엑스 와이 제트"
)
LETTERS = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", _NAMES.split(), strict=True))
"""Letter to its Korean name."""

WORDS = {
    "TV": "티비",
    "OK": "오케이",
    "PC": "피씨",
    "WIFI": "와이파이",
    "WI-FI": "와이파이",
    "LED": "엘이디",
    "DVD": "디브이디",
    "CCTV": "씨씨티비",
    "IPTV": "아이피티비",
    "ID": "아이디",
    "PIN": "핀",
    "NASA": "나사",
    "UNESCO": "유네스코",
    "UNICEF": "유니세프",
    "OPEC": "오펙",
    "NATO": "나토",
    "FIFA": "피파",
    "LAN": "랜",
    "RAM": "램",
    "SIM": "심",
    "APP": "앱",
    "EMAIL": "이메일",
    "E-MAIL": "이메일",
    "VS": "대",
    "A4": "에이포",
    "A3": "에이쓰리",
    "3D": "쓰리디",
    "4D": "포디",
    "2D": "투디",
    "MP3": "엠피쓰리",
    "MP4": "엠피포",
    "3G": "쓰리지",
    "4G": "포지",
    "5G": "파이브지",
    "KF94": "케이에프 구십사",
    "KF80": "케이에프 팔십",
}
"""Words that are not said letter by letter, in capitals; they match in any case."""

LONGEST = 6  # letters; a longer word in capitals ("SAMSUNG") is likelier a word than an abbreviation

_WORD = re.compile(r"(?i:wi-fi|e-mail)(?![A-Za-z])|[A-Za-z0-9]+(?:&[A-Za-z0-9]+)*")
_ABBREVIATION = re.compile(rf"[A-Z]{{1,{LONGEST}}}")
_PARTS = re.compile(r"[A-Za-z]+|\d+")


def read_latin(text: str) -> str:
    """The text with known words and abbreviations in Hangul; any other Latin word stays as it is.

    An abbreviation is one to six capitals, possibly with digits (G20 → 지이십) or `&` (R&B → 알앤비); one
    single letter is one in either case. The letters are not kept apart.
    """
    return _WORD.sub(lambda match: "앤".join(map(_read_word, match[0].split("&"))), text)


def spell(letters: str) -> str:
    """The names of Latin letters, one after another: "ABC" → "에이비씨"."""
    return "".join(LETTERS[letter] for letter in letters.upper())


def _read_word(word: str) -> str:
    if known := WORDS.get(word.upper()):
        return known
    if len(word) == 1:
        word = word.upper()
    parts = _PARTS.findall(word)
    letters = [part for part in parts if part.isalpha()]
    if not letters or not all(map(_ABBREVIATION.fullmatch, letters)):
        return word
    return "".join(spell(part) if part.isalpha() else say_number(part) for part in parts)
