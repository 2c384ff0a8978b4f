"""Korean smart-home commands with the tool call each one means. Pure, deterministic given the seed.

Fifteen intents, one function each, written the way people in Korea talk to their home: native hours and
counts, Sino-Korean minutes, degrees and percent, particles that may be dropped, eleven request endings,
fillers. Arguments copy what is said and compute nothing. A sentence means one tool call only.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tasks.data import vocabulary as words
from tasks.data.numbers import native, sino
from tasks.data.phrases import (
    adverb,
    clock_time,
    duration,
    maybe,
    object_phrase,
    percent,
    place_phrase,
    request,
    sentence,
    with_direction,
    with_subject,
    with_topic,
)
from tasks.data.vocabulary import TOOLS

__all__ = ["INTENTS", "TOOLS", "Command", "canonical_json", "commands", "draw"]

_PATIENCE = 20_000  # draws without a new sentence before the grammar counts as exhausted


@dataclass(frozen=True)
class Command:
    """One sentence: `text` as spoken, the `tool_call` ({"name", "arguments"}) it means, and its `intent`."""

    text: str
    tool_call: dict[str, Any]
    intent: str


def canonical_json(tool_call: dict[str, Any]) -> str:
    """The tool call as one string that equals another's exactly when the calls are equal."""
    return json.dumps(tool_call, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


_Said = tuple[str, dict[str, Any]]


def _set_light(rng: random.Random) -> _Said:
    room, power = rng.choice(words.ROOMS), rng.choice(("on", "off"))
    light = object_phrase(rng, rng.choice(words.LIGHTS))
    verb = request(rng, "켜" if power == "on" else "꺼")
    return sentence(rng, place_phrase(rng, room), light, adverb(rng), verb), {"room": room, "power": power}


def _set_brightness(rng: random.Random) -> _Said:
    room, (value, said) = rng.choice(words.ROOMS), percent(rng)
    light = rng.choice(words.LIGHTS)
    thing = object_phrase(rng, f"{light} 밝기" if rng.random() < 0.6 else light)
    verb = request(rng, rng.choice(("맞춰", "조절해", "바꿔", "설정해", "낮춰", "높여")))
    text = sentence(rng, place_phrase(rng, room), thing, with_direction(said), verb)
    return text, {"room": room, "percent": value}


def _set_temperature(rng: random.Random) -> _Said:
    device = rng.choices(words.HEATERS, weights=(4, 3, 3, 2))[0]
    if device == "오븐":
        degrees = rng.randrange(100, 251, 10)
        verbs: tuple[str, ...] = ("맞춰", "예열해", "설정해", "올려")
    else:
        degrees = rng.randint(16, 32)
        verbs = ("맞춰", "틀어", "설정해", "올려", "내려", "바꿔")
    room = rng.choice(words.ROOMS) if device != "오븐" and rng.random() < 0.5 else None
    thing = object_phrase(rng, device + maybe(rng, 0.5, " 온도"))
    verb = request(rng, rng.choice(verbs))
    text = sentence(rng, room or "", thing, with_direction(f"{sino(degrees)} 도"), verb)
    return text, {**({"room": room} if room else {}), "device": device, "degrees": degrees}


def _set_alarm(rng: random.Random) -> _Said:
    day = rng.choice(words.ALARM_DAYS) if rng.random() < 0.65 else None
    meridiem = rng.choice(tuple(words.HOURS_BY_MERIDIEM)) if rng.random() < 0.8 else None
    hour, minute, said = clock_time(rng, words.HOURS_BY_MERIDIEM[meridiem] if meridiem else range(1, 13))
    when = " ".join(part for part in (day, meridiem, said) if part)
    shape = rng.randrange(4)
    if shape == 0:
        text = sentence(rng, when + "에", request(rng, "깨워"))
    elif shape == 1:
        verb = request(rng, rng.choice(("맞춰", "설정해")))
        text = sentence(rng, object_phrase(rng, "알람"), with_direction(when), verb)
    else:
        alarm = object_phrase(rng, "알람") if rng.random() < 0.8 else "알람 하나"
        verb = request(rng, rng.choice(("맞춰", "설정해", "예약해", "울려")))
        text = sentence(rng, when + "에", alarm, verb)
    return text, {
        **({"day": day} if day else {}),
        **({"meridiem": meridiem} if meridiem else {}),
        "hour": hour,
        "minute": minute,
    }


def _set_timer(rng: random.Random) -> _Said:
    amount, unit, said = duration(rng)
    shape = rng.randrange(4)
    if shape == 0:
        amount_said = rng.choice((said, with_direction(said)))
        parts = [object_phrase(rng, "타이머"), amount_said, rng.choice(("맞춰", "설정해"))]
    elif shape == 1:
        verb = rng.choice(("맞춰", "켜", "시작해", "설정해"))
        parts = [said + maybe(rng, 0.3, "짜리"), object_phrase(rng, "타이머"), verb]
    elif shape == 2:
        later = f"{said} {rng.choice(('뒤에', '후에', '있다가'))}"
        parts = [later, maybe(rng, 0.4, "나한테"), rng.choice(("알려", "말해"))]
    else:
        parts = [f"{said} 동안", object_phrase(rng, "타이머"), rng.choice(("돌려", "켜", "맞춰"))]
    return sentence(rng, *parts[:-1], request(rng, parts[-1])), {"amount": amount, "unit": unit}


def _play_music(rng: random.Random) -> _Said:
    genre = rng.choice(words.GENRES)
    room = rng.choice(words.ROOMS) if rng.random() < 0.5 else None
    kind = rng.choice((" 음악", " 노래", "")) if genre in words.BROAD_GENRES else ""
    thing = object_phrase(rng, genre + kind)
    where = room + rng.choice(("에서", "에", " 스피커로")) if room else ""
    mood = maybe(rng, 0.2, rng.choice(("조용한", "신나는")))
    text = sentence(rng, where, mood, thing, request(rng, rng.choice(("틀어", "들려", "재생해"))))
    return text, {**({"room": room} if room else {}), "genre": genre}


def _set_curtain(rng: random.Random) -> _Said:
    room, device, action = rng.choice(words.ROOMS), rng.choice(words.CURTAINS), rng.choice(("open", "close"))
    verbs = {
        ("커튼", "open"): ("열어", "걷어"),
        ("커튼", "close"): ("닫아", "쳐"),
        ("블라인드", "open"): ("열어", "올려"),
        ("블라인드", "close"): ("닫아", "내려"),
    }[device, action]
    verb = request(rng, rng.choice(verbs))
    text = sentence(rng, place_phrase(rng, room), object_phrase(rng, device), adverb(rng), verb)
    return text, {"room": room, "device": device, "action": action}


def _set_volume(rng: random.Random) -> _Said:
    device, (value, said) = rng.choice(words.SOUND_DEVICES), percent(rng)
    thing = object_phrase(rng, f"{device} {rng.choice(('소리', '볼륨', '음량'))}")
    verb = request(rng, rng.choice(("맞춰", "줄여", "키워", "올려", "내려", "설정해")))
    return sentence(rng, thing, with_direction(said), verb), {"device": device, "percent": value}


def _adjust_volume(rng: random.Random) -> _Said:
    device, direction = rng.choice(words.SOUND_DEVICES), rng.choice(("up", "down"))
    thing = object_phrase(rng, f"{device} {rng.choice(('소리', '볼륨', '음량'))}")
    verbs = ("키워", "높여", "올려") if direction == "up" else ("줄여", "낮춰", "내려")
    how_much = maybe(rng, 0.5, rng.choice(("조금", "조금만", "더", "조금 더", "많이")))
    text = sentence(rng, thing, how_much, request(rng, rng.choice(verbs)))
    return text, {"device": device, "direction": direction}


def _set_channel(rng: random.Random) -> _Said:
    channel = rng.randint(2, 60) if rng.random() < 0.7 else rng.randint(61, 150)
    thing = object_phrase(rng, rng.choice(("텔레비전", "채널", "텔레비전 채널")))
    verb = request(rng, rng.choice(("돌려", "틀어", "바꿔", "맞춰")))
    return sentence(rng, thing, with_direction(f"{sino(channel)} 번"), verb), {"channel": channel}


def _set_fan_speed(rng: random.Random) -> _Said:
    device, level = rng.choice(words.FANS), rng.randint(1, 6)
    thing = object_phrase(rng, device + maybe(rng, 0.4, " 바람" if device == "선풍기" else " 세기"))
    step = with_direction(f"{sino(level)} {rng.choice(('단', '단계'))}")
    verb = request(rng, rng.choice(("맞춰", "올려", "내려", "바꿔", "틀어")))
    return sentence(rng, thing, step, verb), {"device": device, "level": level}


def _control_appliance(rng: random.Random) -> _Said:
    device, power = rng.choice(words.APPLIANCES), rng.choice(("on", "off"))
    room = rng.choice(words.ROOMS) if rng.random() < 0.3 else None
    verbs: tuple[str, ...]
    if power == "off":
        verbs = ("꺼", "멈춰") if device in words.WASHERS else ("꺼",)
    elif device in words.WASHERS:
        verbs = ("켜", "돌려", "작동시켜")
    else:
        verbs = ("켜", "틀어") if device not in ("컴퓨터", "전기장판", "커피머신") else ("켜",)
    verb = rng.choice(verbs)
    thing = object_phrase(rng, device + (maybe(rng, 0.2, " 전원") if verb in ("켜", "꺼") else ""))
    text = sentence(rng, place_phrase(rng, room) if room else "", thing, adverb(rng), request(rng, verb))
    return text, {**({"room": room} if room else {}), "device": device, "power": power}


def _lock_door(rng: random.Random) -> _Said:
    door, action = rng.choice(words.DOORS), rng.choice(("lock", "unlock"))
    verbs = ("잠가", "닫고 잠가") if action == "lock" else ("열어", "잠금 풀어")
    text = sentence(rng, object_phrase(rng, door), adverb(rng), request(rng, rng.choice(verbs)))
    return text, {"door": door, "action": action}


def _query_weather(rng: random.Random) -> _Said:
    day, city = rng.choice(words.WEATHER_DAYS), rng.choice(words.CITIES)
    topic = rng.choice(words.WEATHER_TOPICS)
    verb = request(rng, rng.choice(("알려", "말해", "확인해")))
    order = [day, city] if rng.random() < 0.7 else [city, day]
    shape = rng.randrange(3)
    if shape == 0:
        question = rng.choice(("어때", "어때요", "어떨까", "어떨까요", "어떤가요", "궁금해", "궁금해요"))
        particle = with_subject if question.startswith("궁금") else with_topic
        text = sentence(rng, *order, particle(topic) if rng.random() < 0.4 else topic, question)
    elif shape == 1:
        text = sentence(rng, *order, object_phrase(rng, topic), verb)
    else:
        subject = with_subject(topic) if rng.random() < 0.5 else topic
        text = sentence(rng, *order, subject, "어떤지", verb)
    return text, {"day": day, "city": city, "topic": topic}


def _add_shopping_item(rng: random.Random) -> _Said:
    item = rng.choice(words.ITEMS)
    counter = rng.choice(words.COUNTERS_BY_ITEM[item])
    count = rng.randint(1, 10) if rng.random() < 0.85 else rng.randint(11, 24)
    listed = rng.choice(("장보기 목록에", "장바구니에", "쇼핑 목록에", ""))
    verbs = ("추가해", "담아", "넣어") if listed else ("주문해", "사", "시켜")
    amount = object_phrase(rng, f"{native(count)} {counter}")
    return sentence(rng, listed, item, amount, request(rng, rng.choice(verbs))), {
        "item": item,
        "count": count,
        "counter": counter,
    }


# Intents with more values to learn are drawn more often.
_INTENTS: dict[str, tuple[Callable[[random.Random], _Said], int]] = {
    "set_light": (_set_light, 8),
    "set_brightness": (_set_brightness, 7),
    "set_temperature": (_set_temperature, 9),
    "set_alarm": (_set_alarm, 13),
    "set_timer": (_set_timer, 8),
    "play_music": (_play_music, 7),
    "set_curtain": (_set_curtain, 7),
    "set_volume": (_set_volume, 6),
    "adjust_volume": (_adjust_volume, 4),
    "set_channel": (_set_channel, 5),
    "set_fan_speed": (_set_fan_speed, 4),
    "control_appliance": (_control_appliance, 8),
    "lock_door": (_lock_door, 4),
    "query_weather": (_query_weather, 8),
    "add_shopping_item": (_add_shopping_item, 8),
}
INTENTS: tuple[str, ...] = tuple(_INTENTS)


def commands(seed: int) -> Iterator[Command]:
    """Distinct commands (no text twice), the same for the same seed on every machine, lazily.

    Ends when 20,000 draws in a row bring nothing new; that takes far more than 40,000 sentences.
    """
    rng = random.Random(seed)
    names, weights = list(_INTENTS), [weight for _, weight in _INTENTS.values()]
    seen: set[str] = set()
    stale = 0
    while stale < _PATIENCE:
        intent = rng.choices(names, weights=weights)[0]
        text, arguments = _INTENTS[intent][0](rng)
        if text in seen:
            stale += 1
            continue
        stale = 0
        seen.add(text)
        yield Command(text, {"name": intent, "arguments": arguments}, intent)


def draw(count: int, seed: int) -> list[Command]:
    """The first `count` distinct commands of `commands(seed)`."""
    return list(islice(commands(seed), count))
