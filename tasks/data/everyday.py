"""Everyday Korean sentences that no command of the smart-home grammar is like. Pure given the generator.

A second, small grammar written for the out-of-domain slice: talk of the weather, news, school, the kitchen,
errands and family, in statements and questions rather than requests. Its words hold what the commands never
say: ㅒ ㅙ ㅚ ㅞ ㅢ, finals ㄳ ㄵ ㄻ ㄾ ㄿ ㅀ ㅄ ㅊ ㅌ. Nobody's text is copied; nothing is trained on it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from tasks.data.phrases import with_object, with_subject, with_topic
from tasks.errors import DataError

# One row per shape of sentence: the template, then the words of its slots, parted by "/". A particle in a
# slot, as in {0을}, takes the form that the word asks for.
_Shape = tuple[str, ...]
_WEATHER: tuple[_Shape, ...] = (
    (
        "{0}에 {1이} 한참 있다가 {2}",
        "산 너머/바닷가/남쪽 마을/들판/골목길/고향",
        "소나기/안개/함박눈/우박/무지개/천둥소리",
        "그쳤어요/사라졌네요/지나갔대/멎었대",
    ),
    (
        "{0} {1이} {2}",
        "바닷가/들판/골목길/학교 앞뜰/고향",
        "햇볕/별빛/달빛/봄볕/햇빛",
        "참 곱다/따뜻했지/눈부셨어/좋더라고요",
    ),
    (
        "{0} {1을} 꺼내 입었어",
        "바람이 거세서/밖이 너무 추워서/길이 얼어서",
        "스웨터/외투/털조끼/두꺼운 바지/우비",
    ),
    (
        "{0}에는 왜 이렇게 {1}",
        "산 너머/바닷가/남쪽 마을/들판/고향",
        "눈이 쌓였지/꽃이 늦게 필까/해가 짧을까/빛이 없을까",
    ),
)
_NEWS: tuple[_Shape, ...] = (
    (
        "{0은} 어젯밤 {1} 때문에 {2}",
        "국회/외교부/병원 노조/의사 협회/대학교/지방 의회/환경 단체",
        "새 의료 제도/쓰레기 문제/임금 협상/교통 요금/해외 투자/산불 피해",
        "회의를 열었습니다/의견을 밝혔습니다/토론을 벌였습니다/뜻을 굽히지 않았습니다",
    ),
    (
        "{0은} {1}에 {2}",
        "젊은 층/외국 기업/농민들/소비자/해녀들",
        "새 의료 제도/쓰레기 문제/교통 요금/해외 투자/쌀값 대책",
        "관심이 없다고 했다/크게 반대했다/제 몫을 요구했다",
    ),
    (
        "{0을} 두고 {1이} {2}",
        "새 의료 제도/쓰레기 문제/임금 협상/교통 요금/산불 피해",
        "국회/외교부/경찰/지방 의회/환경 단체",
        "왜 침묵했을까/의심을 받았다/사과했다",
    ),
)
_SCHOOL: tuple[_Shape, ...] = (
    (
        "{0은} {1을} {2}",
        "선생님/반장/옆자리 짝꿍/과학 교수/도서관 사서/전학생",
        "시/동화책/역사책/외국 소설/의학 논문/신문 사설",
        "소리 내어 읊었다/대충 훑어봤다/꼼꼼히 읽었다/베껴 썼다",
    ),
    (
        "쉬는 시간에 {0이} {1} 앉아 {2}",
        "선생님/반장/옆자리 짝꿍/전학생",
        "창가에/맨 끝에/계단에/나무 밑에",
        "얘기했어/그림을 그렸지/졸았대",
    ),
    ("{0} 숙제가 {1}", "수학/화학/체육/사회/한문", "하기 싫어/너무 많잖아/끝이 없어/꽤 쉬웠어"),
    (
        "얘들아 {0}에는 {1}",
        "내년/봄방학/다음 학기/여름 방학",
        "뭘 배울까/어디로 소풍 갈까/숙제가 없을까",
    ),
)
_KITCHEN: tuple[_Shape, ...] = (
    (
        "{0이} 끓인 {1은} {2}",
        "할머니/외삼촌/옆집 아저씨/큰언니/식당 주인",
        "된장찌개/돼지국밥/떡볶이/팥죽/칼국수/미역국",
        "진짜 맛있었다/좀 싱거웠어/꽤 매웠지",
    ),
    (
        "{0}에 {1을} {2}",
        "된장찌개/떡볶이/칼국수/미역국/콩나물밥",
        "삶은 감자/다진 마늘/들깻가루/얇은 무/꽃게",
        "넣으면 어떨까/같이 넣었더니 좋네/빼먹었구나",
    ),
    (
        "냉장고에 {0}밖에 없어서 {1을} 못 했어",
        "두부/깻잎/멸치/꿀/버섯/쌈장",
        "된장찌개/떡볶이/시금치나물/계란찜/칼국수",
    ),
    (
        "{0은} {1} {2}",
        "된장찌개/팥죽/돼지갈비/미역국/콩나물밥",
        "뚜껑을 덮고/물을 붓고/밑이 타기 전에",
        "젓는 게 비결이야/기다려야 해요/식혀서 먹는대",
    ),
)
_ERRANDS: tuple[_Shape, ...] = (
    (
        "{0}에서 {1을} {2}",
        "은행/우체국/치과/회사/시장 골목/박물관/예식장/기차역",
        "지갑/열쇠/외투/사진첩/왼쪽 장갑/표",
        "잃어버렸어/주웠는데요/두고 왔지 뭐야",
    ),
    (
        "{0} {1}까지 {2}",
        "버스를 타고/친구랑 같이/뛰다시피/길을 헤매다가",
        "은행/우체국/치과/회사/박물관/예식장/기차역",
        "갔다 왔습니다/걸었더니 힘들다/간 까닭이 뭐죠",
    ),
    (
        "웬일로 {0} 앞에 {1}",
        "은행/우체국/치과/회사/박물관/예식장/기차역",
        "사람이 없네/줄이 짧더라/꽃을 팔았어/눈꽃이 피었지",
    ),
    (
        "{0이} {1}인지 {2}",
        "은행/우체국/치과/회사/박물관/예식장",
        "몇 층/어느 쪽/왜 그쪽",
        "잊었어요/헷갈려/누가 알까",
    ),
)
_FAMILY: tuple[_Shape, ...] = (
    (
        "{0은} 요즘 {1을} {2}",
        "막내 이모/우리 아빠/외할아버지/새 며느리/작은형",
        "뜨개질/낚시/피아노/바둑/사진 찍기/우표 모으기",
        "무척 좋아해/아주 싫어해/그만뒀대",
    ),
    (
        "{0은} {1} {2이} {3}",
        "사촌 동생/쌍둥이 조카/막내 이모",
        "나중에/언젠가",
        "의사/기자/통역사/꽃집 주인/배우/소방관",
        "되겠대/될 리 없잖아/됐으면 해",
    ),
    (
        "{0이} {1} {2} 얘기를 {3}",
        "막내 이모/우리 아빠/사촌 동생/쌍둥이 조카/외할아버지/작은형",
        "값비싼/낡은/하얀/잃어버린",
        "강아지/의자/병아리/자전거/꽃병",
        "꺼냈다/또 했어/안 믿더라",
    ),
)
_TOPICS = (_WEATHER, _NEWS, _SCHOOL, _KITCHEN, _ERRANDS, _FAMILY)
_PARTICLES: dict[str, Callable[[str], str]] = {
    "을": with_object,
    "이": with_subject,
    "은": with_topic,
    "": str,
}
_PATIENCE = 5_000  # draws without a new sentence before the grammar counts as exhausted


def everyday_sentences(count: int, rng: random.Random) -> list[str]:
    """`count` distinct sentences, topics in turn.

    Raises:
        DataError: the grammar cannot give so many; every topic holds a few hundred.
    """
    found: dict[str, None] = {}
    stale = 0
    while len(found) < count:
        text = _sentence(rng.choice(_TOPICS[len(found) % len(_TOPICS)]), rng)
        stale = stale + 1 if text in found else 0
        found[text] = None
        if stale > _PATIENCE:
            raise DataError(
                f"corpus.ood_utterances asks for {count} everyday sentences",
                f"the grammar of tasks/data/everyday.py gave {len(found)}",
                "lower corpus.ood_utterances",
            )
    return list(found)


def _sentence(shape: _Shape, rng: random.Random) -> str:
    template, *slots = shape
    words = [rng.choice(slot.split("/")) for slot in slots]
    return re.sub(r"{(\d)(\w?)}", lambda found: _PARTICLES[found[2]](words[int(found[1])]), template)
