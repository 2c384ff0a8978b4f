"""Hanja to Hangul (step `hanja-1`): the reading of each character, with the initial-sound rule. Pure.

The readings are those of KS X 1001, whose 4,888 Hanja stand in the order of their Korean reading. Python's
codec `euc_kr` knows that order; `_READINGS` says how many characters each reading has. A character that the
standard lists under several readings has compatibility ideographs for the others (U+F900 to U+FA0B); they
keep their own reading. Words that are read otherwise than letter by letter stand in `_WORDS`.

Not known: Hanja outside KS X 1001, which stay as they are, and prefixes before a word that has the rule of
its own (新女性 is read 신녀성, not 신여성). No library: `hanja` of PyPI pins another PyYAML and wants pytest.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_ROWS = range(0xCA, 0xFE)  # lead bytes of the Hanja in EUC-KR
_COLUMNS = range(0xA1, 0xFF)
_READINGS = (
    "가29각11간24갈10감20갑6강24개20객2갱4갹1거17건12걸4검7겁3게3격7견11결6겸6경45계24고39곡7곤10골3공16곶1과12곽4관17괄4광"
    "13괘3괴9굉4교25구54국6군6굴4궁6권10궐5궤6귀6규15균7귤1극7근15글1금14급7긍4기64긴1길4김1끽1나15낙8난9날2남9납5낭7내6냉1녀1"
    "년3념4녕2노18녹6논1농7뇌6뇨1누8눈1눌1뉴2늑2늠1능6니2닉2다2단20달5담17답5당11대16댁1덕2도40독10돈10돌2동17두11둔6득1등9라9"
    "락9란9랄2람10랍3랑8래4랭1략2량13려18력7련12렬6렴5렵1령18례5로18록7론1롱7뢰8료12룡1루13류14륙3륜6률4륭1륵2름1릉6리26린9림5"
    "립4마8막6만19말7망12매14맥5맹6멱2면11멸2명15몌1모24목7몰2몽3묘12무22묵2문12물3미19민13밀3박19반25발11방28배20백8번10벌"
    "4범9법2벽11변7별4병17보16복17본1볼1봉16부43북1분19불5붕6비43빈14빙4사60삭4산12살5삼8삽4상31새3색5생5서30석15선32설13섬"
    "8섭4성18세9소37속9손6솔1송8쇄5쇠2수61숙12순27술4숭3슬3습5승10시28식15신24실4심10십3쌍1씨1아18악14안10알4암8압4앙7애11액"
    "7앵4야11약9양31어10억5언6얼2엄6업2엔1여24역13연43열10염15엽4영40예24오30옥5온6올1옹9와8완18왈1왕5왜4외5요38욕6용24우32"
    "욱9운13울3웅2원27월3위25유56육7윤13율5융5은7을1음6읍3응4의19이38익8인24일9임11입5잉4자26작13잔5잠6잡1장37재17쟁4저28적2"
    "5전41절8점9접3정55제23조46족4존2졸3종17좌5죄1주40죽2준19줄1중4즉1즐1즙3증11지34직5진35질15짐2집7징3차15착7찬15찰5참10창"
    "22채12책4처4척15천19철10첨10첩10청8체10초27촉6촌4총10촬1최3추23축12춘3출3충6췌4취14측5층1치24칙3친1칠3침9칩1칭2쾌1타14"
    "탁16탄10탈2탐4탑3탕5태14택3탱1터1토4통7퇴6투6특2틈1파16판9팔3패11팽4퍅1편10폄1평5폐10포28폭6표14품2풍5피7필10핍2하14학5한"
    "14할2함12합7항17해18핵2행5향9허4헌4헐1험2혁4현21혈4혐1협12형20혜9호41혹3혼6홀3홍10화14확6환17활5황24회20획2횡3효13후13"
    "훈10훙1훤4훼3휘8휴5휼3흉5흑1흔4흘4흠3흡4흥1희20힐1"
)
# Not the reading under which the standard lists the character itself.
_USUAL = dict(zip("金樂宅不泌異隸郎率", "금락택불비이례랑률", strict=True))


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


_WORDS = _pairs(
    "六月:유월 十月:시월 五六月:오뉴월 音樂:음악 樂器:악기 樂譜:악보 樂團:악단 國樂:국악 聲樂:성악 "
    "器樂:기악 金氏:김씨 金海:김해 金浦:김포 金泉:김천 金堤:김제 自轉車:자전거 人力車:인력거 "
    "停車場:정거장 更新:갱신 更生:갱생 更年期:갱년기 復活:부활 復興:부흥 相殺:상쇄 殺到:쇄도 降伏:항복 "
    "投降:투항 省略:생략 憎惡:증오 嫌惡:혐오 容易:용이 難易度:난이도 簡易:간이 平易:평이 遊說:유세 "
    "要塞:요새 小便:소변 大便:대변 便所:변소 便秘:변비 標識:표지 洞察:통찰 句讀:구두 綠茶:녹차 紅茶:홍차 "
    "雪糖:설탕 砂糖:사탕 許諾:허락 受諾:수락 議論:의논 困難:곤란 論難:논란 龜裂:균열 一切:일체 木瓜:모과 "
    "喜怒:희로 賞狀:상장 招待狀:초대장 年賀狀:연하장 什器:집기 拾得:습득 貰房:셋방 數字:숫자 回數:횟수 "
    "車間:찻간 庫間:곳간 退間:툇간 "
)
_BY_LENGTH = sorted(_WORDS, key=len, reverse=True)

_HANJA = re.compile("[\u4e00-\u9fff\uf900-\ufaff]+")
# A gloss repeats what stands before it: 대한민국(大韓民國).
_GLOSS = re.compile("(?P<said>[가-힣]+)\\s?[(（\\[［](?P<gloss>[\u4e00-\u9fff\uf900-\ufaff]+)[)）\\]］]")

_LIEUL, _NIEUN, _IEUNG, _NONE = 5, 2, 11, 0  # indices of initials, and of the empty final
_SOFT = frozenset({2, 3, 6, 7, 12, 17, 20})  # ㅑ ㅒ ㅕ ㅖ ㅛ ㅠ ㅣ
_FINAL_NIEUN = 4


def read_hanja(text: str) -> str:
    """The text with its Hanja read in Hangul: "大韓民國 女性" → "대한민국 여성".

    At the start of a word 녀, 뇨, 뉴, 니 and ㄹ follow the initial-sound rule (두음법칙); after a digit or a
    Hangul syllable they do not ("2000年" → "2000년"), but 률 and 렬 become 율 and 열 after a vowel or ㄴ
    (比率 비율, 確率 확률), and 不 is 부 before ㄷ and ㅈ. A gloss in brackets that repeats the word before it
    goes. Unknown characters stay.
    """
    if _HANJA.search(text) is None:
        return text
    text = _GLOSS.sub(_without_repetition, text)
    return _HANJA.sub(_read_run, text)


def initial_sound(syllable: str) -> str:
    """The syllable as at the start of a word: 녀 → 여, 료 → 요, 로 → 노; others as they are."""
    initial, medial, final = _parts(syllable)
    if initial == _LIEUL:
        initial = _IEUNG if medial in _SOFT else _NIEUN
    elif initial == _NIEUN and medial in _SOFT:
        initial = _IEUNG
    return _join(initial, medial, final)


def _without_repetition(match: re.Match[str]) -> str:
    said, read = match["said"], _read_word(match["gloss"], at_start=True)
    return said if said.endswith(read) else match[0]


def _read_run(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1] if match.start() else " "
    return _read_word(match[0], not (before.isdigit() or "가" <= before <= "힣"), before)


def _read_word(run: str, at_start: bool, before: str = " ") -> str:
    """Reads a run of Hanja from left to right; `before` is the character in front of it."""
    read: list[str] = []
    at = 0
    while at < len(run):
        word = next((w for w in _BY_LENGTH if run.startswith(w, at)), None)
        if word is not None:
            read.append(_WORDS[word])
            at += len(word)
            continue
        syllable = _syllable(run[at], run[at + 1 : at + 2])
        last = "".join(read)[-1:] or before
        starts = at == 0 and at_start and not _is_exact(run[at])
        if starts or (syllable in ("률", "렬") and _parts(last)[2] in (_NONE, _FINAL_NIEUN)):
            syllable = initial_sound(syllable)
        read.append(syllable)
        at += 1
    return "".join(read)


def _syllable(character: str, following: str) -> str:
    table = _table()
    if character == "不" and following:
        next_initial = _parts(table.get(following, "가"))[0]
        return "부" if next_initial in (3, 12) else "불"  # ㄷ, ㅈ
    return table.get(character, character)


def _is_exact(character: str) -> bool:
    """Whether the character is a compatibility ideograph, chosen for its reading, or is not known."""
    return character >= "\uf900" or character not in _table()


@cache
def _table() -> dict[str, str]:
    """Character to reading; for one with several readings the form before the initial-sound rule."""
    ordered = (bytes((row, column)).decode("euc_kr") for row in _ROWS for column in _COLUMNS)
    listed = [
        (next(ordered), reading)
        for reading, count in re.findall(r"(\D)(\d+)", "".join(_READINGS))
        for _ in range(int(count))
    ]
    table: dict[str, str] = {}
    for character, reading in listed:
        table[character] = reading
    for character, reading in listed:  # 녀 and 여 are both listed for 女: the word-internal one is the base
        unified = unicodedata.normalize("NFC", character)
        known = table.setdefault(unified, reading)
        same = initial_sound(reading) == initial_sound(known)
        if same and _parts(reading)[0] != _IEUNG and _parts(known)[0] != _LIEUL:
            table[unified] = reading
    return table | _USUAL


def _parts(syllable: str) -> tuple[int, int, int]:
    """Indices of the initial, medial and final letter of a Hangul syllable; others give (-1, -1, -1)."""
    if not "가" <= syllable <= "힣":
        return -1, -1, -1
    initial, rest = divmod(ord(syllable) - ord("가"), 588)
    return initial, *divmod(rest, 28)


def _join(initial: int, medial: int, final: int) -> str:
    return chr(ord("가") + initial * 588 + medial * 28 + final)
