"""Korean number words: integers to speech and back.

Korean counts in two series. Sino-Korean numbers (일, 이, 삼 ...) go with minutes, degrees, percent and
channels; native numbers (한, 두, 세 ...) with hours and things counted. This module knows both series and
nothing of units or sentences. Pure; no command.
"""

from __future__ import annotations

import re

SINO_DIGITS = "영일이삼사오육칠팔구"
_SINO_PLACES = (("천", 1000), ("백", 100), ("십", 10))
_GROUPS = (("조", 10**12), ("억", 10**8), ("만", 10**4), ("", 1))

NATIVE_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")

_TWO_UP = "[이삼사오육칠팔구]"  # a leading 일 is not said before 십, 백 and 천
SINO_PATTERN = (
    r"(?:영|(?=[일이삼사오육칠팔구십백천])"
    rf"(?:(?:{_TWO_UP}\s?)?천\s?)?(?:(?:{_TWO_UP}\s?)?백\s?)?(?:(?:{_TWO_UP}\s?)?십\s?)?(?:[일이삼사오육칠팔구])?)"
)
"""Matches a well-formed Sino-Korean number from 0 to 9999, a space allowed between any two syllables."""


def _either(words: tuple[str, ...]) -> str:
    return "|".join(r"\s?".join(word) for word in words)


NATIVE_PATTERN = (
    rf"(?:스\s?무|(?:{_either(NATIVE_TENS[1:])})\s?(?:{_either(NATIVE_ONES[1:])})|"
    rf"{_either(NATIVE_TENS[1:2] + NATIVE_TENS[3:])}|{_either(NATIVE_ONES[1:])})"
)
"""Matches a native number from 1 to 99 as said before a counter (스물 alone becomes 스무)."""


def sino(value: int) -> str:
    """Say `value` (0 to 9999) in the Sino-Korean series: 29 is 이십구. Raises ValueError outside."""
    if not 0 <= value <= 9999:
        raise ValueError(f"{value} is not between 0 and 9999")
    if value == 0:
        return "영"
    said = ""
    for name, place in _SINO_PLACES:
        digit, value = divmod(value, place)
        if digit:
            said += (SINO_DIGITS[digit] if digit > 1 else "") + name
    return said + (SINO_DIGITS[value] if value else "")


def sino_grouped(value: int) -> str:
    """Say any `value` below 10,000 조 in the Sino-Korean series, grouped by 만, 억 and 조.

    12345678 is 천이백삼십사만 오천육백칠십팔. A leading 일 is not said before 만 (10000 is 만), but is before
    억 and 조. Raises ValueError outside.
    """
    if not 0 <= value < 10**16:
        raise ValueError(f"{value} is not between 0 and 9999조 9999억 9999만 9999")
    if value < 10**4:
        return sino(value)
    said: list[str] = []
    for name, place in _GROUPS:
        group, value = divmod(value, place)
        if group:
            said.append(name if name == "만" and group == 1 and not said else sino(group) + name)
    return " ".join(said)


def digit_by_digit(digits: str) -> str:
    """Say every digit by itself, 0 as 공: phone numbers, codes."""
    return "".join("공" if digit == "0" else SINO_DIGITS[int(digit)] for digit in digits)


def native(value: int) -> str:
    """Say `value` (1 to 99) in the native series, as before a counter: 일곱, 스무, 스물한."""
    if not 1 <= value <= 99:
        raise ValueError(f"{value} is not between 1 and 99")
    if value == 20:
        return "스무"
    tens, ones = divmod(value, 10)
    return NATIVE_TENS[tens] + NATIVE_ONES[ones]


def parse_sino(said: str) -> int:
    """The value of a Sino-Korean number, spaces ignored: "이십 구" is 29. Raises ValueError otherwise."""
    if not said.strip() or re.fullmatch(SINO_PATTERN, said.strip()) is None:
        raise ValueError(f"{said!r} is not a Sino-Korean number")
    total = digit = 0
    for syllable in re.sub(r"\s", "", said):
        if syllable in SINO_DIGITS:
            digit = SINO_DIGITS.index(syllable)
        else:
            total += (digit or 1) * dict(_SINO_PLACES)[syllable]
            digit = 0
    return total + digit


def parse_native(said: str) -> int:
    """The value of a native number before a counter: "열 두" is 12. Raises ValueError otherwise."""
    compact = re.sub(r"\s", "", said)
    if compact == "스무":
        return 20
    for tens in range(9, -1, -1):
        if compact.startswith(NATIVE_TENS[tens]) and compact[len(NATIVE_TENS[tens]) :] in NATIVE_ONES:
            value = 10 * tens + NATIVE_ONES.index(compact[len(NATIVE_TENS[tens]) :])
            if value and value != 20:
                return value
    raise ValueError(f"{said!r} is not a native number")
