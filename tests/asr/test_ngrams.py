"""The stage that makes the language model, and the search with a model of words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.asr.checkpoints.vocabulary import SPACE, Vocabulary
from tasks.asr.decoding import language_model
from tasks.asr.decoding.decode import BeamSearch, greedy
from tasks.asr.decoding.search import Wanted, choose_search
from tasks.asr.decoding.word_search import WordSearch, make_search, unit_of
from tasks.asr.engines.torch_model import OnnxRecogniser, TorchRecogniser, Transcript
from tasks.asr.evaluate import Item, run_system
from tasks.asr.export import export
from tasks.asr.ngrams import add_language_model, symbol_ngrams, word_ngrams
from tasks.asr.prepared import read_prepared
from tasks.errors import DataError
from tasks.params import load
from tasks.settings import LanguageModelAsr
from tests.asr.conftest import SENTENCES
from tests.asr.test_search import heard

JAMO = Vocabulary.of_jamo()
SAID = ["거실 불 켜 줘", "거실 불 꺼 줘", "부엌 불 켜 줘", "문 닫아 줘", "문 열어 줘", "창문 열어"]


def settings(unit: Any, order: int = 3, text: str = "") -> LanguageModelAsr:
    return LanguageModelAsr(unit=unit, order=order, text=text)


@pytest.fixture(scope="module")
def words() -> BeamSearch:
    return make_search(word_ngrams(SAID, JAMO, 3), JAMO)


def test_the_model_of_symbols_is_that_of_the_distinct_transcripts(
    checkpoint: Path, prepared: Path, tmp_path: Path
) -> None:
    """The shipped settings: the very text that the fine-tuning used to write."""
    rows, _ = read_prepared(prepared).split("train")
    distinct = list(dict.fromkeys(rows["text"]))
    assert len(distinct) < len(rows)
    expected = language_model.estimate(
        [[JAMO.symbols[label] for label in JAMO.encode(text)] for text in distinct], JAMO.symbols
    )
    shipped = load(Path(__file__).parents[2] / "params.yaml").language_model_asr
    add_language_model(shipped, trained=checkpoint, prepared=prepared, out_dir=tmp_path / "out")
    assert language_model.read(tmp_path / "out") == expected
    for path in checkpoint.iterdir():
        if path.name != language_model.FILE_NAME:
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_without_a_model_the_recogniser_is_greedy(checkpoint: Path, prepared: Path, tmp_path: Path) -> None:
    add_language_model(settings("none"), trained=checkpoint, prepared=prepared, out_dir=tmp_path / "out")
    assert TorchRecogniser(tmp_path / "out").search is None


def test_a_model_of_words_ships_with_both_back_ends(checkpoint: Path, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoint"
    add_language_model(settings("words"), trained=checkpoint, prepared=prepared, out_dir=out)
    params = load(Path(__file__).parents[2] / "params.yaml").export_asr
    export(params, checkpoint=out, out_dir=tmp_path / "shipped")
    by_torch, by_onnx = TorchRecogniser(out).search, OnnxRecogniser(tmp_path / "shipped").search
    assert isinstance(by_torch, WordSearch) and isinstance(by_onnx, WordSearch)
    assert by_torch.options == by_onnx.options
    doubtful = heard("거실 둘 꺼", {6: "ᄇ"}, margin=0.5)
    assert by_torch.text(doubtful) == by_onnx.text(doubtful) == "거실 불 꺼"


def test_sentences_of_the_users_own_are_expected(checkpoint: Path, prepared: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("\ufeff보일러, 틀어 줘!\n\n보일러 꺼\n", encoding="utf-8")
    doubtful = heard("보일나 꺼", {5: "ᄅ", 6: "ᅥ"}, margin=1.5)
    said = {}
    for name, text in (("without", ""), ("with", str(own))):
        for unit in ("symbols", "words"):
            add_language_model(
                settings(unit, 4, text), trained=checkpoint, prepared=prepared, out_dir=tmp_path / "out"
            )
            arpa = language_model.read(tmp_path / "out")
            assert arpa is not None and unit_of(arpa, JAMO) == unit
            said[name, unit] = make_search(arpa, JAMO).text(doubtful)
    assert said["with", "symbols"] == said["with", "words"] == "보일러 꺼"
    assert "보일러 꺼" not in (said["without", "symbols"], said["without", "words"])


def test_a_sentence_that_cannot_be_written_is_named_by_its_line(
    checkpoint: Path, prepared: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.txt"
    own.write_text("불 꺼\n3번 불 꺼\n", encoding="utf-8")
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"line 2: '3번 불 꺼' has '3'"):
        add_language_model(settings("words", 3, str(own)), trained=checkpoint, prepared=prepared, out_dir=out)
    own.write_bytes("불 꺼".encode("cp949"))
    with pytest.raises(DataError, match="not UTF-8"):
        add_language_model(settings("words", 3, str(own)), trained=checkpoint, prepared=prepared, out_dir=out)
    assert not out.exists()


def test_words_decide_what_the_acoustics_leave_open(words: BeamSearch) -> None:
    doubtful = heard("거실 둘 켜 줘", {6: "ᄇ"}, margin=1.0)
    assert greedy(doubtful, JAMO) == "거실 둘 켜 줘"
    assert words.text(doubtful) == "거실 불 켜 줘"
    assert words.labels(doubtful)[-1] != JAMO.ids[SPACE]


@pytest.mark.parametrize("text", ["도깨비 불 켜 줘", "거실 도깨비", "도깨비", "거실 불 켜 줘", "문"])
def test_unknown_words_are_written_as_they_are_heard(words: BeamSearch, text: str) -> None:
    sentences = [sentence.split() for sentence in SAID]
    plain = language_model.estimate(sentences, sorted({word for own in sentences for word in own}), 3)
    assert words.text(heard(text)) == text
    # a model that somebody else made of words alone has no pieces: its unknown word stands for a symbol
    assert make_search(plain, JAMO).text(heard(text)) == text


def test_the_last_word_is_weighed_as_any_other(words: BeamSearch) -> None:
    """Nobody says the space that ends it."""
    doubtful = heard("거실 불 켜 두", {14: "ᅯ", 13: "ᄌ"}, margin=2.5)
    assert words.text(doubtful) == "거실 불 켜 줘"


def test_every_word_is_spelled_in_the_model_of_words() -> None:
    arpa = word_ngrams(SAID, JAMO, 3)
    grams = {line.split("\t")[1] for line in arpa.splitlines() if line.count("\t")}
    for word in ("거실", "창문"):  # said twice, and once
        first, second = (SPACE + symbol for symbol in JAMO.split(word)[:2])
        assert f"<s> {first} {second}" in grams


def test_nothing_heard_gives_nothing(words: BeamSearch) -> None:
    assert words.labels(np.zeros((0, len(JAMO.symbols)), np.float32)) == []
    silence = np.full((20, len(JAMO.symbols)), -12.0, np.float32)
    silence[:, JAMO.blank_id] = 0.0
    assert words.text(silence) == ""


def test_a_users_model_of_words_is_taken_and_hot_words_are_not(words: BeamSearch, tmp_path: Path) -> None:
    path = tmp_path / "words.arpa"
    path.write_text(word_ngrams(SAID, JAMO, 3), encoding="utf-8")
    symbols = make_search(symbol_ngrams(SENTENCES, JAMO), JAMO)
    chosen = choose_search(symbols, JAMO, Wanted(arpa=path, beam_size=30))
    assert isinstance(chosen, WordSearch) and chosen.options.beam_size == 30
    assert not isinstance(choose_search(words, JAMO, Wanted(decoder="beam")), WordSearch)
    with pytest.raises(DataError, match="hot words"):
        choose_search(words, JAMO, Wanted(hot_words=("불",)))
    assert choose_search(words, JAMO, Wanted(decoder="beam", hot_words=("불",))) is not None


def test_a_model_of_words_in_another_script_is_refused() -> None:
    with pytest.raises(DataError, match="'light', 'on'"):
        make_search(language_model.estimate([["light", "on"]], ["light", "on"], 2), JAMO)


class Writes:
    """A recogniser that writes as a stock checkpoint does."""

    def __init__(self, text: str) -> None:
        self.text = text

    def transcripts(self, audio: Any) -> list[Transcript]:
        return [Transcript(self.text, self.text.upper())] * len(audio)

    def transcribe(self, audio: Any) -> list[str]:
        return [self.text] * len(audio)


def test_hypotheses_are_scored_after_the_chain_of_the_references() -> None:
    item = Item("plain", "test_sentences", "u", "v", "불 삼 번 켜 줘", np.zeros(1600, np.float32))
    table = run_system("stock", Writes("불 3번 켜, 줘."), [item], "ko-2")
    assert table["hypothesis"][0] == table["greedy"][0] != "불 3번 켜, 줘."
    assert table["edits"][0] == 0
    assert run_system("stock", Writes("불 3번 켜, 줘."), [item], "ko-1")["hypothesis"][0] == "불 3번 켜 줘"
