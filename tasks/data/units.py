"""What stands behind a number in Korean text, and how the number and it are said. Tables; no command.

`NATIVE_UP_TO` lists the counters that take native numbers (한 개, 두 명), each with the largest number said
so; above it, and before every other unit, numbers are Sino-Korean. `SYMBOLS` are units written in Latin
letters or signs, with their spoken form.
"""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


NATIVE_UP_TO: dict[str, int] = {
    "시": 12,  # from 13 on the clock is read in Sino-Korean: 십오 시
    "시간": 20,
    "배": 10,
    **dict.fromkeys(
        _words(
            "개 명 사람 살 마리 장 권 병 잔 대 달 가지 켤레 벌 채 그루 송이 포기 자루 통 판 갑 곳 군데 쌍 "
            "상자 봉지 캔 팩 묶음 그릇 컵 숟가락 스푼 조각 줄 끼 방울 모금 바퀴 걸음 차례 글자 "
            "편 곡 골 팀 번째"
        ),
        99,
    ),
}
"""Counter to the largest number said in the native series before it."""

SINO_UNITS = _words("개월 개국 개소 개년 개사 개교 달러 배럴 채널 시즌 시리즈 권역 대륙 대대 통신")
"""Words that begin like a native counter and are none: 3개월 is 삼 개월."""

SYMBOLS: dict[str, str] = {
    "%p": "퍼센트포인트",
    "%": "퍼센트",
    "°C": "도",
    "°F": "도",
    "°": "도",
    "kg": "킬로그램",
    "g": "그램",
    "mg": "밀리그램",
    "t": "톤",
    "km": "킬로미터",
    "m": "미터",
    "cm": "센티미터",
    "mm": "밀리미터",
    "nm": "나노미터",
    "m2": "제곱미터",
    "m²": "제곱미터",
    "km2": "제곱킬로미터",
    "km²": "제곱킬로미터",
    "m3": "세제곱미터",
    "m³": "세제곱미터",
    "ha": "헥타르",
    "l": "리터",
    "L": "리터",
    "kl": "킬로리터",
    "ml": "밀리리터",
    "mL": "밀리리터",
    "cc": "씨씨",
    "cal": "칼로리",
    "kcal": "킬로칼로리",
    "W": "와트",
    "kW": "킬로와트",
    "MW": "메가와트",
    "kWh": "킬로와트시",
    "V": "볼트",
    "A": "암페어",
    "mAh": "밀리암페어시",
    "Hz": "헤르츠",
    "kHz": "킬로헤르츠",
    "MHz": "메가헤르츠",
    "GHz": "기가헤르츠",
    "dB": "데시벨",
    "KB": "킬로바이트",
    "MB": "메가바이트",
    "GB": "기가바이트",
    "TB": "테라바이트",
    "Mbps": "메가비피에스",
    "Gbps": "기가비피에스",
    "₩": "원",
    "$": "달러",
    "€": "유로",
    "£": "파운드",
    "¥": "엔",
}
"""Units behind a number, as written to as said."""

BEFORE = {"₩": "원", "￦": "원", "$": "달러", "US$": "달러", "€": "유로", "£": "파운드", "¥": "엔"}
"""Currency signs that stand before the number and are said after it."""

SPEEDS = {"km/h": ("시속", "킬로미터"), "m/s": ("초속", "미터")}
"""Units of speed: a word before the number and one after it."""

FOLDED = str.maketrans(
    {
        **{chr(0xFF01 + offset): chr(0x21 + offset) for offset in range(94)},  # full width to ASCII
        "℃": "°C",
        "℉": "°F",
        "㎏": "kg",
        "㎎": "mg",
        "㎞": "km",
        "㎝": "cm",
        "㎜": "mm",
        "㎡": "m²",
        "㎢": "km²",
        "㎥": "m³",
        "㎖": "ml",
        "㎘": "kl",
        "ℓ": "l",
        "㏄": "cc",
        "㎉": "kcal",
        "㎐": "Hz",
        "㎑": "kHz",
        "㎒": "MHz",
        "㎓": "GHz",
        "㎾": "kW",
        "㏈": "dB",
        "〜": "~",
        "∼": "~",
        "–": "-",
        "−": "-",
        "‐": "-",
    }
)
"""Signs that are one character and mean several: what NFKC would do, for these alone."""
