"""Numbers, dates, times and units read out in Korean (step `numbers-1`). Pure; no command.

"3시 30분에 25도" → "세 시 삼십 분에 이십오 도". Which series a unit takes stands in `tasks.data.units`.
What is ambiguous in writing is decided once: N번 is a number (삼 번), N번째 is counted (세 번째); 10대, 20대
... are ages (이십 대), other N대 are machines (세 대); N분 is minutes; A/B is a fraction (B분의 A); N:M with
two digits behind the colon is a time, otherwise a score (삼 대 이).
Digits that touch a Latin letter and are no number with a unit ("A4", "G20") stay for the step `latin-1`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tasks.data.numbers import SINO_DIGITS, digit_by_digit, native, sino, sino_grouped
from tasks.data.units import BEFORE, FOLDED, NATIVE_UP_TO, SINO_UNITS, SPEEDS, SYMBOLS

_LONGEST = 16  # digits; a longer number is read digit by digit

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_FREE = r"(?<![\d.,A-Za-z])"  # nothing before that would make it a part of a longer number or name
_DONE = r"(?![\d]|[.,]\d|[A-Za-z])"


def _longest_first(words: list[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


# A unit of one letter follows without a space: "3 A팀" is no current.
_LATIN_UNIT = (
    rf"(?:{_longest_first([unit for unit in SYMBOLS if len(unit) == 1])}"
    rf"|\s?(?:{_longest_first([unit for unit in SYMBOLS if len(unit) > 1])}))(?![A-Za-z0-9²³])"
)
_COUNTER = _longest_first([*NATIVE_UP_TO, *SINO_UNITS])

_DATE = re.compile(
    rf"{_FREE}(?P<year>\d{{4}})(?P<sep>[-./])\s?(?P<month>0?[1-9]|1[0-2])(?P=sep)\s?"
    rf"(?P<day>0?[1-9]|[12]\d|3[01])(?:\.(?!\d))?{_DONE}"
)
_PHONE = re.compile(
    r"(?<![\d-])(?:\+82[- ]?\d{1,2}|\(?0\d{1,2}\)?)[- ]?\d{3,4}[- ]\d{4}(?![\d-])"
    r"|(?<![\d-])1[5-8]\d\d-\d{4}(?![\d-])|(?<![\d-])\d+(?:-\d+){2,}(?!\d)"
)
_TIME = re.compile(rf"{_FREE}(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?![\d:])")
_SCORE = re.compile(rf"{_FREE}(?P<left>\d+)\s?(?::|대)\s?(?P<right>\d+)(?![\d:])")
_FRACTION = re.compile(rf"{_FREE}(?P<top>\d+)/(?P<bottom>\d+)(?![\d/])")
_MEMORIAL = re.compile(r"(?<!\d)(?P<month>\d{1,2})[·ㆍ․](?P<day>\d{1,2})(?!\d)")
_VERSION = re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}(?![\d])")
_MONEY = re.compile(
    rf"(?P<sign>{_longest_first(list(BEFORE))})\s?(?P<number>{_NUMBER})(?P<large>[십백천만억조]*)"
)
_SPEED = re.compile(rf"{_FREE}(?P<number>{_NUMBER})\s?(?P<unit>{_longest_first(list(SPEEDS))})(?![A-Za-z])")
_LIST = re.compile(r"(?<=\d),(?=\d)(?!\d{3}(?!\d))")
_COUNTED_RANGE = re.compile(rf"{_FREE}(?P<least>\d+)\s?[-~]\s?(?P<most>\d+)\s?(?P<counter>{_COUNTER})")
_RANGE = re.compile(
    r"(?<=[\d가-힣%])\s?~\s?(?=\d)"
    rf"|(?<=\d)\s?-\s?(?=\d+(?:{_LATIN_UNIT}|\s?(?:년|월|일|분|초|도|원)))"
)
_PLUS = re.compile(r"(?<=\d)\s?\+\s?(?=\d)")
_QUANTITY = re.compile(
    rf"(?P<sign>(?<![\w)%])-)?{_FREE}(?P<number>{_NUMBER})"
    rf"(?:\s?(?P<counter>{_COUNTER})|(?P<large>[십백천만억조]+)|(?P<latin>{_LATIN_UNIT})|(?P<month>월)|{_DONE})"
)
_PARTICLE = re.compile("(?:은|는|이|가|을|를|에|에서|로|으로|과|와|의|까지|부터|보다)(?![가-힣])")
_MONTHS = {6: "유월", 10: "시월"}


def read_numbers(text: str) -> str:
    """The text with every number read out, a space between number and unit.

    "1,234원" → "천이백삼십사 원", "010-1234-5678" → "공일공 일이삼사 오육칠팔", "50%" → "오십 퍼센트",
    "3.5kg" → "삼 점 오 킬로그램", "15:30" → "십오 시 삼십 분". Text without digits is returned as it is.
    """
    text = text.translate(FOLDED)
    if not any(character.isascii() and character.isdigit() for character in text):
        return text
    for pattern, say in _STEPS:
        text = pattern.sub(say, text)
    return text


def say_number(number: str) -> str:
    """A number as written ("1,234", "3.05", "007") in the Sino-Korean series."""
    whole, point, decimals = number.replace(",", "").partition(".")
    if len(whole) > _LONGEST or (len(whole) > 1 and whole.startswith("0")):
        said = digit_by_digit(whole)
    else:
        said = sino_grouped(int(whole))
    return f"{said} 점 {' '.join(SINO_DIGITS[int(d)] for d in decimals)}" if point else said


def _spaced(match: re.Match[str], said: str) -> str:
    """`said` with a space before it after a Hangul syllable (오전7시), except after the prefix 제 (제3)."""
    before = match.string[: match.start()]
    glued = re.search(r"[가-힣]$", before) and not re.search(r"(?<![가-힣])제$", before)
    return f" {said}" if glued else said


def _say_month(month: int) -> str:
    return _MONTHS.get(month, f"{sino(month)}월")


def _say_date(match: re.Match[str]) -> str:
    year, month, day = (int(match[name]) for name in ("year", "month", "day"))
    return _spaced(match, f"{sino(year)} 년 {_say_month(month)} {sino(day)} 일")


def _say_phone(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    return _spaced(match, " ".join(digit_by_digit(group) for group in groups))


def _say_hour(hour: int) -> str:
    return native(hour) if 1 <= hour <= NATIVE_UP_TO["시"] else sino(hour)


def _say_time(match: re.Match[str]) -> str:
    said = f"{_say_hour(int(match['hour']))} 시"
    if int(match["minute"]) or match["second"]:
        said += f" {sino(int(match['minute']))} 분"
    if match["second"]:
        said += f" {sino(int(match['second']))} 초"
    return _spaced(match, said)


def _say_score(match: re.Match[str]) -> str:
    return _spaced(match, f"{say_number(match['left'])} 대 {say_number(match['right'])}")


def _say_fraction(match: re.Match[str]) -> str:
    return _spaced(match, f"{say_number(match['bottom'])}분의 {say_number(match['top'])}")


def _say_memorial(match: re.Match[str]) -> str:
    """Days that are known by their date: 3·1 is 삼일, 12·12 is 십이십이, 6·25 is 육이오."""
    month, day = match["month"], match["day"]
    if len(month) == 2:
        return _spaced(match, sino(int(month)) + sino(int(day)))
    return _spaced(match, digit_by_digit(month) + ("십" if day == "10" else digit_by_digit(day)))


def _say_version(match: re.Match[str]) -> str:
    return _spaced(match, " 점 ".join(say_number(part) for part in match[0].split(".")))


def _say_money(match: re.Match[str]) -> str:
    said = _say_large(match["number"], match["large"]) if match["large"] else say_number(match["number"])
    return _spaced(match, f"{said} {BEFORE[match['sign']]}")


def _say_speed(match: re.Match[str]) -> str:
    before, unit = SPEEDS[match["unit"]]
    said = f"{say_number(match['number'])} {unit}"
    is_named = match.string[: match.start()].rstrip().endswith(before)
    return _spaced(match, said if is_named else f"{before} {said}")


def _say_large(number: str, large: str) -> str:
    """3만 is 삼만; 1 is not said before 십, 백, 천 and 만 (1만 is 만), but is before 억 and 조."""
    if number == "1" and large[0] in "십백천만":
        return large
    return say_number(number) + (" " if "." in number else "") + large


def _say_quantity(match: re.Match[str]) -> str:
    number, counter, after = match["number"], match["counter"], match.string[match.end() :]
    if counter:
        said = f"{_say_counted(number, counter)} {counter}"
    elif match["large"]:
        said = _say_large(number, match["large"]) + _gap(after)
    elif match["latin"]:
        said = f"{say_number(number)} {SYMBOLS[match['latin'].strip()]}"
    elif match["month"] and number.isdigit() and 1 <= int(number) <= 12:
        said = _say_month(int(number))
    elif match["month"]:
        said = f"{say_number(number)} 월"
    else:
        said = say_number(number) + _gap(after)
    if match["sign"]:
        is_temperature = (match["latin"] or "").strip().startswith("°") or re.match(r"\s?도", after)
        said = f"{'영하' if is_temperature else '마이너스'} {said}"
    return _spaced(match, said)


def _say_counted_range(match: re.Match[str]) -> str:
    """3~5개 is 세 개에서 다섯 개: the counter is said twice, so that both numbers are native."""
    counter = match["counter"]
    if counter not in NATIVE_UP_TO:
        return f"{match['least']}에서 {match['most']}{counter}"
    return f"{match['least']}{counter}에서 {match['most']}{counter}"


def _say_counted(number: str, counter: str) -> str:
    if not number.isdigit() or int(number) == 0 or int(number) > NATIVE_UP_TO.get(counter, 0):
        return say_number(number)
    if counter == "대" and int(number) % 10 == 0:  # ages: 20대 is 이십 대
        return say_number(number)
    if counter == "번째" and number == "1":
        return "첫"
    return native(int(number))


def _gap(after: str) -> str:
    """A space between a number and the Hangul unit behind it (25도 → 이십오 도), none before a particle."""
    return " " if re.match("[가-힣]", after) and not _PARTICLE.match(after) else ""


_STEPS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str], ...] = (
    (_DATE, _say_date),
    (_PHONE, _say_phone),
    (_TIME, _say_time),
    (_SCORE, _say_score),
    (_FRACTION, _say_fraction),
    (_MEMORIAL, _say_memorial),
    (_VERSION, _say_version),
    (_MONEY, _say_money),
    (_SPEED, _say_speed),
    (_LIST, " "),
    (_COUNTED_RANGE, _say_counted_range),
    (_RANGE, "에서 "),
    (_PLUS, " 플러스 "),
    (_QUANTITY, _say_quantity),
)
