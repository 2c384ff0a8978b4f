"""The table of `marks-1`: what transcribers of Korean corpora write beside the words. No function reads text.

KsponSpeech and the AI-Hub sets that follow its rules (ETRI: `b/`, `어/`, `그+`, `단어*`,
`(3개)/(세 개)`), the everyday conversations of the National Institute of Korean Language (`{laughing}`,
`((xx))`, `&name1&`, `-그-`), newer AI-Hub sets (`(SP:)`, `(FP:음)`, `@웃음`, `#@이름#`, `/(noise)`),
subtitles and the tags of recognisers. An id never changes its meaning: another table is `marks-2`.
`tasks.data.transcripts.marks` applies it.
"""

from __future__ import annotations

MARKS_ID = "marks-1"

# Why a row is set aside, and what the validation report says of it.
UNKNOWN, ANONYMISED, UNCLEAR, UNCERTAIN = (
    "unknown_mark",
    "anonymised_name",
    "unclear_speech",
    "uncertain_transcription",
)
REASONS = {
    UNKNOWN: "no mark of the transcript is unknown to corpus.marks (docs/reference/marks.md)",
    ANONYMISED: "no name in the transcript is replaced by a mark: the text would not say what is heard",
    UNCLEAR: "nothing in the recording is marked as not understood",
    UNCERTAIN: "no word of the transcript is marked as a guess",
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Sounds that are no words; compared in small letters, without spaces and a final 소리.
EVENTS = _words(
    "웃음 웃는 웃으며 웃으면서 코웃음 비웃음 박수 박수갈채 기침 헛기침 재채기 한숨 탄식 침묵 정적 무음 "
    "묵음 휴지 쉼 노래 음악 배경음악 배경음 효과음 음향효과 잡음 소음 노이즈 기계음 전자음 호흡 숨 들숨 "
    "날숨 심호흡 목청 목가다듬기 목가다듬음 하품 환호 환호성 함성 야유 울음 우는 흐느낌 흐느끼며 훌쩍 "
    "훌쩍임 휘파람 콧노래 허밍 딸꾹질 트림 코골이 비명 벨 전화벨 초인종 알림음 신호음 연결음 통화음 경적 "
    "사이렌 클릭 마찰음 연주 반주 간주 전주 노크 noise noises laugh laughs laughter laughing chuckle "
    "chuckles giggle giggles cough coughs coughing breath breaths breathe breathes breathing inhale "
    "inhales exhale exhales sigh sighs sighing gasp gasps sniff sniffs sniffle silence silent sil sp spn "
    "nsn eps music musics bgm song singing sings sing instrumental jingle applause applauding applausing "
    "clap claps clapping clearing clears throat-clearing throat lipsmack lip-smack smack click clicks "
    "static hum humming hums whistle whistling sneeze sneezes sneezing yawn yawns yawning cry cries "
    "crying sob sobs sobbing scream screams screaming cheer cheers cheering ring rings ringing bell "
    "doorbell knock knocks knocking footsteps footstep typing keyboard mic microphone wind rain engine "
    "horn siren pause sfx fx nospeech no-speech non-speech blank_audio hiccup burp snore snoring groan "
    "groans moan swallow dtmf brth"
)
# With an event they are part of its name ("short pause", "배경 음악"); alone they name nothing.
MODIFIERS = _words(
    "background sound sounds effect effects audio short long loud soft quiet audience crowd phone door "
    "human speaker vocal start end playing plays of the and 배경 주변 생활 소리 큰 작은 긴 짧은 짧게 길게 "
    "크게 작게 및 후 중 관객 관중 청중 모두 화자"
)
# What stands for a name or number that must not be read: the recording is beeped, cut or says the real one.
ANONYMOUS = _words(
    "이름 성명 성함 인명 인물 사람이름 사람 상호 상호명 회사 회사명 업체 업체명 기업명 브랜드 상표 상품명 "
    "제품명 전화 전화번호 전번 휴대폰번호 연락처 번호 주소 주민번호 주민등록번호 카드 카드번호 계좌 "
    "계좌번호 생년월일 생일 이메일 메일 계정 아이디 비밀번호 소속 신원 금융 기타 정당 정당명 장소 장소명 "
    "지명 지역 지역명 위치 학교 학교명 기관 기관명 단체 단체명 건물명 차량번호 나이 여권번호 면허번호 "
    "사업자번호 비식별 비식별화 익명 개인정보 가명 삐 삐처리 비프 비프음 묵음처리 시스템 url URL 이모티콘 "
    "name names person per people company company-name org organization organisation affiliation tel "
    "tel-num phone-num phone_number phone-number number num card card-num social-security-num address "
    "addr account account-num email e-mail place location loc city school age date-of-birth birth id "
    "other others etc pii redacted anonymised anonymized anonymous deidentified de-identified masked "
    "censored bleep beep beeped"
)
UNCLEAR_WORDS = _words(
    "불분명 불명 불명확 불확실 안들림 잘안들림 들리지않음 알아들을수없음 알수없음 청취불가 청취불능 "
    "전사불가 전사불능 미상 판독불가 겹침 말겹침 발화겹침 중첩 동시발화 타인발화 ? ?? ??? unk <unk> "
    "unknown unintelligible inaudible unclear indistinct incomprehensible crosstalk overlap overlapping "
    "foreign gibberish mumble mumbles mumbling"
)
FILLERS = _words(
    "어 아 음 그 저 뭐 막 이제 인제 에 으 응 엄 흠 허 하 오 우 와 이 네 예 자 좀 그냥 그니까 그러니까 "
    "그까 근데 뭐지 뭐야 뭐랄까 저기 약간 글쎄 있잖아 거시기 뭔가 아니 진짜 이렇게 그렇게 그러면 그럼 "
    "그래서 그래가지고 이런 저런 그런 요 인자 이게 그게"
)
LATIN_FILLERS = _words("uh um er eh ah hm hmm mm mhm huh oh uhm umm ehm")
PARTICLES = _words(
    "이 가 은 는 을 를 도 에 의 로 으로 와 과 랑 이랑 만 까지 부터 에서 에게 한테 께 나 이나 든 든지 라 "
    "이라 라고 이라고 라는 이라는 야 이야 요 이요 예요 이에요 입니다 인데 이고 고 면 이면 처럼 보다 마다 "
    "밖에 조차 마저 들 들이 들을 들은 하고"
)
TERMS = _words("idiom term 용어 전문용어 관용어 관용구")  # the other side of `(말)/(idiom)` is what is said
CODES = ("SP", "FP", "SN", "NO", "NR", "BR", "LG", "LA")
NAMES = ("LG", "LA")  # of these, outside brackets
SOUND_CODES = frozenset({"SN", "NO", "NR", "BR"})  # what follows describes the sound, whatever it says
INLINE_TAGS = _words("b i u em strong font span c v lang ruby rt rb big small sup sub mark s a tt code q")
BREAKING_TAGS = _words("br p div li ul ol pad eps")
SPEAKERS = (
    "화자|발화자|참석자|참가자|참여자|진행자|사회자|상담원|상담사|고객|손님|점원|직원|의사|환자|간호사|"
    "기자|앵커|아나운서|리포터|질문자|답변자|면접관|지원자|남성|여성|남자|여자|남|여|"
    "speaker|spkr|spk|interviewer|interviewee|host|guest|agent|customer"
)

# Bare words of recognisers; in small letters only the short ones, which are no words of any language.
TOKENS = "sp|sil|spn|nsn|eps|!?(?:SIL|SPN|NSN|EPS|NOISE|SPOKEN_NOISE|LAUGH|LAUGHTER|BREATH|COUGH|NSPK)"
WRAPS = "*_=|:^~$+#"  # *웃음*, :laughing:, ++NOISE++

BRACKETS = dict(
    zip(
        "([{<「『【〈《〔〖〘〚⟦⟨⟪⟬⟮⦅⦇❨❪❬❮❰❲❴«‹≪｢〈༺༼᚛⁅⁽₍⌈⌊⟅⦃⦉⦋⦍⦏⦑⦓⦕⦗⧘⧚⧼⸢⸤⸦⸨︗︵︷︹︻︽︿﹁﹃﹇﹙﹛﹝｟﴾",
        ")]}>」』】〉》〕〗〙〛⟧⟩⟫⟭⟯⦆⦈❩❫❭❯❱❳❵»›≫｣〉༻༽᚜⁆⁾₎⌉⌋⟆⦄⦊⦌⦎⦐⦒⦔⦖⦘⧙⧛⧽⸣⸥⸧⸩︘︶︸︺︼︾﹀﹂﹄﹈﹚﹜﹞｠﴿",
        strict=True,
    )
)
"""Opening bracket to its closing one; full-width forms are folded to these before."""

TITLES = (
    "「『《〈≪｢«‹﹁﹃︽︿"  # they quote titles and names: punctuation, unless a known mark stands in them
)
AFTER_CONSONANT = {
    "을(를)": "을",
    "를(을)": "을",
    "은(는)": "은",
    "는(은)": "은",
    "이(가)": "이",
    "와(과)": "과",
}
AFTER_VOWEL = {"을(를)": "를", "를(을)": "를", "은(는)": "는", "는(은)": "는", "와(과)": "와"}

MUSIC = "♩♪♫♬♭♮♯🎵🎶🎼🎤"
PLACEHOLDERS = "○◯〇●△▲▽▼□■◇◆◎⊙☐◻◼⬜⬛"
