"""The chains of text normalisers: what every step reads out, as tables of what a reader would say."""

import re
import unicodedata

import pytest

from tasks.data.chains import CHAINS, steps_of
from tasks.data.grammar import draw
from tasks.data.hanja import read_hanja
from tasks.data.hanja_readings import READINGS, SHA256, characters
from tasks.data.hanja_table import readings
from tasks.data.latin import read_latin
from tasks.data.normalisers import STEPS, normalise
from tasks.data.numbers import sino_grouped
from tasks.data.read_out import read_numbers
from tasks.data.text import inverse_normalise
from tasks.data.text import normalise as plain
from tasks.errors import DataError

HANJA = [
    ("大韓民國 國民", "대한민국 국민"),
    ("女性 男女 老人 敬老", "여성 남녀 노인 경로"),
    ("歷史 經歷 勞動 流行 電流 料理", "역사 경력 노동 유행 전류 요리"),
    ("年度 新年 2000年", "연도 신년 2000년"),
    ("比率 確率 合格率 系列 行列", "비율 확률 합격률 계열 행렬"),
    ("합격率 출산率", "합격률 출산율"),
    ("不動産 不足 不可能 不便", "부동산 부족 불가능 불편"),
    ("六月 十月 六", "유월 시월 육"),
    ("音樂 快樂 樂園", "음악 쾌락 낙원"),
    ("金氏 金屬 黃金", "김씨 금속 황금"),
    ("自轉車 自動車", "자전거 자동차"),
    ("李舜臣 龍 異國", "이순신 용 이국"),
    ("대한민국(大韓民國)은", "대한민국은"),
    ("남자(女)", "남자(여)"),
    ("\uf914 \uf95c \uf9bf", "낙 락 요"),  # compatibility ideographs of 樂 carry their reading
    ("\u9fa5은", "\u9fa5은"),  # not in KS X 1001
    ("安寧 憤怒 承諾 康寧", "안녕 분노 승낙 강녕"),
]

# 두음법칙: every kind of syllable that it changes, at the start of a word and inside one.
INITIAL_SOUNDS = [
    ("女子 子女", "여자 자녀"),
    ("年 來年", "연 내년"),
    ("念佛 記念", "염불 기념"),
    ("寧邊 安寧", "영변 안녕"),
    ("尿素 排尿", "요소 배뇨"),
    ("紐帶 結紐", "유대 결뉴"),
    ("泥土 雲泥", "이토 운니"),
    ("溺死 耽溺", "익사 탐닉"),
    ("良心 改良", "양심 개량"),
    ("旅行 軍旅", "여행 군려"),
    ("禮儀 失禮", "예의 실례"),
    ("料金 材料", "요금 재료"),
    ("流行 交流", "유행 교류"),
    ("理由 道理", "이유 도리"),
    ("羅列 新羅", "나열 신라"),
    ("來日 未來", "내일 미래"),
    ("老人 敬老", "노인 경로"),
    ("雷管 地雷", "뇌관 지뢰"),
    ("樓閣 望樓", "누각 망루"),
    ("凌駕 侵凌", "능가 침릉"),
    ("男子 長男", "남자 장남"),  # ㄴ before a plain vowel stays
    ("律法 規律 戒律 法律", "율법 규율 계율 법률"),
]

NUMBERS = [
    ("3시 30분", "세 시 삼십 분"),
    ("오전7시", "오전 일곱 시"),
    ("15:30에", "십오 시 삼십 분에"),
    ("3:05", "세 시 오 분"),
    ("0시", "영 시"),
    ("25도", "이십오 도"),
    ("-5℃", "영하 오 도"),
    ("1,234원", "천이백삼십사 원"),
    ("10000원", "만 원"),
    ("1억 2천만 원", "일억 이천만 원"),
    ("3만5천원", "삼만 오천 원"),
    ("$5.50", "오 점 오 영 달러"),
    ("12345678", "천이백삼십사만 오천육백칠십팔"),
    ("010-1234-5678", "공일공 일이삼사 오육칠팔"),
    ("1588-1234", "일오팔팔 일이삼사"),
    ("02-123-4567", "공이 일이삼 사오육칠"),
    ("3.5kg", "삼 점 오 킬로그램"),
    ("84.05㎡", "팔십사 점 영 오 제곱미터"),
    ("60km/h", "시속 육십 킬로미터"),
    ("시속 60km/h", "시속 육십 킬로미터"),
    ("50%로", "오십 퍼센트로"),
    ("2024-06-10", "이천이십사 년 유월 십 일"),
    ("10월 3일", "시월 삼 일"),
    ("사과 20개를", "사과 스무 개를"),
    ("99명 100명", "아흔아홉 명 백 명"),
    ("3개월 3시간 24시간", "삼 개월 세 시간 이십사 시간"),
    ("1번째 21번째 3번", "첫 번째 스물한 번째 삼 번"),
    ("20대 남자 차 3대", "이십 대 남자 차 세 대"),
    ("3대 1", "삼 대 일"),
    ("제3회", "제삼 회"),
    ("1/2", "이분의 일"),
    ("3~5개", "세 개에서 다섯 개"),
    ("5~6월", "오에서 유월"),
    ("6·25 3·1절", "육이오 삼일절"),
    ("007", "공공칠"),
    ("3,5번", "삼 오 번"),
    ("３층", "삼 층"),
    ("2는 3보다", "이는 삼보다"),
    ("5달러", "오 달러"),
    ("A4 G20", "A4 G20"),
]

