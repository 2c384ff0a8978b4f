"""Marks of transcripts: the table of conventions by example, and the law for any text."""

import os
import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.data.normalisers import normalise
from tasks.data.transcripts import conventions
from tasks.data.transcripts.marks import Marked, read_marks
from tasks.errors import DataError

EXAMPLES = int(os.environ.get("MALGIL_FUZZ_EXAMPLES", "200"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

SAID = {  # what is said, whatever stands around it
    # KsponSpeech and the sets that follow its rules
    "b/ 창문 닫아 줘 n/": "창문 닫아 줘",
    "(3개)/(세 개)": "세 개",
    "(TV)/(티비)": "티비",
    "(3개)/(세 개)를 주세요": "세 개를 주세요",
    "( 3개 ) / ( 세 개 )를 주세요": "세 개를 주세요",
    "（３개）／（세 개）를": "세 개를",
    "(2명)/(두 명)이 (3개)/(세 개)씩(5번)/(다섯 번)": "두 명이 세 개씩다섯 번",
    "b/ 아/ 모+ 몬 소리야 (70%)/(칠 십 퍼센트) 확률이라니 n/": "아 모 몬 소리야 칠 십 퍼센트 확률이라니",
    "(b/ 3개)/(세+ 개 n/)": "세 개",
    "(세 개)/(3개)": "세 개",  # a few corpora write the spoken side first
    "(10)(십) 명": "십 명",
    "(20,000원)/(이만 원)이고 (AI)/(에이아이)는": "이만 원이고 에이아이는",
    "그+ 그 학교+학교에 갔다": "그 그 학교 학교에 갔다",
    "o/ 그래n/ 응 b/n/ l/": "그래 응",
    "B/ 그래 N/": "그래",
    "/n 그래 /b": "그래",
    "단어* 세츄레이션*이": "단어 세츄레이션이",
    "어/ 막/ 그니까/ 그래": "어 막 그니까 그래",
    "어/b/ 그래, 음/, 네": "어 그래, 음, 네",
    "(어/)/(아/) 그래": "아 그래",
    # everyday conversations
    "{laughing} 어~ -음- 그래 {clearing}": "어 음 그래",
    "-그- 그게 -그-그거": "그 그게 그 그거",
    "{applausing} 네 {singing}": "네",
    # newer sets of AI-Hub
    "(SP:) (FP:음) 네 (SN:소리) (NO:)": "음 네",
    "SP: 네 (sn:) (BR: 숨)": "네",
    "그래 /(noise) 응 /(bgm)": "그래 응",
    "(가설)/(idiom) 검정 가설/(idiom)": "가설 검정 가설",
    "(네)/(noise) 그래": "네 그래",
    "@웃음 생긴 거 @목청": "생긴 거",
    # subtitles, recognisers and general tags
    "[noise] [laughter] 네 <noise> <sil> sp 그래 %uh": "네 그래",
    "[웃음] 네 (박수 소리) 【음악】 〈한숨〉 ［기침］ ｛박수｝": "네",
    "(문 닫는 소리) 네 (배경 음악)": "네",
    "((웃음)) 네": "네",
    "<b>안녕</b> <font color='#fff'>하세요</font><br/>네": "안녕 하세요 네",
    "안녕&nbsp;하세요 &quot;네&quot;": '안녕 하세요 "네"',
    "♪ 노래 ♬": "노래",
    "A: 안녕": "안녕",
    "화자1: 안녕 화자 2: 그래": "안녕 그래",
    "[SPEAKER_00] 안녕": "안녕",
    "3: 안녕": "안녕",
    "[00:01:02] 안녕 [00:03.5]": "안녕",
    "00:00:01,000 --> 00:00:02,500 안녕": "안녕",
    "00:01:02 안녕": "안녕",
    "<|ko|><|0.00|>안녕": "안녕",
    "안녕\\n하세요": "안녕 하세요",
    ">> 안녕 // 그래": "안녕 그래",
    "*웃음* 네 -기침- :laughing: ++NOISE++ #웃음 %한숨": "네",
    "SIL 네 SPOKEN_NOISE noise/ 그래 /laughter": "네 그래",
    "﹙웃음﹚ 네 ︵박수︶": "네",
    "홍길동(洪吉童) 씨": "홍길동 씨",
    "그::: 뭐": "그 뭐",
    "상담원: 네. 고객: 환불이요": "네. 환불이요",
    "Q: 뭐야 A: 이거": "뭐야 이거",
    # how Korean is written: titles, particles by the syllable before them, lists
    "「토지」를 읽어": "토지를 읽어",
    "소설『토지』와 《봄봄》, 〈운수 좋은 날〉": "소설 토지와 봄봄, 운수 좋은 날",
    "≪춘향전≫과 «심청전» ｢홍길동전｣": "춘향전과 심청전 홍길동전",
    "〈토지 (웃음)〉 《박수》": "토지",
    "서울(으)로 집(으)로 학교(으)로": "서울로 집으로 학교로",
    "집（으）로 먹(으)면": "집으로 먹으면",
    "철수(이)랑 학생(이)라고": "철수랑 학생이라고",
    "책을(를) 철수은(는) 학생이(가) 배와(과)": "책을 철수는 학생이 배와",
    "1) 사과 12) 배": "1 사과 12 배",
}
PUNCTUATION = [  # no marks: they come back as they are
    "안녕하세요. 네, 뭐라고요?",
    "3/4 km/h 24/7 and/or",
    "1+1 2*3 2 * 3 C++ A+ 학점",
    "A/S a b/c N/A TCP/IP",
    "남/녀 아/어 주다",
    "서울~부산 3~5개",
    "10:30 그리고 3:2로 기록은 1:23:45",
    "test@example.com AT&T R&D",
    "x축 2 x 3 3×4",
    "1 < 2 http://example.com",
    "“인용”과 ‘인용’ — 그리고…",
    "천 원 - 삼천 원 010-1234-5678",
    "#1 샵 50% #맛집 on/off",
    "속보: 비가 온다",
    "주제: 경제, 일시: 내일",
    "철수: 안녕",
    "오늘의 손님: 김철수",
    "비타민 C: 하루 한 알",
    "LG: 냉장고 LA: 다저스",
    "#맛집#여행 가자",
    "서울 / 부산, 10 % 할인",
    "※ 주의 → 확인 · 점검 • 완료",
]
ASIDE = {  # the row cannot be used: (reason, the mark that is named)
    "u/ 뭐라고": ("unclear_speech", "u/"),
    "(u/)/(u/)": ("unclear_speech", "u/"),
    "(()) 그래": ("unclear_speech", "(())"),
    "((xx)) 그래": ("unclear_speech", "((xx))"),
    "(불분명) 그래": ("unclear_speech", "(불분명)"),
    "[잘 안 들림] 그래": ("unclear_speech", "[잘 안 들림]"),
    "<unk> 그래": ("unclear_speech", "<unk>"),
    "xx 그래": ("unclear_speech", "xx"),
    "할머니x 그래": ("unclear_speech", "x"),
    "((추정 단어)) 그래": ("uncertain_transcription", "((추정 단어))"),
    "&name1& 이랑": ("anonymised_name", "&name1&"),
    "&company-name&이랑": ("anonymised_name", "&company-name&"),
    "그래&tel-num&이": ("anonymised_name", "&tel-num&"),
    "@이름1 씨": ("anonymised_name", "@이름1"),
    "#@이름# 씨": ("anonymised_name", "#@이름#"),
    "#@시스템#사진# 봐": ("anonymised_name", "#@시스템#사진#"),
    "[전화번호] 로": ("anonymised_name", "[전화번호]"),
    "(삐소리) 씨": ("anonymised_name", "(삐소리)"),
    "홍○○ 씨": ("anonymised_name", "○○"),
    "김OO 씨": ("anonymised_name", "OO"),
    "김*수 씨": ("unknown_mark", "김*수"),
    "김** 씨": ("unknown_mark", "**"),
    "[zzz] 그래": ("unknown_mark", "[zzz]"),
    "{LG:영어} 그래": ("unknown_mark", "{LG:영어}"),
    "(으)로": ("unknown_mark", "(으)"),
    "3(으)로": ("unknown_mark", "(으)"),
    "아이(가)": ("unknown_mark", "(가)"),
    "삼성(주)": ("unknown_mark", "(주)"),
    "『소음』을 읽어": ("unknown_mark", "『소음』"),
    "「이름」이라는 시": ("anonymised_name", "「이름」"),
    "「불분명」 그래": ("unclear_speech", "「불분명」"),
    "「토지 1부 [zzz]」": ("unknown_mark", "[zzz]"),
    "「토지를 읽어": ("unknown_mark", "「토지를"),
    "토지」를 읽어": ("unknown_mark", "토지」"),
    "「」 그래": ("unclear_speech", "「」"),
    "#김철수# 씨": ("unknown_mark", "#김철수#"),
    "가) 그래": ("unknown_mark", "가)"),
    "⟦그래⟧": ("unknown_mark", "⟦그래⟧"),
    "<overlay>그래": ("unknown_mark", "<overlay>"),
    "(3개/(세 개)": ("unknown_mark", "(3개/(세"),
    "(3개)/()": ("unknown_mark", "(3개)/()"),
    "(가)/(나)/(다)": ("unknown_mark", "(가)/(나)/(다)"),
    "(네)/(웃음)": ("unknown_mark", "(네)/(웃음)"),
    "웃음) 그래": ("unknown_mark", "웃음)"),
    "&lt;b&gt;": ("unknown_mark", "&lt;"),
    "NO:창문 닫아": ("unknown_mark", "NO:창문"),
    "%창문 닫아": ("unknown_mark", "%창문"),
    "c/ 그래": ("unknown_mark", "c/"),
    "b / 창문 닫아": ("unknown_mark", "b /"),
    "웃음/ 그래": ("unknown_mark", "웃음/"),
    "*강조* 그래": ("unknown_mark", "*강조*"),
    "$name$ 씨": ("anonymised_name", "$name$"),
    "UNK 그래": ("unclear_speech", "UNK"),
    "｟그래｠": ("unknown_mark", "｟그래｠"),
}


@pytest.mark.parametrize("written", SAID)
def test_marks_are_read_as_the_corpora_mean_them(written: str) -> None:
    found = read_marks(written)
    assert (found.text, found.unknown) == (SAID[written], ())
    assert found.removed


@pytest.mark.parametrize("written", PUNCTUATION)
def test_punctuation_is_no_mark(written: str) -> None:
    assert read_marks(written)[:3] == (written, (), ())


@pytest.mark.parametrize("written", ASIDE)
def test_what_is_not_heard_as_written_sets_the_row_aside_by_name(written: str) -> None:
    found = read_marks(written)
    assert (found.text, found.removed) == (written, ())
    assert ASIDE[written] in [tuple(one) for one in found.unknown]
    assert {one.reason for one in found.unknown} <= set(conventions.REASONS)


@pytest.mark.parametrize("chain", ["ko-1", "ko-2", "ko-3"])
def test_the_chains_give_what_is_said_after_the_marks(chain: str) -> None:
    wanted = {
        "b/ 창문 닫아 줘 n/": "창문 닫아 줘",
        "(3개)/(세 개)": "세 개",
        "(TV)/(티비)": "티비",
    }
    assert {text: normalise(read_marks(text).text, chain) for text in wanted} == wanted


def test_the_written_side_of_a_pair_is_a_setting() -> None:
    text = "(3개)/(세 개)를 (세 개)/(3개) (컴퓨터)/(컴퓨타)"
    assert read_marks(text, side="written").text == "3개를 3개 컴퓨터"
    assert read_marks(text, side="spoken").text == "세 개를 세 개 컴퓨타"


def test_marked_fillers_can_be_removed_and_other_words_stay() -> None:
    text = "어/ 그래 막/ (FP:음) -그- 그게 -가나- %음 남자/ 음~ 그 사람"
    assert read_marks(text, fillers="remove").text == "그래 그게 가나 남자 음 그 사람"
    assert read_marks(text).text == "어 그래 막 음 그 그게 가나 음 남자 음 그 사람"


def test_no_version_reads_nothing_and_an_unknown_one_is_refused() -> None:
    assert read_marks("b/ (웃음)", version="none").text == "b/ (웃음)"
    with pytest.raises(DataError, match=r"marks-9.*marks-1 or none"):
        read_marks("b/ 네", version="marks-9")


def test_kinds_of_marks_are_counted_as_often_as_they_occur() -> None:
    assert read_marks("b/ 네 b/ (웃음) (3)/(세) 개").removed == ("b/", "b/", "(웃음)", "(…)/(…)")


# ---- the law ----

PARTS = [
    *SAID,
    *PUNCTUATION,
    *ASIDE,
    *conventions.BRACKETS,
    *conventions.BRACKETS.values(),
    *"/+*~&@#%<>-_:;|x＜＞（）",
]
MARKED = st.lists(
    st.one_of(st.sampled_from(PARTS), st.text(max_size=4), st.sampled_from(["가", " ", "1"])), max_size=12
)


def holds(text: str, found: Marked) -> None:
    """What goes in equals what comes out plus what is named."""
    assert "".join(piece.source for piece in found.pieces) == text
    assert all(piece.name or piece.source == piece.text for piece in found.pieces)
    if found.unknown:
        assert (found.text, found.removed) == (text, ())
        assert all(mark for _, mark in found.unknown)
    else:
        said = "".join(piece.text for piece in found.pieces)
        assert found.text.split() == said.split()
        assert found.removed or found.text == text


@FUZZ
@given(st.one_of(st.text(), MARKED.map("".join)), st.sampled_from(["spoken", "written"]), st.booleans())
@example("b(웃음)/", "spoken", False)
@example("&amp;amp;", "spoken", False)
@example("((" * 40, "spoken", False)
@example("A: B: 네", "spoken", False)
@example("\ud800", "spoken", False)
def test_any_text_is_said_or_named_and_a_second_reading_changes_nothing(
    text: str, side, remove: bool
) -> None:  # type: ignore[no-untyped-def]
    fillers = "remove" if remove else "keep"
    found = read_marks(text, side=side, fillers=fillers)
    holds(text, found)
    again = read_marks(found.text, side=side, fillers=fillers)
    assert again.text == found.text
    assert again.unknown == found.unknown
    assert again.removed == ()


@FUZZ
@given(MARKED.map("".join))
def test_no_bracket_of_a_mark_reaches_the_text(text: str) -> None:
    found = read_marks(text)
    if not found.unknown:
        left = set(found.text) & (set(conventions.BRACKETS) | set(conventions.BRACKETS.values())) - set("<>")
        assert left == set()


OTHER_BRACKETS = sorted(set(conventions.BRACKETS) - set(conventions.TITLES))
HANGUL = st.text(st.characters(min_codepoint=ord("가"), max_codepoint=ord("힣")), min_size=2, max_size=6)


@FUZZ
@given(st.sampled_from(OTHER_BRACKETS), HANGUL, st.sampled_from(["", " ", "/", "(", "a"]))
def test_what_stands_in_brackets_other_than_those_of_titles_is_never_spoken(
    opening: str, content: str, before: str
) -> None:
    found = read_marks(f"네{before}{opening}{content}{conventions.BRACKETS[opening]} 그래")
    assert found.unknown or content not in found.text


def test_a_long_transcript_takes_no_long_time() -> None:
    random.seed(0)
    for text in (
        "(" * 20_000,
        "b/ " * 20_000,
        "&a" * 20_000,
        "가" * 50_000 + ":",
        "#가" * 20_000,
        "-가" * 20_000,
    ):
        assert read_marks(text).pieces
