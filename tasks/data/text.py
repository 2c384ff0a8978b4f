"""Text normalisers: one form for scoring and training, one for the language model. Pure, no command.

`normalise` (`ko-1`) gives what the recogniser is trained on and scored against: NFC, no punctuation,
single spaces. It neither translates nor deletes foreign letters and digits: `foreign_characters` names
them, so that the validation stage can reject the row instead of scoring a mangled one.

`inverse_normalise` (`itn-ko-1`) turns spoken numbers into digits, but only in front of a unit it knows,
because 일, 이, 사, 오, 구 and 한 are also everyday syllables. It tolerates the spacing errors of a
recogniser ("이십 구도", "일곱시반").

A change of what either function returns needs a new identifier: reports quote it beside every rate.
"""

from __future__ import annotations

import re
import unicodedata

from tasks.data.numbers import NATIVE_PATTERN, SINO_PATTERN, parse_native, parse_sino

NORMALISER_ID = "ko-1"
ITN_ID = "itn-ko-1"

_APOSTROPHES = re.compile("['’‘`´]")
_SPACES = re.compile(r"\s+")
_OTHER_THAN_COMPATIBILITY = re.compile("[^\uf900-\ufaff]+")


def composed(text: str) -> str:
    """NFC, but for compatibility Hanja, which NFC would rob of their reading."""
    return _OTHER_THAN_COMPATIBILITY.sub(lambda part: unicodedata.normalize("NFC", part[0]), text)


def normalise(text: str) -> str:
    """NFC; punctuation and symbols become spaces, apostrophes and control characters go; spaces single.

    Never NFKC or NFKD: they would rewrite or split what the speaker's transcript holds.
    """
    text = _APOSTROPHES.sub("", unicodedata.normalize("NFC", text))
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category[0] in "LNM":
            kept.append(character)
        elif category not in ("Cf", "Cc") or character.isspace():
            kept.append(" ")
    return _SPACES.sub(" ", "".join(kept)).strip()


def foreign_characters(text: str) -> list[str]:
    """Characters of the normalised text that are neither Hangul syllables nor spaces, sorted, each once."""
    return sorted({c for c in normalise(text) if c != " " and not "가" <= c <= "힣"})


def to_jamo(text: str) -> str:
    """Syllables taken apart into conjoining jamo (NFD): initial, medial and final letters."""
    return unicodedata.normalize("NFD", text)


def from_jamo(text: str) -> str:
    """Conjoining jamo put together into syllables (NFC). Jamo that form no syllable stay as they are."""
    return unicodedata.normalize("NFC", text)


def unspaced(text: str) -> str:
    """The text without any white space: Korean spacing is a convention, so the primary CER ignores it."""
    return _SPACES.sub("", text)


# ---- spoken numbers to digits ----


def _words(text: str) -> list[str]:
    return text.split()


def _loose(text: str) -> str:
    """Matches any of the words, a space allowed between any two syllables: a recogniser puts some there."""
    return "|".join(r"\s?".join(word) for word in text.split())


# A number starts a word, or follows one of these when the recogniser has dropped the space between them.
_GLUED_LEFT = _words(
    "오전 오후 아침 저녁 새벽 요일 내일 오늘 모레 매일 평일 주말 을 를 좀 온도 밝기 소리 볼륨 음량 세기 "
    "바람 채널 타이머 알람 에어컨 보일러 난방 오븐 조명 전등 텔레비전 선풍기 목록에 구니에 영하 영상"
)
_START = "(?:(?<![가-힣0-9])|" + "|".join(f"(?<={word})" for word in _GLUED_LEFT) + ")"

# What may follow a unit without a space: particles, and words of commands. 에게 is kept out: "이분에게".
_AFTER_UNIT = [
    r"으\s?로",
    "에(?!게)",
    *_words("로 을 를 만 까지 부터 뒤 후 동안 짜리 짜 씩 정도 쯤 좀 있다가"),
    *_words("타이머 알람 맞춰 예약 설정 올려 내려 높여 낮춰 줄여 키워 틀어 돌려 바꿔"),
    *_words("추가 담아 넣어 주문 시켜 적어"),
]
_END = rf"(?=$|\s|{'|'.join(_AFTER_UNIT)})"