LATIN = [
    ("TV 켜 줘", "티비 켜 줘"),
    ("AI와 KBS", "에이아이와 케이비에스"),
    ("LG전자 a동 G20", "엘지전자 에이동 지이십"),
    ("R&B AT&T", "알앤비 에이티앤티"),
    ("Wi-Fi 5G A4용지 MP3", "와이파이 파이브지 에이포용지 엠피쓰리"),
    ("hello iPhone SAMSUNG", "hello iPhone SAMSUNG"),
    ("10 20", "10 20"),
]

WHOLE = [
    ("TV를 3시 30분에 켜 줘!", "티비를 세 시 삼십 분에 켜 줘"),
    ('國民 50%가 AI를 "쓴다".', "국민 오십 퍼센트가 에이아이를 쓴다"),
    (unicodedata.normalize("NFD", "서울 25도"), "서울 이십오 도"),
    ("GPT-4, 5G", "지피티 사 파이브지"),
    ("\uf914園 3.5kg", "낙원 삼 점 오 킬로그램"),
]


@pytest.mark.parametrize(("text", "read"), HANJA)
def test_hanja_are_read_with_the_initial_sound_rule(text: str, read: str) -> None:
    assert read_hanja(text) == read


@pytest.mark.parametrize(("text", "read"), INITIAL_SOUNDS)
def test_the_initial_sound_rule_holds_at_the_start_of_a_word_alone(text: str, read: str) -> None:
    assert read_hanja(text) == read
    assert normalise(text, "ko-2") == read.replace("안녕", "안령")  # hanja-1, what ko-2 has always said


def test_the_first_version_of_the_step_reads_as_it_did() -> None:
    assert normalise("安寧 憤怒 承諾 受諾", "ko-2") == "안령 분로 승락 수락"


def test_readings_are_taken_from_unihan_by_the_order_of_the_standard() -> None:
    unihan = [
        "# Unihan_Readings.txt",
        "U+4F3D\tkHangul\t가:0E",
        "U+8CC8\tkHangul\t가:0N 고:0N",
        "U+8CC8\tkKorean\tKA KO",
        "U+523B\tkHangul\t각:0E 국:N",
        "U+5BB6\tkHangul\t가:E 고:0N",
        "U+F92C\tkHangul\t랑:X",
    ]
    assert readings(unihan, "伽賈刻家\uf92c") == ["가", "가", "각", "고", "랑"]
    with pytest.raises(DataError, match=r"no Korean reading of U\+4E00"):
        readings(unihan, "一")
    with pytest.raises(DataError, match=r"U\+8CC8 is read 가 or 고"):
        readings(unihan, "賈")


def test_the_table_of_readings_is_whole_and_in_order() -> None:
    counted = re.findall(r"(\D)(\d+)", READINGS)
    assert sum(int(count) for _, count in counted) == len(characters()) == 4888
    assert [reading for reading, _ in counted] == sorted({reading for reading, _ in counted})
    assert len(SHA256) == 64


@pytest.mark.parametrize(("text", "read"), NUMBERS)
def test_numbers_and_units_are_read_out(text: str, read: str) -> None:
    assert read_numbers(text) == read


@pytest.mark.parametrize(("text", "read"), LATIN)
def test_abbreviations_are_spelled_and_other_words_left(text: str, read: str) -> None:
    assert read_latin(text) == read


@pytest.mark.parametrize(("text", "read"), WHOLE)
def test_the_whole_chain(text: str, read: str) -> None:
    assert normalise(text, "ko-3") == read


def test_a_chain_applied_twice_changes_nothing_more() -> None:
    for text, _ in HANJA + NUMBERS + LATIN + WHOLE:
        for chain in CHAINS:
            once = normalise(text, chain)
            assert normalise(once, chain) == once, (chain, text)


