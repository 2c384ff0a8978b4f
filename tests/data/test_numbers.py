import pytest

from tasks.data.numbers import native, parse_native, parse_sino, sino

SINO = {
    0: "영",
    1: "일",
    10: "십",
    11: "십일",
    29: "이십구",
    100: "백",
    106: "백육",
    118: "백십팔",
    250: "이백오십",
    1004: "천사",
}
NATIVE = {
    1: "한",
    4: "네",
    7: "일곱",
    11: "열한",
    20: "스무",
    21: "스물한",
    32: "서른두",
    40: "마흔",
    99: "아흔아홉",
}


@pytest.mark.parametrize(("value", "said"), SINO.items())
def test_sino_numbers_are_said_as_koreans_say_them(value: int, said: str) -> None:
    assert sino(value) == said


@pytest.mark.parametrize(("value", "said"), NATIVE.items())
def test_native_numbers_are_said_as_before_a_counter(value: int, said: str) -> None:
    assert native(value) == said


def test_every_number_is_read_back() -> None:
    assert [parse_sino(sino(value)) for value in range(10_000)] == list(range(10_000))
    assert [parse_native(native(value)) for value in range(1, 100)] == list(range(1, 100))


@pytest.mark.parametrize("said", ["이 십 구", " 이십 구 "])
def test_spaces_inside_a_number_do_not_matter(said: str) -> None:
    assert parse_sino(said) == 29


@pytest.mark.parametrize("said", ["", "십십", "일십", "구이", "열", "불"])
def test_what_is_no_sino_number_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="Sino"):
        parse_sino(said)


@pytest.mark.parametrize("said", ["", "스물", "한두", "일", "열열"])
def test_what_is_no_native_number_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="native"):
        parse_native(said)


@pytest.mark.parametrize("value", [-1, 10_000])
def test_numbers_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="between"):
        sino(value)
