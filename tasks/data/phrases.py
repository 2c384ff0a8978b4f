"""Korean particles, request endings, openings and spoken amounts: the pieces a command is made of.

Pure functions of a `random.Random`; knows no tool. No command.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tasks.data.numbers import native, sino

_OPENINGS = ("음", "어", "저기", "그", "아", "자", "저기요")
_ADVERBS = ("지금", "바로", "얼른", "빨리", "이제")

# `{}` is the verb's connecting form (켜, 맞춰, 해): every ending attaches without a change of spelling.
_ENDINGS: tuple[tuple[str, int], ...] = (
    ("{} 줘", 9),
    ("{} 주세요", 6),
    ("{} 줄래", 3),
    ("{} 줘요", 2),
    ("{} 주시겠어요", 2),
    ("{} 줄래요", 2),
    ("{} 줄 수 있어", 1),
    ("{} 주십시오", 1),
    ("{}라", 1),
    ("{} 봐", 1),
    ("{}", 1),
)
_ENDING_FORMS = tuple(form for form, _ in _ENDINGS)
_ENDING_WEIGHTS = tuple(weight for _, weight in _ENDINGS)


def has_final(word: str) -> bool:
    """Whether the last syllable of `word` ends in a consonant (batchim)."""
    return (ord(word[-1]) - ord("가")) % 28 != 0


def with_object(word: str) -> str:
    """`word` with the object particle: 불을, 커튼을, 라디오를."""
    return word + ("을" if has_final(word) else "를")


def with_subject(word: str) -> str:
    """`word` with the subject particle: 기온이, 습도가."""
    return word + ("이" if has_final(word) else "가")


def with_topic(word: str) -> str:
    """`word` with the topic particle: 기온은, 습도는."""
    return word + ("은" if has_final(word) else "는")


def with_direction(word: str) -> str:
    """`word` with the direction particle: 도로, 분으로, and 로 after ㄹ (초로, 서울로)."""
    final = (ord(word[-1]) - ord("가")) % 28
    return word + ("로" if final in (0, 8) else "으로")


def maybe(rng: random.Random, chance: float, text: str) -> str:
    """`text` with probability `chance`, else the empty string."""
    return text if rng.random() < chance else ""


def object_phrase(rng: random.Random, word: str) -> str:
    """`word` as an object the way people say it: often bare, sometimes with 을/를 or a softening 좀."""
    said = with_object(word) if rng.random() < 0.4 else word
    return said + maybe(rng, 0.2, " 좀")


def place_phrase(rng: random.Random, room: str) -> str:
    """A room before the thing in it: "거실", "거실에 있는" or "거실 쪽"."""
    return room + rng.choices(("", "에 있는", " 쪽"), weights=(10, 1, 1))[0]


def request(rng: random.Random, verb: str) -> str:
    """`verb` (connecting form) as a request in one of eleven endings: "켜 줘", "켜 주시겠어요", "켜라"."""
    return rng.choices(_ENDING_FORMS, weights=_ENDING_WEIGHTS)[0].format(verb)


def adverb(rng: random.Random) -> str:
    """Sometimes an adverb of urgency, else the empty string."""
    return maybe(rng, 0.2, rng.choice(_ADVERBS))


def sentence(rng: random.Random, *parts: str) -> str:
    """The parts joined by single spaces, empty ones left out, sometimes with a filler in front."""
    opening = maybe(rng, 0.25, rng.choice(_OPENINGS))
    return " ".join(part for part in (opening, *parts) if part)


def percent(rng: random.Random) -> tuple[int, str]:
    """A percentage and how it is said: mostly a multiple of five."""
    value = rng.randrange(5, 101, 5) if rng.random() < 0.75 else rng.randint(1, 100)
    return value, f"{sino(value)} 퍼센트"


def clock_time(rng: random.Random, hours: Sequence[int]) -> tuple[int, int, str]:
    """Hour, minute and how they are said: native hour, then nothing, 반 or Sino-Korean minutes."""
    hour = rng.choice(hours)
    kind = rng.random()
    if kind < 0.35:
        return hour, 0, f"{native(hour)} 시"
    if kind < 0.55:
        return hour, 30, f"{native(hour)} 시 반"
    minute = rng.randrange(5, 60, 5) if kind < 0.85 else rng.randint(1, 59)
    return hour, minute, f"{native(hour)} 시 {sino(minute)} 분"


def duration(rng: random.Random) -> tuple[int, str, str]:
    """Amount, unit and how they are said: native hours, Sino-Korean minutes and seconds."""
    unit = rng.choices(("시간", "분", "초"), weights=(2, 6, 2))[0]
    if unit == "시간":
        amount = rng.randint(1, 12)
        return amount, unit, f"{native(amount)} 시간"
    amount = rng.randrange(5, 61, 5) if rng.random() < 0.5 else rng.randint(1, 90 if unit == "분" else 59)
    return amount, unit, f"{sino(amount)} {unit}"
