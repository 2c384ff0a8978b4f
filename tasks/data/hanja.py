"""Hanja to Hangul (steps `hanja-1` and `hanja-2`): a reading per character, the initial-sound rule. Pure.

The readings are those of KS X 1001, whose 4,888 Hanja stand in the order of their Korean reading; the table
is `tasks.data.hanja_readings`, made from the Unihan database. A character that the standard lists under
several readings has compatibility ideographs for the others (U+F900 to U+FA0B); they keep their own reading.
Words that are read otherwise than letter by letter stand in `_WORDS`.

Not known: Hanja outside KS X 1001, which stay as they are, and prefixes before a word that has the rule of
its own (新女性 is read 신녀성, not 신여성). No library: `hanja` of PyPI pins another PyYAML, wants pytest,
and its table names no licence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache, partial

from tasks.data.hanja_readings import READINGS, characters

# Not the reading under which the standard lists the character itself, nor the one found by the rule below.
_USUAL = dict(zip("金樂宅不泌異隸郎率諾寧怒", "금락택불비이례랑률낙녕노", strict=True))
_USUAL_BEFORE = _USUAL | dict(zip("諾寧怒", "락령로", strict=True))  # of hanja-1: 安寧 was read 안령


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


_WORDS = _pairs(
    "六月:유월 十月:시월 五六月:오뉴월 音樂:음악 樂器:악기 樂譜:악보 樂團:악단 國樂:국악 聲樂:성악 "
    "器樂:기악 金氏:김씨 金海:김해 金浦:김포 金泉:김천 金堤:김제 自轉車:자전거 人力車:인력거 "
    "停車場:정거장 更新:갱신 更生:갱생 更年期:갱년기 復活:부활 復興:부흥 相殺:상쇄 殺到:쇄도 降伏:항복 "
    "投降:투항 省略:생략 憎惡:증오 嫌惡:혐오 容易:용이 難易度:난이도 簡易:간이 平易:평이 遊說:유세 "
    "要塞:요새 小便:소변 大便:대변 便所:변소 便秘:변비 標識:표지 洞察:통찰 句讀:구두 綠茶:녹차 紅茶:홍차 "
    "雪糖:설탕 砂糖:사탕 許諾:허락 受諾:수락 議論:의논 困難:곤란 論難:논란 龜裂:균열 一切:일체 木瓜:모과 "
    "喜怒:희로 賞狀:상장 招待狀:초대장 年賀狀:연하장 什器:집기 拾得:습득 貰房:셋방 數字:숫자 回數:횟수 "
    "車間:찻간 庫間:곳간 退間:툇간 "
)
_BY_LENGTH = sorted(_WORDS, key=len, reverse=True)

_HANJA = re.compile("[\u4e00-\u9fff\uf900-\ufaff]+")
# A gloss repeats what stands before it: 대한민국(大韓民國).
_GLOSS = re.compile("(?P<said>[가-힣]+)\\s?[(（\\[［](?P<gloss>[\u4e00-\u9fff\uf900-\ufaff]+)[)）\\]］]")

_LIEUL, _NIEUN, _IEUNG, _NONE = 5, 2, 11, 0  # indices of initials, and of the empty final
_SOFT = frozenset({2, 3, 6, 7, 12, 17, 20})  # ㅑ ㅒ ㅕ ㅖ ㅛ ㅠ ㅣ
_FINAL_NIEUN = 4


def read_hanja(text: str, version: int = 2) -> str:
    """The text with its Hanja read in Hangul: "大韓民國 女性" → "대한민국 여성".

    At the start of a word 녀, 뇨, 뉴, 니 and ㄹ follow the initial-sound rule (두음법칙); after a digit or a
    Hangul syllable they do not ("2000年" → "2000년"), but 률 and 렬 become 율 and 열 after a vowel or ㄴ
    (比率 비율, 確率 확률), and 不 is 부 before ㄷ and ㅈ. A gloss in brackets that repeats the word before it
    goes. Unknown characters stay.

    Args:
        version: of the step; 1 reads 諾, 寧 and 怒 as 락, 령 and 로 inside a word (安寧 안령).
    """
    if _HANJA.search(text) is None:
        return text
    table = _table(version)
    text = _GLOSS.sub(partial(_without_repetition, table), text)
    return _HANJA.sub(partial(_read_run, table), text)


def initial_sound(syllable: str) -> str:
    """The syllable as at the start of a word: 녀 → 여, 료 → 요, 로 → 노; others as they are."""
    initial, medial, final = _parts(syllable)
    if initial == _LIEUL:
        initial = _IEUNG if medial in _SOFT else _NIEUN
    elif initial == _NIEUN and medial in _SOFT:
        initial = _IEUNG
    return _join(initial, medial, final)


def _without_repetition(table: Mapping[str, str], match: re.Match[str]) -> str:
    said, read = match["said"], _read_word(table, match["gloss"], at_start=True)
    return said if said.endswith(read) else match[0]


def _read_run(table: Mapping[str, str], match: re.Match[str]) -> str:
    before = match.string[match.start() - 1] if match.start() else " "
    return _read_word(table, match[0], not (before.isdigit() or "가" <= before <= "힣"), before)


def _read_word(table: Mapping[str, str], run: str, at_start: bool, before: str = " ") -> str:
    """Reads a run of Hanja from left to right; `before` is the character in front of it."""
    read: list[str] = []
    at = 0
    while at < len(run):
        word = next((w for w in _BY_LENGTH if run.startswith(w, at)), None)
        if word is not None:
            read.append(_WORDS[word])
            at += len(word)
            continue
        syllable = _syllable(table, run[at], run[at + 1 : at + 2])
        last = "".join(read)[-1:] or before
        # A compatibility ideograph was chosen for its reading, which the rule must not change.
        starts = at == 0 and at_start and run[at] < "\uf900" and run[at] in table
        if starts or (syllable in ("률", "렬") and _parts(last)[2] in (_NONE, _FINAL_NIEUN)):
            syllable = initial_sound(syllable)
        read.append(syllable)
        at += 1
    return "".join(read)


def _syllable(table: Mapping[str, str], character: str, following: str) -> str:
    if character == "不" and following:
        next_initial = _parts(table.get(following, "가"))[0]
        return "부" if next_initial in (3, 12) else "불"  # ㄷ, ㅈ
    return table.get(character, character)


@cache
def _table(version: int) -> dict[str, str]:
    """Character to reading; for one with several readings the form before the initial-sound rule."""
    readings = [reading for reading, count in re.findall(r"(\D)(\d+)", READINGS) for _ in range(int(count))]
    listed = list(zip(characters(), readings, strict=True))
    table = dict(listed)
    for character, reading in listed:  # 녀 and 여 are both listed for 女: the word-internal one is the base
        unified = unicodedata.normalize("NFC", character)
        known = table.setdefault(unified, reading)
        same = initial_sound(reading) == initial_sound(known)
        if same and _parts(reading)[0] != _IEUNG and _parts(known)[0] != _LIEUL:
            table[unified] = reading
    return table | (_USUAL_BEFORE if version == 1 else _USUAL)


def _parts(syllable: str) -> tuple[int, int, int]:
    """Indices of the initial, medial and final letter of a Hangul syllable; others give (-1, -1, -1)."""
    if not "가" <= syllable <= "힣":
        return -1, -1, -1
    initial, rest = divmod(ord(syllable) - ord("가"), 588)
    return initial, *divmod(rest, 28)


def _join(initial: int, medial: int, final: int) -> str:
    return chr(ord("가") + initial * 588 + medial * 28 + final)
