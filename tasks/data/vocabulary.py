"""Closed vocabularies of the built-in smart-home grammar, and the tool schemas made of them. Data only.

Words are chosen so that a synthetic voice says them rightly (no nasalisation across syllables, no Latin
letters) and so that a value is one word without inner spaces, copied into the tool call as it stands.
"""

from __future__ import annotations

from typing import Any


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ROOMS = _words("거실 안방 부엌 화장실 서재 현관 베란다 아이방")
LIGHTS = ("불", "조명", "전등")
CURTAINS = ("커튼", "블라인드")
HEATERS = ("에어컨", "보일러", "난방", "오븐")
SOUND_DEVICES = ("텔레비전", "스피커", "라디오", "오디오")
FANS = ("선풍기", "공기청정기", "가습기")
WASHERS = ("세탁기", "건조기", "로봇청소기")
PLAIN_DEVICES = ("텔레비전", "라디오", "컴퓨터")
BLOWERS = ("에어컨", "선풍기", "보일러", "공기청정기", "가습기")
APPLIANCES = WASHERS + PLAIN_DEVICES + BLOWERS
DOORS = ("현관문", "대문", "차고문", "창고문")
GENRES = ("재즈", "클래식", "발라드", "동요", "가요")
BROAD_GENRES = ("재즈", "클래식", "발라드")  # said with 음악 or 노래 after them
WEEKDAYS = ("월요일", "화요일", "수요일", "목요일", "금요일", "토요일", "일요일")
NEAR_DAYS = ("오늘", "내일", "모레")
ALARM_DAYS = (*NEAR_DAYS, *WEEKDAYS, "매일", "평일", "주말")
WEATHER_DAYS = (*NEAR_DAYS, *WEEKDAYS, "주말")
CITIES = _words("서울 부산 대구 인천 광주 제주")
WEATHER_TOPICS = ("날씨", "기온", "습도", "미세먼지")
HOURS_BY_MERIDIEM: dict[str, tuple[int, ...]] = {
    "오전": tuple(range(1, 12)),
    "오후": tuple(range(1, 13)),
    "아침": (6, 7, 8, 9, 10),
    "저녁": (5, 6, 7, 8, 9, 10),
    "새벽": (1, 2, 3, 4, 5, 6),
    "밤": (8, 9, 10, 11, 12),
}
"""Which hours a Korean speaker says after each part of the day."""
TIMER_UNITS = ("시간", "분", "초")
COUNTERS_BY_ITEM: dict[str, tuple[str, ...]] = {
    "우유": ("병", "통"),
    "사과": ("개", "상자"),
    "달걀": ("개", "판"),
    "라면": ("개", "봉지", "상자"),
    "생수": ("병", "상자"),
    "휴지": ("개", "묶음"),
}
ITEMS = tuple(COUNTERS_BY_ITEM)
COUNTERS = tuple(sorted({counter for counters in COUNTERS_BY_ITEM.values() for counter in counters}))


def _enum(values: tuple[str, ...], description: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values), "description": description}


def _integer(low: int, high: int, description: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "description": description}


def _tool(
    name: str, description: str, properties: dict[str, Any], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": [key for key in properties if key not in optional],
                "additionalProperties": False,
            },
        },
    }


_ROOM = _enum(ROOMS, "room, as said")
_POWER = _enum(("on", "off"), "켜다 is on, 끄다 is off")

TOOLS: list[dict[str, Any]] = [
    _tool("set_light", "Switch the light of a room.", {"room": _ROOM, "power": _POWER}),
    _tool(
        "set_brightness",
        "Set the brightness of a room's light.",
        {"room": _ROOM, "percent": _integer(1, 100, "brightness in percent")},
    ),
    _tool(
        "set_temperature",
        "Set the target temperature of a heating or cooling device.",
        {
            "room": _ROOM,
            "device": _enum(HEATERS, "device, as said"),
            "degrees": _integer(10, 250, "target in degrees Celsius"),
        },
        optional=("room",),
    ),
    _tool(
        "set_alarm",
        "Set an alarm. The clock time is copied as said, not turned into 24 hours.",
        {
            "day": _enum(ALARM_DAYS, "day, as said"),
            "meridiem": _enum(tuple(HOURS_BY_MERIDIEM), "part of the day, as said"),
            "hour": _integer(1, 12, "hour on the clock, as said"),
            "minute": _integer(0, 59, "minute, 0 when none is said"),
        },
        optional=("day", "meridiem"),
    ),
    _tool(
        "set_timer",
        "Start a timer.",
        {"amount": _integer(1, 99, "length in the given unit"), "unit": _enum(TIMER_UNITS, "unit, as said")},
    ),
    _tool(
        "play_music",
        "Play music of a genre.",
        {"room": _ROOM, "genre": _enum(GENRES, "genre, as said")},
        optional=("room",),
    ),
    _tool(
        "set_curtain",
        "Open or close a curtain or a blind.",
        {
            "room": _ROOM,
            "device": _enum(CURTAINS, "as said"),
            "action": _enum(("open", "close"), "what to do"),
        },
    ),
    _tool(
        "set_volume",
        "Set the volume of a device.",
        {"device": _enum(SOUND_DEVICES, "device, as said"), "percent": _integer(0, 100, "volume in percent")},
    ),
    _tool(
        "adjust_volume",
        "Turn the volume of a device up or down by one step.",
        {
            "device": _enum(SOUND_DEVICES, "device, as said"),
            "direction": _enum(("up", "down"), "louder is up"),
        },
    ),
    _tool("set_channel", "Change the television channel.", {"channel": _integer(1, 999, "channel number")}),
    _tool(
        "set_fan_speed",
        "Set the speed step of a fan or an air device.",
        {"device": _enum(FANS, "device, as said"), "level": _integer(1, 9, "step")},
    ),
    _tool(
        "control_appliance",
        "Switch a household appliance on or off.",
        {"room": _ROOM, "device": _enum(APPLIANCES, "device, as said"), "power": _POWER},
        optional=("room",),
    ),
    _tool(
        "lock_door",
        "Lock or unlock a door.",
        {"door": _enum(DOORS, "door, as said"), "action": _enum(("lock", "unlock"), "what to do")},
    ),
    _tool(
        "query_weather",
        "Tell the weather of a city.",
        {
            "day": _enum(WEATHER_DAYS, "day, as said"),
            "city": _enum(CITIES, "city, as said"),
            "topic": _enum(WEATHER_TOPICS, "what is asked, as said"),
        },
    ),
    _tool(
        "add_shopping_item",
        "Put an item on the shopping list.",
        {
            "item": _enum(ITEMS, "item, as said"),
            "count": _integer(1, 99, "how many"),
            "counter": _enum(COUNTERS, "counting word, as said"),
        },
    ),
]
"""JSON Schemas of the tools, OpenAI function style. Every argument is copied from the sentence."""
