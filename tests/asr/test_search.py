"""Which search decodes, and hot words: heard where the acoustics leave a doubt, without touching the rest."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.asr.checkpoints.checkpoint import SPACE, Vocabulary
from tasks.asr.decoding.decode import BeamSearch, greedy
from tasks.asr.decoding.hot_words import START, HotWords
from tasks.asr.decoding.language_model import estimate
from tasks.asr.decoding.search import Wanted, choose_search, read_arpa, read_hot_words
from tasks.errors import DataError, ModelError

JAMO = Vocabulary.of_jamo()
Array = np.ndarray[Any, Any]


def symbols(text: str) -> list[str]:
    return [JAMO.symbols[label] for label in JAMO.encode(text)]


@pytest.fixture(scope="module")
def shipped() -> BeamSearch:
    said = ["거실 불 켜 줘", "도개 문 닫아", "거실 문 닫아", "불 꺼 줘"]
    return BeamSearch(estimate(map(symbols, said), JAMO.symbols, order=4), JAMO)


def heard(text: str, doubts: dict[int, str] | None = None, margin: float = 2.0) -> Array:
    """Logits that say `text`; at the symbols of `doubts` another is less likely by `margin` nats only."""
    labels = JAMO.encode(text)
    logits = np.full((2 * len(labels), len(JAMO.symbols)), -12.0, np.float32)
    logits[1::2, JAMO.blank_id] = 0.0
    logits[np.arange(0, 2 * len(labels), 2), labels] = 0.0
    for index, symbol in (doubts or {}).items():
        logits[2 * index, JAMO.ids[symbol]] = -margin
    return logits


@pytest.mark.parametrize("decoder", ["beam", "lm"])
def test_a_rare_name_is_heard_once_it_is_listed(shipped: BeamSearch, decoder: str) -> None:
    doubtful = heard("도개비 불 켜 줘", {2: "ᄁ"})  # the first consonant of the second syllable
    plain = choose_search(shipped, JAMO, Wanted(decoder=decoder))
    hot = choose_search(shipped, JAMO, Wanted(decoder=decoder, hot_words=("도깨비",)))
    assert plain is not None and hot is not None
    assert plain.text(doubtful) == "도개비 불 켜 줘"
    assert hot.text(doubtful) == "도깨비 불 켜 줘"
    for text in ("거실 불 켜 줘", "도개 문 닫아", "도도 불 꺼", "불"):
        other = heard(text, {2: "ᄁ"}, margin=0.5)
        assert hot.text(other) == plain.text(other)


def test_a_phrase_is_heard_and_its_beginning_alone_favours_nothing(shipped: BeamSearch) -> None:
    hot = choose_search(shipped, JAMO, Wanted(decoder="beam", hot_words=("거실 등",)))
    assert hot is not None
    last = len(JAMO.encode("거실 등")) - 1
    assert hot.text(heard("거실 들 켜", {last: "ᆼ"})) == "거실 등 켜"
    assert hot.text(heard("거길 문", {2: "ᄉ"}, margin=1.0)) == "거길 문"


def walk(hot: HotWords, text: str) -> float:
    at, total = START, 0.0
    for label in JAMO.encode(text):
        at, worth = hot.step(at, label)
        total += worth
    return total + hot.end(at)


@pytest.mark.parametrize(
    ("text", "symbols_paid"),
    [
        ("가", 2),
        ("각", 0),  # another syllable
        ("가에서", 2),  # an ending
        ("나가", 0),  # inside a word
        ("나 가", 2),
        ("가 가", 4),
        ("말길", 6),
        ("말기", 0),
        ("말", 0),
        ("말길 서버", 11),
        ("말길 서", 6),  # the phrase was left, its first word stays
        ("말길 가", 8),
        ("말길 서가", 6),
        ("거실 거실 불", 9),
        ("거실 가 불", 2),
    ],
)
def test_only_whole_words_are_worth_something(text: str, symbols_paid: int) -> None:
    hot = HotWords.spelled(["가", "말길", "말길 서버", "거실 불"], JAMO, weight=1.0)
    assert walk(hot, text) == pytest.approx(symbols_paid)


def test_a_hot_word_outside_the_vocabulary_is_named(shipped: BeamSearch) -> None:
    with pytest.raises(DataError, match=r"hot word 'Malgil' has 'M'"):
        choose_search(shipped, JAMO, Wanted(hot_words=("Malgil",)))
    with pytest.raises(DataError, match="hot word is empty"):
        choose_search(shipped, JAMO, Wanted(hot_words=(" ",)))


def test_nothing_asked_for_is_what_ships(shipped: BeamSearch) -> None:
    assert choose_search(shipped, JAMO, Wanted()) is shipped
    assert choose_search(None, JAMO, Wanted()) is None
    assert choose_search(shipped, JAMO, Wanted(decoder="greedy")) is None


def test_every_decoder_reads_what_is_clear(shipped: BeamSearch) -> None:
    logits = heard("거실 불 켜 줘")
    for wanted in (Wanted(decoder="beam"), Wanted(decoder="lm"), Wanted(beam_size=1), Wanted(beam_size=100)):
        search = choose_search(shipped, JAMO, wanted)
        assert search is not None and search.text(logits) == greedy(logits, JAMO) == "거실 불 켜 줘"


def test_options_that_exclude_each_other_are_refused(shipped: BeamSearch, tmp_path: Path) -> None:
    for wanted in (
        Wanted(decoder="greedy", beam_size=3),
        Wanted(decoder="greedy", hot_words=("불",)),
        Wanted(decoder="beam", arpa=tmp_path / "a.arpa"),
    ):
        with pytest.raises(DataError, match="needs --decoder"):
            choose_search(shipped, JAMO, wanted)
    with pytest.raises(ModelError, match="no n-gram model"):
        choose_search(None, JAMO, Wanted(decoder="lm"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_model_of_the_users_own_decides(shipped: BeamSearch, tmp_path: Path, packed: bool) -> None:
    arpa = estimate(map(symbols, ["문 열어", "문 열어", "문 열어"]), JAMO.symbols, order=4).encode()
    path = tmp_path / "own.arpa.gz"
    path.write_bytes(gzip.compress(arpa) if packed else arpa)
    own = choose_search(None, JAMO, Wanted(arpa=path))
    doubtful = heard("문 열아", {8: "ᅥ"}, margin=0.3)
    assert own is not None and own.text(doubtful) == "문 열어"


def test_a_broken_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.arpa"
    path.write_bytes(gzip.compress(b"\\data\\" * 100)[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_arpa(path)
    path.write_text("\\data\\\n\\end\\\n")
    with pytest.raises(DataError, match="predicts nothing"):
        read_arpa(path)


def test_hot_words_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff말길\n\n 부엌 조명 \r\n", encoding="utf-8")
    assert read_hot_words(path) == ["말길", "부엌 조명"]
    path.write_bytes("말길".encode("cp949"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_hot_words(path)


def test_a_space_is_the_end_of_a_word() -> None:
    assert JAMO.symbols[HotWords.spelled(["불"], JAMO, 1.0).space] == SPACE
