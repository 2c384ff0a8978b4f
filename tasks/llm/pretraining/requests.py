"""Everyday Korean requests with the call and the English that each means. Pure, deterministic given the seed.

The domains are the car, the office, the shop, the farm, the kitchen, the telephone: a world beside the
built-in example's smart home (`tasks.data.grammar`), from which nothing is taken: no tool, no value of a
tool, and no three words in a row (`overlap.py` keeps them apart).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.data.phrases import maybe, with_direction, with_object, with_subject, with_topic
from tasks.llm.pretraining import verbs, words

Say = Callable[[random.Random], str]


@dataclass(frozen=True)
class Request:
    """What is wanted: a tool call, how it can be said (`say`, anew each time), and in English."""

    tool_call: dict[str, Any]
    say: Say
    english: str


def requests(rng: random.Random) -> Iterator[Request]:
    """Requests without end, each kind about as often as it has something to learn."""
    kinds, weights = zip(*_KINDS, strict=True)
    while True:
        yield rng.choices(kinds, weights=weights)[0](rng)


def coined_word(rng: random.Random, least: int = 2, most: int = 4) -> str:
    """A word that nobody knows, of two to four syllables: what has to be copied and cannot be guessed."""
    return "".join(rng.choice(words.SYLLABLES) for _ in range(rng.randint(least, most)))


def _ask(rng: random.Random, verb: str) -> str:
    forms, weights = zip(*verbs.ENDINGS, strict=True)
    return str(rng.choices(forms, weights=weights)[0]).format(verb)


def _thing(rng: random.Random, word: str) -> str:
    if rng.random() < 0.05:
        return word + rng.choice(("만", "도", " 말이야"))
    said = with_object(word) if rng.random() < 0.45 else word
    return said + maybe(rng, 0.15, " 좀")


def _join(rng: random.Random, *parts: str) -> str:
    opening = maybe(rng, 0.2, rng.choice(verbs.OPENINGS))
    return " ".join(part for part in (opening, *parts) if part)


def _adverb(rng: random.Random) -> str:
    return maybe(rng, 0.25, rng.choice(verbs.ADVERBS))


def _place(rng: random.Random, place: str) -> str:
    return place + rng.choice(("", "에 있는", "에서", " 안", " 쪽", "의")) if place else ""


def _states(
    name: str,
    key: str,
    state: str,
    table: Mapping[str, tuple[str, ...]],
    english: dict[str, str],
    *,
    coined: float = 0.0,
) -> Callable[[Sequence[tuple[str, str]]], Callable[[random.Random], Request]]:
    """A kind of request that puts a thing into one of two states; a share of the things has a coined name."""

    def of(things: Sequence[tuple[str, str]]) -> Callable[[random.Random], Request]:
        def draw(rng: random.Random) -> Request:
            thing, meaning = rng.choice(things)
            if rng.random() < coined:
                thing = meaning = coined_word(rng)
            place, place_meaning = rng.choice(words.PLACES) if rng.random() < 0.3 else ("", "")
            value = rng.choice(tuple(table))

            def say(rng: random.Random) -> str:
                verb = _ask(rng, rng.choice(table[value]))
                parts = [_place(rng, place), _thing(rng, thing), _adverb(rng), verb]
                if place and rng.random() < 0.1:
                    parts[0], parts[1] = parts[1], _place(rng, place)
                return _join(rng, *parts)

            where = f" in the {place_meaning}" if place else ""
            arguments = {key: thing, state: value, **({"place": place} if place else {})}
            return Request(
                {"name": name, "arguments": arguments}, say, f"{english[value]} the {meaning}{where}."
            )

        return draw

    return of


_POWER = {"on": "Turn on", "off": "Turn off"}
_MOVE = {"open": "Open", "close": "Close"}
_switch = _states("switch_device", "device", "state", verbs.POWER, _POWER, coined=0.2)(words.SWITCHED)
_link = _states("toggle_feature", "feature", "state", verbs.LINK, _POWER)(words.WIRELESS)
_hinge = _states("move_cover", "cover", "motion", verbs.HINGE, _MOVE)(words.HINGED)
_drape = _states("move_cover", "cover", "motion", verbs.DRAPE, _MOVE)(words.DRAPED)
_rise = _states("move_cover", "cover", "motion", verbs.RISE, _MOVE)(words.RISING)
_fold = _states("fold_object", "object", "motion", verbs.FOLD, {"open": "Unfold", "close": "Fold"})(
    words.FOLDED
)
_secure = _states("secure", "target", "state", verbs.LOCK, {"lock": "Lock", "unlock": "Unlock"})(words.LOCKED)


def _change(rng: random.Random) -> Request:
    thing, meaning = rng.choice(words.QUANTITIES)
    owner, owner_meaning = rng.choice(words.SWITCHED) if rng.random() < 0.4 else ("", "")
    direction = rng.choice(("up", "down"))
    name = f"{owner} {thing}".strip()

    def say(rng: random.Random) -> str:
        amount = maybe(rng, 0.5, rng.choice(verbs.DEGREES))
        return _join(rng, _thing(rng, name), amount, _ask(rng, rng.choice(verbs.AMOUNT[direction])))

    what = f"{owner_meaning} {meaning}".strip()
    english = f"{'Raise' if direction == 'up' else 'Lower'} the {what}."
    return Request(
        {"name": "change_level", "arguments": {"what": name, "direction": direction}}, say, english
    )


def _measure(rng: random.Random) -> Request:
    target, unit, particle, most, meaning = rng.choice(words.MEASURES)
    value = rng.randint(1, most)

    def say(rng: random.Random) -> str:
        amount = f"{value}{unit}{particle}"
        parts = [_thing(rng, target), amount, _adverb(rng)]
        if rng.random() < 0.15:
            parts[0], parts[1] = parts[1], parts[0]
        return _join(rng, *parts, _ask(rng, rng.choice(verbs.SET)))

    arguments = {"target": target, "unit": unit, "value": value}
    return Request({"name": "set_value", "arguments": arguments}, say, f"Set the {meaning} to {value}.")


def _book(rng: random.Random) -> Request:
    event, meaning = rng.choice(words.EVENTS)
    date, date_meaning = rng.choice(words.DATES) if rng.random() < 0.5 else ("", "")
    hour, minute = rng.randint(1, 12), rng.choice((0, 0, 30, rng.randrange(5, 60, 5), rng.randint(1, 59)))

    def say(rng: random.Random) -> str:
        clock = f"{hour}시" + (f" {minute}분" if minute else "")
        when = " ".join(part for part in (date, clock) if part)
        tail = rng.choice(("", "", " 일정", " 약속", " 예약"))
        if rng.random() < 0.3:
            return _join(
                rng, _thing(rng, event + tail), with_direction(when), _ask(rng, rng.choice(verbs.BOOK))
            )
        return _join(rng, f"{when}에", _thing(rng, event + tail), _ask(rng, rng.choice(verbs.BOOK)))

    arguments = {"event": event, "hour": hour, "minute": minute, **({"date": date} if date else {})}
    day = f", {date_meaning}" if date else ""
    return Request(
        {"name": "book_event", "arguments": arguments},
        say,
        f"Book the {meaning} for {hour}:{minute:02d}{day}.",
    )


def _countdown(rng: random.Random) -> Request:
    dish, meaning = rng.choice(words.DISHES) if rng.random() < 0.7 else ((coined_word(rng),) * 2)
    unit = rng.choice(("분", "초", "시간"))
    length = rng.randint(1, 12 if unit == "시간" else 90)
    method = rng.choice(("삶아", "데워", "볶아", "구워", "식혀", "쪄", "불려"))

    def say(rng: random.Random) -> str:
        how_long = f"{length}{unit}" + rng.choice((" 동안", "만", " 정도", ""))
        parts = [_thing(rng, dish), how_long]
        rng.shuffle(parts)
        return _join(rng, *parts, _ask(rng, method))

    arguments = {"dish": dish, "length": length, "unit": unit}
    return Request(
        {"name": "cook", "arguments": arguments}, say, f"Cook the {meaning} for {length} {_UNITS[unit]}."
    )


_UNITS = {"분": "minutes", "초": "seconds", "시간": "hours"}


def _order(rng: random.Random) -> Request:
    dish, meaning = rng.choice(words.DISHES) if rng.random() < 0.8 else ((coined_word(rng),) * 2)
    count, counter = rng.randint(1, 30), rng.choice(words.COUNTERS)
    basket, basket_meaning = rng.choice(words.BASKETS) if rng.random() < 0.5 else ("", "")

    def say(rng: random.Random) -> str:
        amount = _thing(rng, f"{count}{counter}")
        where = basket + rng.choice(("에", "에다가")) if basket else ""
        verb = rng.choice(verbs.LIST if basket else verbs.ORDER)
        return _join(rng, where, dish, amount, _ask(rng, verb))

    arguments = {
        "product": dish,
        "quantity": count,
        "measure": counter,
        **({"list": basket} if basket else {}),
    }
    english = f"Add {count} {meaning} to the {basket_meaning}." if basket else f"Order {count} {meaning}."
    return Request({"name": "order_product", "arguments": arguments}, say, english)


def _tell(rng: random.Random) -> Request:
    (topic, topic_meaning), (town, town_meaning) = rng.choice(words.TOPICS), rng.choice(words.TOWNS)
    date, date_meaning = rng.choice(words.DATES) if rng.random() < 0.6 else ("", "")

    def say(rng: random.Random) -> str:
        parts = [part for part in (date, town) if part]
        rng.shuffle(parts)
        shape = rng.randrange(3)
        if shape == 0:
            particle = rng.choice((with_topic, str))
            asked = rng.choice(("어때", "어떤가", "어떨까", "어떨까요", "어떻습니까", "어떻대", "얼마야"))
            return _join(rng, *parts, particle(topic), asked)
        if shape == 1:
            return _join(rng, *parts, _thing(rng, topic), _ask(rng, rng.choice(verbs.TELL)))
        subject = rng.choice((with_subject, str))
        asked = rng.choice(("어떤지", "어떻게 되는지", "괜찮은지"))
        return _join(rng, *parts, subject(topic), asked, _ask(rng, rng.choice(verbs.TELL)))

    arguments = {"subject": topic, "town": town, **({"date": date} if date else {})}
    day = f" on {date_meaning}" if date else ""
    return Request(
        {"name": "look_up", "arguments": arguments},
        say,
        f"What is the {topic_meaning} in {town_meaning}{day}?",
    )


def _person(rng: random.Random) -> str:
    return (
        rng.choice(words.SURNAMES) + coined_word(rng, 2, 2) if rng.random() < 0.5 else coined_word(rng, 2, 3)
    )


def _message(rng: random.Random) -> Request:
    person, text = _person(rng), " ".join(coined_word(rng) for _ in range(rng.randint(1, 3)))

    def say(rng: random.Random) -> str:
        to = person + rng.choice(("한테", "에게", "님께"))
        kind = rng.choice(("문자", "쪽지", "메일", "편지"))
        return _join(
            rng,
            to,
            f"{text}{rng.choice(('라고', '라는', ' 하고'))} {kind}",
            _ask(rng, rng.choice(verbs.SEND)),
        )

    arguments = {"to": person, "text": text}
    return Request(
        {"name": "send_message", "arguments": arguments}, say, f"Send {person} the message {text}."
    )


def _call(rng: random.Random) -> Request:
    person = _person(rng)

    def say(rng: random.Random) -> str:
        to = person + rng.choice(("한테", "에게", "님께", " 씨에게"))
        return _join(
            rng, to, rng.choice(("전화", "영상통화", "통화")), _adverb(rng), _ask(rng, rng.choice(verbs.CALL))
        )

    return Request({"name": "call_person", "arguments": {"person": person}}, say, f"Call {person}.")


def _go(rng: random.Random) -> Request:
    place = rng.choice(words.TOWNS)[0] if rng.random() < 0.4 else coined_word(rng)
    suffix = rng.choice(("역", "시장", "공원", "병원", "호텔", ""))

    def say(rng: random.Random) -> str:
        where = place + suffix
        to = rng.choice((f"{where}까지", with_direction(where), f"{where} 쪽으로"))
        return _join(
            rng,
            to,
            maybe(rng, 0.3, rng.choice(("제일 빠르게", "막히지 않게", "걸어서"))),
            _ask(rng, rng.choice(verbs.GO)),
        )

    return Request(
        {"name": "navigate", "arguments": {"to": place + suffix}}, say, f"Take me to {place}{suffix}."
    )


def _play(rng: random.Random) -> Request:
    title = " ".join(coined_word(rng) for _ in range(rng.randint(1, 2)))
    kind, meaning = rng.choice(
        (("영화", "film"), ("만화", "cartoon"), ("방송", "programme"), ("연극", "play"), ("강의", "lecture"))
    )

    def say(rng: random.Random) -> str:
        named = rng.choice((f"{title}", f"{title}라는"))
        return _join(rng, named, _thing(rng, kind), _adverb(rng), _ask(rng, rng.choice(verbs.PLAY)))

    arguments = {"kind": kind, "title": title}
    return Request({"name": "play_title", "arguments": arguments}, say, f"Play the {meaning} {title}.")


def _note(rng: random.Random) -> Request:
    text = " ".join(coined_word(rng) for _ in range(rng.randint(1, 3)))

    def say(rng: random.Random) -> str:
        where = rng.choice(("메모장에", "수첩에", "일기장에", "칠판에"))
        return _join(rng, where, f"{text}{rng.choice(('라고', ''))}", _ask(rng, rng.choice(verbs.NOTE)))

    return Request({"name": "write_note", "arguments": {"text": text}}, say, f"Note down {text}.")


def _turn_to(rng: random.Random) -> Request:
    what, number = rng.choice(words.FLOORS), rng.randint(1, 300)

    def say(rng: random.Random) -> str:
        return _join(rng, with_direction(f"{number}{what}"), _adverb(rng), _ask(rng, rng.choice(verbs.TURN)))

    return Request(
        {"name": "turn_to", "arguments": {"number": number, "unit": what}}, say, f"Go to number {number}."
    )


# Kinds whose verbs decide the answer are drawn more often.
_KINDS: tuple[tuple[Callable[[random.Random], Request], int], ...] = (
    (_switch, 14),
    (_link, 5),
    (_hinge, 8),
    (_drape, 4),
    (_rise, 5),
    (_fold, 4),
    (_secure, 8),
    (_change, 10),
    (_measure, 9),
    (_book, 9),
    (_countdown, 5),
    (_order, 7),
    (_tell, 7),
    (_message, 3),
    (_call, 2),
    (_go, 3),
    (_play, 4),
    (_note, 3),
    (_turn_to, 5),
)