def test_the_default_chain_is_what_the_built_in_corpus_was_made_with() -> None:
    """ko-1 is the plain normaliser for any text; ko-3 agrees with it where there is nothing to read out."""
    for text, _ in HANJA + NUMBERS + LATIN + WHOLE:
        assert normalise(text, "ko-1") == normalise(text) == plain(text)
    for command in draw(1000, seed=4):
        assert normalise(command.text, "ko-3") == plain(command.text)


def test_every_step_of_every_chain_has_a_function_and_an_unknown_chain_is_named() -> None:
    assert {step for chain in CHAINS for step in steps_of(chain)} == set(STEPS)
    with pytest.raises(DataError, match=r"'ko-9'.*one of ko-1, ko-2, ko-3"):
        normalise("가", "ko-9")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "영"),
        (10_000, "만"),
        (10_001, "만 일"),
        (110_000, "십일만"),
        (10**8, "일억"),
        (10**8 + 10**4, "일억 일만"),
        (10**12 + 5, "일조 오"),
        (9999_9999_9999_9999, "구천구백구십구조 구천구백구십구억 구천구백구십구만 구천구백구십구"),
    ],
)
def test_large_numbers_are_grouped(value: int, said: str) -> None:
    assert sino_grouped(value) == said


def test_no_number_is_too_large_to_be_said_or_refused() -> None:
    with pytest.raises(ValueError, match="not between"):
        sino_grouped(10**16)
    assert read_numbers("1" * 17) == "일" * 17


def written_forms() -> list[str]:
    clocks = [f"{h}시 {m}분" if m else f"{h}시" for h in range(1, 13) for m in range(60)]
    sino = [f"{n}{unit}" for unit in ("도", "퍼센트", "분", "초", "번", "인분", "층") for n in range(1, 150)]
    units = (
        "시간",
        "개",
        "병",
        "봉지",
        "상자",
        "캔",
        "통",
        "판",
        "마리",
        "잔",
        "장",
        "명",
        "권",
        "팩",
        "대",
        "살",
        "달",
    )
    return clocks + sino + [f"{n}{unit}" for unit in units for n in range(1, 100)]


def test_what_is_read_out_is_written_back_by_the_inverse_normaliser() -> None:
    for written in written_forms():
        assert inverse_normalise(normalise(written, "ko-3")) == written


def test_what_the_inverse_normaliser_writes_is_read_out_as_it_was_said() -> None:
    """Over the built-in commands; only "반" (half past) comes back as 삼십 분."""
    for command in draw(1000, seed=5):
        said = command.text.replace("시 반", "시 삼십 분").replace(" ", "")
        assert normalise(inverse_normalise(command.text), "ko-3").replace(" ", "") == said


UNCHANGED = {  # results of ko-1, ko-2 and ko-3, whatever stands before the chains
    "TV를 3시 30분에 켜 줘!": (
        "TV를 3시 30분에 켜 줘",
        "티비를 세 시 삼십 분에 켜 줘",
        "티비를 세 시 삼십 분에 켜 줘",
    ),
    "b/ 창문 닫아 줘 n/": ("b 창문 닫아 줘 n", "비 창문 닫아 줘 엔", "비 창문 닫아 줘 엔"),
    "(3개)/(세 개)": ("3개 세 개", "세 개 세 개", "세 개 세 개"),
    "女性 比率 不足, 安寧": ("女性 比率 不足 安寧", "여성 비율 부족 안령", "여성 비율 부족 안녕"),
    "010-1234-5678 R&B 50%": (
        "010 1234 5678 R B 50",
        "공일공 일이삼사 오육칠팔 알앤비 오십 퍼센트",
        "공일공 일이삼사 오육칠팔 알앤비 오십 퍼센트",
    ),
    "“거실”의 불…": ("거실 의 불", "거실 의 불", "거실 의 불"),
    "2024-06-10 1/2 6·25": (
        "2024 06 10 1 2 6 25",
        "이천이십사 년 유월 십 일 이분의 일 육이오",
        "이천이십사 년 유월 십 일 이분의 일 육이오",
    ),
    "어/ 그+ 그 단어* {laughing}": (
        "어 그 그 단어 laughing",
        "어 그 그 단어 laughing",
        "어 그 그 단어 laughing",
    ),
    "-5℃ 60km/h 84㎡": (
        "5 60km h 84",
        "영하 오 도 시속 육십 킬로미터 팔십사 제곱미터",
        "영하 오 도 시속 육십 킬로미터 팔십사 제곱미터",
    ),
}


@pytest.mark.parametrize("text", UNCHANGED)
def test_the_chains_give_what_they_gave_whatever_marks_are_read_before_them(text: str) -> None:
    assert tuple(normalise(text, chain) for chain in ("ko-1", "ko-2", "ko-3")) == UNCHANGED[text]
