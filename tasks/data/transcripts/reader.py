"""A transcript cut into pieces: ordinary text, and marks with what of them is said. Pure."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from tasks.data.transcripts import conventions as table
from tasks.data.transcripts.brackets import (
    Kind,
    closing,
    in_hangul,
    is_gloss,
    is_tag,
    is_time,
    kind_of,
    spoken_is_left,
    tag_kind,
)
from tasks.data.transcripts.patterns import FOLD, MARKS

Side = Literal["spoken", "written"]
Fillers = Literal["keep", "remove"]
PAIR, GLOSS, LABEL, TIME, TITLE = "(…)/(…)", "(漢字)", "speaker:", "[00:00]", "「…」"
OF_BEFORE = "…"
"""The name of a piece that belongs to the mark before it: it is not counted again."""
_HANGUL = re.compile("[가-힣]*")
_WORD = re.compile(r"\s*[가-힣]")
_TAGS = re.compile(r"(?<!\S)(#[가-힣A-Za-z0-9_]+){2,}(?![^\s.,!?])")  # #맛집#여행
_RIEUL = 8  # the place of ㄹ among final consonants
_FAR = 40  # characters: as far as a word is looked for


class Piece(NamedTuple):
    """A stretch of a transcript: as it stands in the `source`, and what of it is said.

    `name` is "" for ordinary text, else the kind of mark; `reason` says why the row is set aside.
    """

    source: str
    text: str
    name: str = ""
    reason: str = ""


def joined(pieces: Sequence[Piece]) -> str:
    """What the pieces say; spaces single where a mark was taken away."""
    said = "".join(piece.text for piece in pieces)
    return " ".join(said.split()) if any(piece.name for piece in pieces) else said


class Reader:
    """Cuts transcripts into pieces. `folded` is a text with full-width forms as ASCII, of the same length.

    Args:
        side: of a dual transcription, the one that is taken.
        fillers: whether marked fillers stay as words.
    """

    def __init__(self, side: Side, fillers: Fillers) -> None:
        self.side, self.fillers = side, fillers
        self._begun = False  # something is said before the mark at hand
        self._labelled = False  # the transcript says who speaks

    def pieces(self, text: str) -> list[Piece]:
        """The pieces of a text; their sources, put together, are the text."""
        folded = text.translate(FOLD)
        found: list[Piece] = []
        at = plain = 0
        begun = self._labelled = False
        while match := MARKS.search(folded, at):
            begun = begun or (not text[plain : match.start()].isspace() and plain < match.start())
            self._begun = begun
            pieces = self._mark(text, folded, match)
            if pieces is None:  # punctuation
                at = match.start() + 1
                continue
            if plain < match.start():
                found.append(Piece(text[plain : match.start()], text[plain : match.start()]))
            found += pieces
            begun = begun or any(piece.text.strip() for piece in pieces)
            at = plain = match.start() + sum(len(piece.source) for piece in pieces)
        if plain < len(text):
            found.append(Piece(text[plain:], text[plain:]))
        return found

    def _mark(self, text: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        kind = match.lastgroup
        assert kind is not None
        source = text[match.start() : match.end()]
        if kind == "open":
            return self._bracket(text, folded, match.start())
        if kind in _SIMPLE:
            name, said = _SIMPLE[kind]
            return [Piece(source, said, name or source.strip())]
        if kind in _ASIDE:
            return [Piece(source, source, source.strip(), _ASIDE[kind])]
        handler: Callable[[str, str, re.Match[str]], list[Piece] | None] = getattr(self, f"_{kind}")
        return handler(source, folded, match)

    # ---- marks without brackets ----

    def _stamp(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        """A time before anything is said; later it may be said."""
        return None if self._begun else [Piece(source, " ", TIME)]

    def _noise(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        pairs = [source[i : i + 2] for i in range(0, len(source), 2)]
        return [_noise(pair, pair.translate(FOLD).lower()) for pair in pairs]

    def _before(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        letter = folded[match.end() - 1].lower()
        attached = match.start() > 0 and not folded[match.start() - 1].isspace()
        if letter == "l" and attached:  # 천 원/l: a litre
            return [_aside(source, table.UNKNOWN)]
        return [_noise(source, letter + "/")]

    def _slashed(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        """`noise/`, `/laughter`, `c/`: letters of another set of marks."""
        return [self._by_kind(source, source.translate(FOLD).strip("/ "))]

    def _wrapped(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        known = kind_of(match["wrapped_word"]) not in (Kind.OTHER, Kind.TERM)
        return [self._by_kind(source, match["wrapped_word"])] if known or match["by"][0] == "*" else None

    def _hashed(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        known = kind_of(source.translate(FOLD)[1:]) not in (Kind.OTHER, Kind.TERM)
        return [self._by_kind(source, source.translate(FOLD)[1:])] if known else None

    def _by_kind(self, source: str, word: str) -> Piece:
        kind = kind_of(word)
        if kind is Kind.EVENT:
            return Piece(source, " ", source.lower())
        return _aside(source, _REASON_OF[kind])

    def _filler(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        word = match["filler_word"]
        if kind_of(word) is Kind.EVENT:  # 웃음/
            return [_aside(source, table.UNKNOWN)]
        return [self._hesitation(source, word, word + "/")]

    def _dashes(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        word = match["dash_word"]
        if kind_of(word) is Kind.EVENT:
            return [Piece(source, " ", source)]
        piece = self._hesitation(source, word, f"-{word}-" if word in table.FILLERS else "-…-")
        return [piece._replace(text=piece.text + " ") if _hangul_at(folded, match.end()) else piece]

    def _hesitation(self, source: str, word: str, name: str) -> Piece:
        """A word marked as a filler; of others only the mark goes."""
        gone = self.fillers == "remove" and (word in table.FILLERS or len(set(word)) == 1)
        return Piece(source, " " if gone else word, name)

    def _percent(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        word = match["percent_word"]
        if word.casefold() in table.LATIN_FILLERS or kind_of(word) is Kind.EVENT:
            return [Piece(source, " ", source.lower())]
        if word in table.FILLERS:
            return [self._hesitation(source, word, source)]
        return [_aside(source, table.UNKNOWN)]

    def _label(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        """Who speaks, where a turn begins; other words before a colon are said: `속보: 비가 온다`."""
        word, spaced = match["label_word"], folded[match.end() : match.end() + 1].isspace()
        before = folded[max(0, match.start() - _FAR) : match.start()].rstrip()
        is_turn = not self._begun or (spaced and (self._labelled or before.endswith((".", "?", "!", "…"))))
        if re.fullmatch(table.SPEAKERS, word, re.IGNORECASE):
            known = is_turn
        elif re.fullmatch(rf"(?:{table.SPEAKERS})[\s_]?[0-9A-Z]{{1,3}}", word, re.IGNORECASE):
            known = is_turn or spaced
        elif re.fullmatch(r"[A-Z]\d{0,2}", word):
            known = not self._begun or (spaced and self._labelled)
        else:
            known = word.isdigit() and not self._begun and _WORD.match(folded, match.end()) is not None
        self._labelled = self._labelled or known
        return [Piece(source, " ", LABEL)] if known else None

    def _particle(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        """집(으)로, 책을(를): what the syllable before it asks for."""
        final = (ord(folded[match.start() - 1]) - ord("가")) % 28
        form = source.translate(FOLD)
        if form in ("(으)", "(이)"):
            is_said = final and not (form == "(으)" and final == _RIEUL)
            return [Piece(source, form[1] if is_said else "", form)]
        if form == "이(가)" and not final:  # 아이(가)
            return None
        return [Piece(source, table.AFTER_CONSONANT[form] if final else table.AFTER_VOWEL[form], form)]

    def _numbered(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        return [Piece(source, "", "1)")]

    def _plus(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        return [Piece(source, " " if _hangul_at(folded, match.end()) else "", "+")]

    def _star(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        before, after = _hangul_before(folded, match.start()), _HANGUL.match(folded, match.end())
        assert after is not None
        if before and after[0] and (len(before) < 2 or after[0] not in table.PARTICLES):
            return [_aside(source, table.UNKNOWN, f"{before}*{after[0]}")]  # 김*수
        return [Piece(source, "", "*")]

    def _loose(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        before = re.search(r"\S*$", folded[max(0, match.start() - _FAR) : match.start()])
        word = (before[0] if before else "") + folded[match.start() : match.end()]
        return [_aside(source, table.UNKNOWN, word)]

    def _code(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        word = match["code_word"]
        if match["code_of"] in table.NAMES:
            return None
        sounds = not word or match["code_of"] == "FP" or kind_of(word) is Kind.EVENT
        return self._coded(source, match["code_of"], word) if sounds else [_aside(source, table.UNKNOWN)]

    def _coded(self, source: str, code: str, said: str) -> list[Piece]:
        word = said.strip("~., …!?")
        if code == "FP" and re.fullmatch("[가-힣]+", word):
            gone = self.fillers == "remove"
            return [Piece(source, " " if gone else word, f"(FP:{word})")]
        if not said or kind_of(said) is Kind.EVENT or code in table.SOUND_CODES:
            return [Piece(source, " ", f"({code}:)")]
        return [_aside(source, _REASON_OF.get(kind_of(said), table.UNKNOWN))]

    def _entity(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        said = html.unescape(folded[match.start() : match.end()])
        if said == source or len(said) != 1 or said in "<>" or unicodedata.category(said)[0] == "C":
            return [_aside(source, table.UNKNOWN)]
        return [Piece(source, " " if said.isspace() else said, source)]

    def _hash(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        kind = kind_of(folded[match.start() : match.end()].strip("#@").split("#")[0])
        if kind is Kind.EVENT:
            return [Piece(source, " ", source)]
        if kind is Kind.OTHER and source[1] != "@" and _TAGS.match(folded, match.start()):
            return None
        known = kind is Kind.ANONYMOUS or source.startswith("#@")
        return [_aside(source, table.ANONYMISED if known else table.UNKNOWN)]

    def _at(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        word = match["at_word"] or ""
        before = folded[match.start() - 1] if match.start() else " "
        if not word and before.isascii() and before.isalnum():
            return None
        if kind_of(word) is Kind.EVENT:
            return [Piece(source, " ", f"@{word}")]
        lower = word.casefold()
        known = any(lower.startswith(name) for name in table.ANONYMOUS if len(name) > 1 and name != "id")
        return [_aside(source, table.ANONYMISED if known else table.UNKNOWN)]

    def _event(self, source: str, folded: str, match: re.Match[str]) -> list[Piece] | None:
        word = match["event_word"]
        kind = kind_of(word)
        if kind is Kind.EVENT or kind is Kind.TERM:
            return [Piece(source, " ", f"/({word.strip().lower()})")]
        if kind in _REASON_OF and kind is not Kind.OTHER:
            return [_aside(source, _REASON_OF[kind])]
        return None

    def _tag(self, source: str, folded: str, match: re.Match[str]) -> list[Piece]:
        inner = folded[match.start() + 1 : match.end() - 1]
        kind, said = tag_kind(inner)
        if kind is Kind.EVENT:
            return [Piece(source, said, f"<{inner.strip('/ ').split()[0].lower()}>")]
        return [_aside(source, _REASON_OF.get(kind, table.UNKNOWN))]

    # ---- brackets ----

    def _bracket(self, text: str, folded: str, start: int) -> list[Piece]:
        end = closing(folded, start)
        if end is None:
            return [_aside(text[start : _end_of_word(folded, start)], table.UNKNOWN)]
        if folded[start] == "(":
            pair = self._pair(text, folded, start, end)
            if pair is not None:
                return pair
        source, inner = text[start:end], folded[start + 1 : end - 1].strip()
        if inner.startswith("(") and closing(inner, 0) == len(inner) and folded[start] == "(":
            inner, other = inner[1:-1].strip(), table.UNCERTAIN
            inner = inner or "?"
        else:
            other = table.UNKNOWN
        coded = re.fullmatch(rf"({'|'.join(table.CODES)})\s?:\s?(.*)", inner, re.IGNORECASE)
        if coded:
            return self._coded(source, coded[1].upper(), coded[2].strip())
        if folded[start] in "([" and is_gloss(_hangul_before(folded, start), inner):
            return [Piece(source, "", GLOSS)]
        if is_time(inner, folded[start]):
            return [Piece(source, " ", TIME)]
        if re.fullmatch(rf"(?:{table.SPEAKERS})[\s_:]*\d{{1,3}}", inner, re.IGNORECASE):
            return [Piece(source, " ", LABEL)]
        kind = kind_of(inner.removeprefix("@") if inner else "?")
        if folded[start] in table.TITLES and (
            kind is Kind.OTHER or (kind is Kind.EVENT and _is_inflected(folded, end))
        ):
            return self._title(text, start, end, kind)
        if kind is Kind.EVENT:
            shown = f"{folded[start]}{' '.join(inner.lower().split())}{folded[end - 1]}"
            return [Piece(source, " ", shown)]
        return [_aside(source, other if kind in (Kind.OTHER, Kind.TERM) else _REASON_OF[kind])]

    def _title(self, text: str, start: int, end: int, kind: Kind) -> list[Piece]:
        """「토지」: a quoted name, read for its own marks; 『소음』을 may be a name or a mark."""
        inner = self.pieces(text[start + 1 : end - 1])
        if kind is not Kind.OTHER or not re.search(r"\w", joined(inner)):
            return [_aside(text[start:end], table.UNKNOWN)]
        apart = " " if start and not text[start - 1].isspace() else ""
        return [Piece(text[start], apart, TITLE), *inner, Piece(text[end - 1], "", OF_BEFORE)]

    def _pair(self, text: str, folded: str, start: int, end: int) -> list[Piece] | None:
        """`(3개)/(세 개)`: the side that is asked for, read for its own marks; None where it is no pair."""
        between = re.compile(r"\s*/\s*(?=\()|(?=\()").match(folded, end)
        last = closing(folded, between.end()) if between else None
        if between is None or last is None:
            return None
        slash = bool(between[0])
        one, other = (start + 1, end - 1), (between.end() + 1, last - 1)
        left, right = folded[slice(*one)], folded[slice(*other)]
        if not slash and {in_hangul(left), in_hangul(right)} != {True, False}:
            return None
        if not slash and not re.search("[0-9A-Za-z]", left + right):
            return None
        sounds = any(not side.isascii() and kind_of(side) is Kind.EVENT for side in (left, right))
        third = re.compile(r"\s*/\s*\(").match(folded, last)
        if third or sounds or not left.strip() or not right.strip():
            stop = (closing(folded, third.end() - 1) or len(folded)) if third else last
            return [_aside(text[start:stop], table.UNKNOWN)]
        spoken = one if is_tag(right) or (not is_tag(left) and spoken_is_left(left, right)) else other
        written = other if spoken is one else one
        either_is_tag = is_tag(left) or is_tag(right)
        taken = written if self.side == "written" and not either_is_tag else spoken
        first, stop = _stripped(folded, *taken)
        inner = self.pieces(text[first:stop])
        if is_tag(folded[first:stop]):
            return [Piece(text[start:last], " ", PAIR)]
        if not joined(inner) and not any(piece.reason for piece in inner):
            return [_aside(text[start:last], table.UNKNOWN)]
        return [Piece(text[start:first], "", PAIR), *inner, Piece(text[stop:last], "", OF_BEFORE)]


_REASON_OF = {
    Kind.ANONYMOUS: table.ANONYMISED,
    Kind.UNCLEAR: table.UNCLEAR,
    Kind.OTHER: table.UNKNOWN,
    Kind.TERM: table.UNKNOWN,
}
# kind of match: (name, "" for the mark itself; what is said instead)
_SIMPLE = {
    "cue": (TIME, " "),
    "token": ("<|…|>", " "),
    "tilde": ("~", ""),
    "longer": ("::", ""),
    "escape": ("", " "),
    "music": ("♪", " "),
    "phone": ("", " "),
    "turn": (">>", " "),
    "pause": ("//", " "),
}
_ASIDE = {
    "ampersand": table.ANONYMISED,
    "stars": table.UNKNOWN,
    "placeholder": table.ANONYMISED,
    "unclear": table.UNCLEAR,
}


def _aside(source: str, reason: str, name: str = "") -> Piece:
    return Piece(source, source, name or source.strip() or source, reason)


def _noise(source: str, name: str) -> Piece:
    return _aside(source, table.UNCLEAR) if name == "u/" else Piece(source, " ", name)


def _hangul_at(folded: str, at: int) -> bool:
    return "가" <= folded[at : at + 1] <= "힣"


def _is_inflected(folded: str, at: int) -> bool:
    """Whether a particle follows: what stands before it is a word of the sentence."""
    found = re.compile(r"([가-힣]+)(?![가-힣])").match(folded, at)
    return found is not None and found[1] in table.PARTICLES


def _hangul_before(folded: str, at: int) -> str:
    found = re.search("[가-힣]*$", folded[max(0, at - _FAR) : at])
    return found[0] if found else ""


def _end_of_word(folded: str, start: int) -> int:
    found = re.compile(r"\s").search(folded, start + 1)
    return found.start() if found else len(folded)


def _stripped(folded: str, start: int, end: int) -> tuple[int, int]:
    inner = folded[start:end]
    return start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