_SINO_UNITS = _loose("퍼센트 프로 시간 인분 단계 도 분 초 번 단 층")
_COUNTERS = _loose("시간 개월 개 병 봉지 상자 캔 통 판 묶음 마리 잔 장 명 권 그릇 팩 대 살 달")

_CLOCK = re.compile(
    rf"{_START}(?P<hour>{NATIVE_PATTERN})\s?시(?!\s?간)"
    rf"(?:\s?(?P<half>반){_END}|\s?(?P<minute>{SINO_PATTERN})\s?분{_END}|{_END})"
)
_SINO_AMOUNT = re.compile(
    rf"{_START}(?P<number>{SINO_PATTERN})(?:\s?점\s?(?P<tenth>[영일이삼사오육칠팔구]))?"
    rf"(?P<gap>\s?)(?P<unit>{_SINO_UNITS}){_END}"
)
_SINO_COUNT = re.compile(rf"{_START}(?P<number>{SINO_PATTERN})\s?(?P<unit>{_COUNTERS}){_END}")
_NATIVE_COUNT = re.compile(rf"{_START}(?P<number>{NATIVE_PATTERN})\s?(?P<unit>{_COUNTERS}){_END}")


def inverse_normalise(text: str) -> str:
    """Spoken numbers before a known unit as digits: "일곱 시 반에" → "7시 30분에", "이십 구도로" → "29도로".

    The digits join their unit and a space is restored before them; everything else is left as it is.
    Applied to its own result it changes nothing. Times use native hours (1 to 12) with Sino-Korean
    minutes; degrees, percent, minutes, seconds, channels, steps and floors are Sino-Korean; hours of
    duration and counted things either. A single digit glued to 도, and "이 도로", stay: they are words.
    """
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()
    text = _CLOCK.sub(_write_clock, text)
    text = _SINO_AMOUNT.sub(_write_amount, text)
    text = _NATIVE_COUNT.sub(_write_native_count, text)
    text = _SINO_COUNT.sub(_write_sino_count, text)
    return _SPACES.sub(" ", text).strip()


def _joined(match: re.Match[str], written: str) -> str:
    """`written`, with a space before it when the recogniser glued the number to the word in front of it."""
    glued = match.start() > 0 and not match.string[match.start() - 1].isspace()
    return f" {written}" if glued else written


def _write_clock(match: re.Match[str]) -> str:
    hour = parse_native(match["hour"])
    if hour > 12:
        return match[0]
    if match["half"]:
        return _joined(match, f"{hour}시 30분")
    if match["minute"]:
        return _joined(match, f"{hour}시 {parse_sino(match['minute'])}분")
    return _joined(match, f"{hour}시")


def _write_amount(match: re.Match[str]) -> str:
    if match["tenth"] is None and _is_ordinary_word(match):
        return match[0]
    number = str(parse_sino(match["number"]))
    if match["tenth"]:
        number += f".{parse_sino(match['tenth'])}"
    return _joined(match, f"{number}{unspaced(match['unit'])}")


def _is_ordinary_word(match: re.Match[str]) -> bool:
    """Whether a digit syllable and its unit are likelier a word: 구도, 이번 주, 일단, 구분, "이 도로"."""
    number, unit = match["number"].strip(), unspaced(match["unit"])
    if len(number) > 1 or number == "십" or number == "백":
        return False
    after = match.string[match.end() :]
    if match["gap"]:
        return number + unit == "이도" and after.startswith("로")
    if unit == "도":
        return True
    if unit == "단" or number + unit == "이번":
        return not after.startswith("으로")
    if number + unit == "구분":
        return re.match(r"\s?(?:타이머|뒤|후|동안|짜리|알람|에)", after) is None
    return False


def _write_sino_count(match: re.Match[str]) -> str:
    number = match["number"].strip()
    # "사 장", "이 대", "오 개" are rarely counts; from ten on ("이십 개") both series are heard.
    if len(number) == 1 and number not in "십백":
        return match[0]
    return _joined(match, f"{parse_sino(number)}{unspaced(match['unit'])}")


def _write_native_count(match: re.Match[str]) -> str:
    return _joined(match, f"{parse_native(match['number'])}{unspaced(match['unit'])}")
