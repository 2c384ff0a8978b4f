"""Pseudo-words in twenty languages, none Korean: what the cross-lingual pre-training says. Pure, no
command.

A language is an inventory of onsets, vowels and codas in its own spelling; words are drawn from them, so
nobody's text is used. espeak-ng reads them by the language's own rules, which is where the variety of
sounds comes from.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tasks.errors import SettingsError


@dataclass(frozen=True)
class Spelling:
    """Onsets, vowels and codas, each a space-separated string; `codas_share` of the syllables are closed."""

    onsets: str
    vowels: str
    codas: str
    codas_share: float = 0.3


SPELLINGS: dict[str, Spelling] = {
    "es": Spelling(
        "b c ch d f g gu j l ll m n ñ p qu r rr s t v y z br cl dr pl tr gr",
        "a e i o u ie ue ai",
        "n r s l d z",
        0.3,
    ),
    "it": Spelling(
        "b c ch d f g gh gn gli l m n p qu r s sc t v z br cr pr st",
        "a e i o u ia io uo",
        "n r l s t m",
        0.25,
    ),
    "de": Spelling(
        "b d f g h j k l m n p r s sch st sp t w z pf bl gr schw",
        "a e i o u ä ö ü ei au eu ie",
        "n r l s t ch ck ng ft",
        0.3,
    ),
    "tr": Spelling(
        "b c ç d f g h j k l m n p r s ş t v y z",
        "a e ı i o ö u ü",
        "n r l k ş t m z p ç",
        0.45,
    ),
    "id": Spelling(
        "b c d g h j k l m n ny ng p r s t w y",
        "a e i o u ai au",
        "n ng k t p s r h m l",
        0.4,
    ),
    "fi": Spelling(
        "h j k l m n p r s t v d",
        "a e i o u y ä ö aa ii uu ää yö uo ei",
        "n s t l r kk tt pp",
        0.4,
    ),
    "pl": Spelling(
        "b c ć cz d dz dź f g h j k l ł m n ń p r rz s ś sz t w z ż ź szcz",
        "a e i o u y ą ę",
        "n ć k sz t m ł r",
        0.35,
    ),
    "en-us": Spelling(
        "b ch d f g h j k l m n p r s sh t th v w y z br st tr pl gr",
        "a e i o u ee oo ay ow ea ou",
        "n t d s m ng k l p th sh nd st",
        0.55,
    ),
    "sw": Spelling(
        "b ch d dh f g gh h j k l m n ng' ny p r s sh t th v w y z mb nd ng nj",
        "a e i o u",
        "m n",
        0.05,
    ),
    "hu": Spelling(
        "b c cs d f g gy h j k l m n ny p r s sz t ty v z zs",
        "a á e é i í o ó ö ő u ú ü ű",
        "n k t r l sz s gy m",
        0.4,
    ),
    "vi": Spelling(
        "b c ch d đ g h kh l m n ng nh ph qu r s t th tr v x",
        "a ă â e ê i o ô ơ u ư á à ả ạ ế ồ ươ iê uô",
        "n ng nh m t c ch p",
        0.5,
    ),
    "ro": Spelling(
        "b c ch d f g gh h j l m n p r s ș t ț v z br st",
        "a ă â e i o u ea oa ia",
        "n r l s t m c ț",
        0.35,
    ),
    "cs": Spelling(
        "b c č d ď f g h ch j k l m n ň p r ř s š t ť v z ž",
        "a á e é ě i í o u ů y ou",
        "n k t l m r š d",
        0.35,
    ),
    "ms": Spelling(
        "b c d g h j k l m n ny ng p r s t w y sy",
        "a e i o u ai au",
        "n ng k t p s r h m",
        0.4,
    ),
    "sv": Spelling(
        "b d f g h j k l m n p r s sj sk sch t tj v st br",
        "a e i o u y å ä ö",
        "n r l s t k ng m d",
        0.45,
    ),
    "hi": Spelling(
        "क ख ग घ च छ ज झ ट ठ ड ढ त थ द ध न प फ ब भ म य र ल व श स ह",
        "ा ि ी ु ू े ै ो ौ",
        "न म र ल त क स प",
        0.3,
    ),
    "hy": Spelling(
        "բ գ դ զ թ ժ լ խ ծ կ հ ձ ղ ճ մ յ ն շ չ պ ջ ռ ս վ տ ր ց փ ք ֆ",
        "ա ե ի ո ու է",
        "ն ր լ ս կ տ ք մ ց",
        0.4,
    ),
    "ka": Spelling(
        "ბ გ დ ვ ზ თ კ ლ მ ნ პ ჟ რ ს ტ ფ ქ ღ ყ შ ჩ ც ძ წ ჭ ხ ჯ ჰ",
        "ა ე ი ო უ",
        "ნ რ ლ ს მ თ კ",
        0.3,
    ),
    "eu": Spelling(
        "b d f g h j k l m n ñ p r s t tx ts tz x z",
        "a e i o u ai au ei",
        "n k t r l s tz z",
        0.35,
    ),
    "ja": Spelling(
        "",
        (
            "あ い う え お か き く け こ が ぎ ぐ げ ご さ し す せ そ ざ じ ず た "
            "ち つ て と だ で ど な に ぬ ね の は ひ ふ へ ほ ば び ぶ べ ぼ ぱ ぴ "
            "ぷ ぺ ぽ ま み む め も や ゆ よ ら り る れ ろ わ きゃ しょ ちゃ じゅ りょ"
        ),
        "ん っ",
        0.2,
    ),
}
# Heads of a final consonant that cannot end a word of its language.
_NEVER_FINAL = ("っ",)


def check_languages(languages: tuple[str, ...]) -> None:
    """Raises `SettingsError` for Korean (the point is that the encoder has not heard it) or a language
    unknown here.
    """
    problems = [
        f"pretrain.languages has {language!r}: "
        + (
            "Korean is left out on purpose"
            if language.startswith("ko")
            else f"must be one of {', '.join(SPELLINGS)}"
        )
        for language in languages
        if language not in SPELLINGS
    ]
    if problems:
        raise SettingsError("params.yaml", problems, "correct pretrain.languages")


def pseudo_sentence(language: str, rng: random.Random, min_words: int = 1, max_words: int = 5) -> str:
    """One to five pseudo-words of one to four syllables."""
    spelling = SPELLINGS[language]
    onsets, vowels, codas = spelling.onsets.split() or [""], spelling.vowels.split(), spelling.codas.split()
    words = []
    for _ in range(rng.randint(min_words, max_words)):
        word = ""
        count = rng.choices((1, 2, 3, 4), weights=(1, 4, 4, 2))[0]
        for syllable in range(count):
            onset = (
                ""
                if syllable == 0 and rng.random() < 0.15 and language not in ("hi",)
                else rng.choice(onsets)
            )
            coda = rng.choice(codas) if rng.random() < spelling.codas_share else ""
            if syllable == count - 1 and coda in _NEVER_FINAL:
                coda = ""
            word += onset + rng.choice(vowels) + coda
        words.append(word)
    return " ".join(words)
