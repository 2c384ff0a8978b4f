"""The Hanja of KS X 1001 and their readings: 4,888 characters in the order of the standard. A table.

`READINGS` says for each reading how many characters it has ("가29각11": the first 29 are read 가, the next 11
각); `characters` gives them in that order, which Python's codec `euc_kr` knows. The table is made from the
field kHangul of the Unihan database by `tasks.data.hanja_table`, which also says where to get that.

The readings are Unicode data, changed in form (counted, and only those of KS X 1001), under this licence:

    Copyright © 1991-2022 Unicode, Inc. All rights reserved.
    Distributed under the Terms of Use in https://www.unicode.org/copyright.html.

    Permission is hereby granted, free of charge, to any person obtaining a copy of the Unicode data files and
    any associated documentation (the "Data Files") or Unicode software and any associated documentation (the
    "Software") to deal in the Data Files or Software without restriction, including without limitation the
    rights to use, copy, modify, merge, publish, distribute, and/or sell copies of the Data Files or Software,
    and to permit persons to whom the Data Files or Software are furnished to do so, provided that either (a)
    this copyright and permission notice appear with all copies of the Data Files or Software, or (b) this
    copyright and permission notice appear in associated Documentation.

    THE DATA FILES AND SOFTWARE ARE PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
    INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
    NONINFRINGEMENT OF THIRD PARTY RIGHTS. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR HOLDERS INCLUDED IN THIS
    NOTICE BE LIABLE FOR ANY CLAIM, OR ANY SPECIAL INDIRECT OR CONSEQUENTIAL DAMAGES, OR ANY DAMAGES
    WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR
    OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THE DATA FILES OR
    SOFTWARE.

    Except as contained in this notice, the name of a copyright holder shall not be used in advertising or
    otherwise to promote the sale, use or other dealings in these Data Files or Software without prior written
    authorization of the copyright holder.
"""

from __future__ import annotations

_ROWS = range(0xCA, 0xFE)  # lead bytes of the Hanja in EUC-KR
_COLUMNS = range(0xA1, 0xFF)


def characters() -> list[str]:
    """The Hanja of KS X 1001 in its order; 268 of them are compatibility ideographs."""
    return [bytes((row, column)).decode("euc_kr") for row in _ROWS for column in _COLUMNS]


# made by tasks.data.hanja_table; of Unihan_Readings.txt:
UNIHAN = "15.0.0"
SHA256 = "7f4b628de153e639e5100fe3aa46e8869e332d6f9ed8acff5f3790642d7046c1"
READINGS = (
    "가29각11간24갈10감20갑6강24개20객2갱4갹1거17건12걸4검7겁3게3격7견11결6겸6경45계24고39곡7곤10골3공16곶1과12곽4관17괄4광13괘3괴9"
    "굉4교25구54국6군6굴4궁6권10궐5궤6귀6규15균7귤1극7근15글1금14급7긍4기64긴1길4김1끽1나15낙8난9날2남9납5낭7내6냉1녀1년3념4녕2노18녹6"
    "논1농7뇌6뇨1누8눈1눌1뉴2늑2늠1능6니2닉2다2단20달5담17답5당11대16댁1덕2도40독10돈10돌2동17두11둔6득1등9라9락9란9랄2람10랍3랑8래4랭1"
    "략2량13려18력7련12렬6렴5렵1령18례5로18록7론1롱7뢰8료12룡1루13류14륙3륜6률4륭1륵2름1릉6리26린9림5립4마8막6만19말7망12매14맥5맹6멱2"
    "면11멸2명15몌1모24목7몰2몽3묘12무22묵2문12물3미19민13밀3박19반25발11방28배20백8번10벌4범9법2벽11변7별4병17보16복17본1볼1봉16"
    "부43북1분19불5붕6비43빈14빙4사60삭4산12살5삼8삽4상31새3색5생5서30석15선32설13섬8섭4성18세9소37속9손6솔1송8쇄5쇠2수61숙12순27술4"
    "숭3슬3습5승10시28식15신24실4심10십3쌍1씨1아18악14안10알4암8압4앙7애11액7앵4야11약9양31어10억5언6얼2엄6업2엔1여24역13연43열10"
    "염15엽4영40예24오30옥5온6올1옹9와8완18왈1왕5왜4외5요38욕6용24우32욱9운13울3웅2원27월3위25유56육7윤13율5융5은7을1음6읍3응4의19"
    "이38익8인24일9임11입5잉4자26작13잔5잠6잡1장37재17쟁4저28적25전41절8점9접3정55제23조46족4존2졸3종17좌5죄1주40죽2준19줄1중4즉1즐1"
    "즙3증11지34직5진35질15짐2집7징3차15착7찬15찰5참10창22채12책4처4척15천19철10첨10첩10청8체10초27촉6촌4총10촬1최3추23축12춘3출3"
    "충6췌4취14측5층1치24칙3친1칠3침9칩1칭2쾌1타14탁16탄10탈2탐4탑3탕5태14택3탱1터1토4통7퇴6투6특2틈1파16판9팔3패11팽4퍅1편10폄1평5"
    "폐10포28폭6표14품2풍5피7필10핍2하14학5한14할2함12합7항17해18핵2행5향9허4헌4헐1험2혁4현21혈4혐1협12형20혜9호41혹3혼6홀3홍10화14"
    "확6환17활5황24회20획2횡3효13후13훈10훙1훤4훼3휘8휴5휼3흉5흑1흔4흘4흠3흡4흥1희20힐1"
)
