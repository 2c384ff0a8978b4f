"""Words of the built-in pre-training documents, with their English. Data only.

None of them is a value of the built-in example's tools (`tasks.data.vocabulary`): no room, device, door,
day, city, genre or item of the commands that the gate tests with stands here.
"""

from __future__ import annotations


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Korean and English of "한국어=English/…"."""
    pairs = (pair.strip().partition("=") for pair in text.split("/"))
    return tuple((korean, english) for korean, _, english in pairs)


SWITCHED = _pairs(
    "환풍기=extractor fan/정수기=water purifier/전자레인지=microwave/인덕션=induction hob/"
    "다리미=iron/프린터=printer/복사기=copier/스캐너=scanner/빔프로젝터=projector/모니터=monitor/"
    "노트북=laptop/태블릿=tablet/블랙박스=dashboard camera/전조등=headlights/비상등=hazard lights/"
    "안개등=fog lights/와이퍼=wipers/열선시트=seat heater/공유기=router/손전등=torch/카메라=camera/"
    "마이크=microphone/녹음기=recorder/분수=fountain/펌프=pump/수조 여과기=aquarium filter/"
    "온풍기=fan heater/제습기=dehumidifier/안마의자=massage chair/족욕기=foot bath/믹서기=blender/"
    "토스터=toaster/밥솥=rice cooker/식기세척기=dishwasher/드라이어=hair dryer/가로등=street lamp/"
    "간판=shop sign/스프링클러=sprinkler/에스컬레이터=escalator/러닝머신=treadmill/"
    "재봉틀=sewing machine/발전기=generator/컨베이어=conveyor/크레인=crane/탈곡기=thresher/"
    "재생기=player/냉동고=freezer/제빙기=ice maker/살균기=steriliser/공기펌프=air pump/"
    "전기자전거=electric bicycle/현미경=microscope/계산기=calculator/전동칫솔=electric toothbrush/"
    "무드램프=mood lamp/촛대=candelabrum/서버=server/방송장비=broadcast gear/경광등=warning beacon/"
    "온실 히터=greenhouse heater/난로=stove/비데=bidet/키보드=keyboard/게임기=game console/"
    "셋톱박스=set-top box/인터폰=intercom/도어벨=doorbell"
)
WIRELESS = _pairs(
    "와이파이=Wi-Fi/블루투스=Bluetooth/비행기모드=flight mode/알림=notifications/진동=vibration/"
    "위치추적=location/자동저장=autosave/절전모드=power saving/핫스팟=hotspot/자막=subtitles/"
    "음성안내=voice guidance/방해금지=do not disturb/자동응답=auto reply/동기화=syncing/"
    "맞춤법검사=spell check"
)
HINGED = _pairs(
    "창문=window/서랍=drawer/뚜껑=lid/트렁크=boot/선루프=sunroof/옷장=wardrobe/냉장고=fridge/"
    "궤짝=chest/우체통=letterbox/지퍼=zip/가방=bag/수문=sluice/밸브=valve/비상구=emergency exit/"
    "온실 천창=skylight/보닛=bonnet/주유구=fuel cap/울타리=fence gate/새장=birdcage/"
    "보석함=jewel case/필통=pencil case/봉투=envelope/정문=main gate/쪽문=wicket gate/"
    "교실 문=classroom door/차 문=car door/엘리베이터 문=lift door"
)
DRAPED = _pairs(
    "천막=awning/장막=drape/휘장=hanging/모기장=mosquito net/가림막=screen/무대막=stage curtain/발=reed blind"
)
RISING = _pairs(
    "셔터=shutter/차단막=barrier/롤스크린=roll screen/덧창=storm shutter/차양=sunshade/차단기=boom gate"
)
FOLDED = _pairs(
    "우산=umbrella/파라솔=parasol/부채=fan/지도=map/접이식의자=folding chair/유모차=pram/텐트=tent/"
    "돗자리=mat/병풍=folding screen/사다리=ladder/신문=newspaper/날개=wing"
)
LOCKED = _pairs(
    "금고=safe/자물쇠=padlock/사물함=locker/자동차=car/자전거=bicycle/화면=screen/계정=account/"
    "휴대폰=phone/창고=storeroom/수갑=handcuffs/서류함=filing cabinet/우리=cage/연구실=laboratory/"
    "교실=classroom/기숙사=dormitory/철문=iron gate/옥상문=roof door/사무실문=office door/"
    "뒷문=back door"
)
QUANTITIES = _pairs(
    "속도=speed/압력=pressure/높이=height/수위=water level/각도=angle/강도=intensity/"
    "글자 크기=font size/화질=picture quality/난이도=difficulty/배율=zoom/주파수=frequency/"
    "가격=price/농도=concentration/화력=heat/수압=water pressure/목소리=voice/벨소리=ringtone/"
    "효과음=sound effects/방송 음성=announcement/경적=horn/전압=voltage/회전수=revolutions/"
    "물살=current/채도=saturation/대비=contrast/감도=sensitivity/할인율=discount/월급=wages/"
    "목표=target/등받이=backrest"
)
PLACES = _pairs(
    "사무실=office/회의실=meeting room/교실=classroom/도서관=library/주차장=car park/옥상=roof/"
    "지하실=basement/창고=storeroom/온실=greenhouse/강당=hall/체육관=gym/식당=canteen/복도=corridor/"
    "실험실=laboratory/공장=factory/농장=farm/마당=yard/무대=stage/병실=ward/수영장=pool/매장=shop/"
    "객실=guest room/갑판=deck/차고=garage"
)
MEASURES = (  # quantity, unit as written after a number, particle after the unit, largest value, English
    ("러닝머신 속도", "킬로미터", "로", 20, "treadmill speed"),
    ("타이어 압력", "바", "로", 60, "tyre pressure"),
    ("책상 높이", "센티미터", "로", 120, "desk height"),
    ("수조 수온", "도", "로", 40, "aquarium temperature"),
    ("가마 열기", "도", "로", 990, "kiln heat"),
    ("화면 배율", "퍼센트", "로", 400, "zoom"),
    ("글자 크기", "포인트", "로", 72, "font size"),
    ("믹서기 세기", "단", "으로", 9, "blender speed"),
    ("안마 강도", "단계", "로", 9, "massage strength"),
    ("등받이 각도", "도", "로", 90, "backrest angle"),
    ("기어", "단", "으로", 8, "gear"),
    ("주파수", "헤르츠", "로", 900, "frequency"),
    ("할인율", "퍼센트", "로", 90, "discount"),
    ("목표 체중", "킬로그램", "으로", 99, "target weight"),
    ("자막 지연", "초", "로", 30, "subtitle delay"),
    ("노출", "초", "로", 60, "exposure"),
    ("습식 사우나", "도", "로", 90, "steam room"),
    ("충전 한도", "퍼센트", "로", 100, "charging limit"),
    ("벨소리 크기", "퍼센트", "로", 100, "ringtone level"),
    ("방송 음성 크기", "퍼센트", "로", 100, "announcement level"),
    ("무드램프 세기", "퍼센트", "로", 100, "mood lamp level"),
    ("가로등 세기", "퍼센트", "로", 100, "street lamp level"),
    ("난로 온기", "도", "로", 45, "stove warmth"),
    ("온실 히터", "도", "로", 35, "greenhouse heater"),
)
DISHES = _pairs(
    "짜장면=jajangmyeon/비빔밥=bibimbap/냉면=cold noodles/김밥=gimbap/만두=dumplings/"
    "갈비탕=short rib soup/떡국=rice cake soup/커피=coffee/녹차=green tea/식혜=sikhye/"
    "막걸리=makgeolli/불고기=bulgogi/순대=sundae/삼겹살=pork belly/국밥=soup with rice/죽=porridge/"
    "빵=bread/수박=watermelon/딸기=strawberries/귤=tangerines/고등어=mackerel/오징어=squid/"
    "배추=cabbage/장미=roses/연필=pencils/공책=notebooks/양말=socks/운동화=trainers/우표=stamps/"
    "엽서=postcards/못=nails/벽돌=bricks"
)
COUNTERS = (
    "그릇",
    "잔",
    "접시",
    "인분",
    "줄",
    "조각",
    "마리",
    "권",
    "장",
    "자루",
    "켤레",
    "송이",
    "다발",
    "캔",
    "컵",
    "포대",
)
BASKETS = _pairs(
    "주문서=order form/견적서=quotation/재고표=stock list/준비물 목록=packing list/급식표=meal plan/"
    "배달 목록=delivery list"
)
TOPICS = _pairs(
    "환율=exchange rate/주가=share price/교통상황=traffic/파도=waves/영업시간=opening hours/"
    "대기시간=waiting time/시차=time difference/물가=prices/자외선=ultraviolet/꽃가루=pollen/"
    "적설량=snow depth/조류=tide/인구=population/통행료=toll/축제 일정=festival dates"
)
TOWNS = _pairs(
    "도쿄=Tokyo/파리=Paris/런던=London/뉴욕=New York/베를린=Berlin/하노이=Hanoi/시드니=Sydney/"
    "카이로=Cairo/로마=Rome/강릉=Gangneung/속초=Sokcho/여수=Yeosu/경주=Gyeongju/목포=Mokpo/"
    "춘천=Chuncheon/전주=Jeonju/포항=Pohang/안동=Andong/울릉도=Ulleungdo/독도=Dokdo/남해=Namhae/"
    "통영=Tongyeong/군산=Gunsan/원주=Wonju"
)
DATES = _pairs(
    "글피=three days from now/그저께=the day before yesterday/다음주=next week/"
    "이달말=the end of the month/연말=the end of the year/새해=the new year/설날=Seollal/"
    "추석=Chuseok/어린이날=Children's Day/개학날=the first day of school/봄방학=spring break/"
    "장날=market day/어제=yesterday/한가위=the harvest festival/초하루=the first of the month/"
    "보름=full moon"
)
EVENTS = _pairs(
    "치과=dentist/미용실=hairdresser/회의=meeting/면접=interview/수업=lesson/공연=show/기차=train/"
    "비행기=flight/회식=company dinner/상담=consultation/검진=check-up/세미나=seminar/연습=practice/"
    "약 먹기=medicine/산책=walk/빨래=laundry/청소=cleaning/물 주기=watering/기도=prayer/낮잠=nap/"
    "운동=exercise/출발=departure/환기=airing"
)
FLOORS = ("층", "쪽", "번 출구", "호실", "페이지", "번 문제", "번 트랙", "번 버스", "장")
SURNAMES = "김이박최정강조윤장임한오서신권황안송류홍"
SYLLABLES = (
    "가나다라마바사아자차카타파하거너더러머버서어저처고노도로모보소오조초코토포호구누두루무부수우주추쿠투푸후"
    "기니디리미비시이지치키티피히개내대래매배새애재채해게네데레메베세에제체간난단란만반산안잔찬한건넌던런먼번선언전천"
    "곤논돈론몬본손온존촌군눈둔룬문분순운준춘훈긴닌딘린민빈신인진친강낭당랑망방상앙장창항경녕명병성영정청형공농동롱몽봉송옹종총홍"
    "각낙닥락막박삭악작착국눅둑룩묵북숙욱죽축혹갈날달말발살알잘찰할걸널덜설얼절철골놀돌몰볼솔올졸굴눌둘물불술울줄"
    "감남담람맘밤삼암잠참함곰놈돔봄솜옴좀춤품흠갑납답랍맙밥삽압잡찹합길닐딜릴밀빌실일질칠필힐여야유요혜희효휘"
)
