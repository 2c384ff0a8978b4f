"""Where a mark may begin: one pattern over a transcript, of which each group is a kind of mark. No function.

What each kind means, and whether what was found is a mark at all (3/4, 1+1 and A/S are none), says
`tasks.data.transcripts.reader`, whose methods bear the names of the groups.
"""

from __future__ import annotations

import re

from tasks.data.transcripts import conventions as table

FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord(c): to
    for c, to in {
        "〜": "~",
        "∼": "~",
        "∕": "/",
        "⁄": "/",
        "\u3000": " ",
        "\xa0": " ",
        "≪": "《",
        "≫": "》",
    }.items()
}
PLAIN = re.compile(r"[가-힣\u4e00-\u9fff0-9\s.,?!'\"…·]*")
_OPEN, _CLOSE = (
    "".join(re.escape(c) for c in found if c not in "<>")
    for found in (table.BRACKETS, table.BRACKETS.values())
)
_END = r"(?=$|[\s.,?!…)\]}]|[blnouBLNOU]/)"
MARKS = re.compile(
    rf"""
      (?P<cue>\d{{1,2}}:\d\d:\d\d[.,]\d{{1,3}}\s*-->\s*\d{{1,2}}:\d\d:\d\d[.,]\d{{1,3}})
    | (?P<stamp>(?<![\d:.,])\d{{1,2}}:\d\d:\d\d(?:[.,]\d{{1,3}})?(?![\d:]))
    | (?P<token><\|[^|<>]*\|>)
    | (?P<entity>&(?:\#\d+|\#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);)
    | (?P<ampersand>(?<![A-Za-z0-9])&[A-Za-z가-힣][A-Za-z가-힣0-9_ -]{{0,30}}&(?![A-Za-z0-9]))
    | (?P<hash>\#@시스템\#[^#@\n]{{1,20}}\#|\#@[^#@\n]{{1,20}}\#|\#[^\s#@]{{1,20}}\#)
    | (?P<at>(?<![A-Za-z0-9._])@(?P<at_word>[가-힣]+|[A-Za-z_-]+)?\d*|@(?![A-Za-z0-9]))
    | (?P<wrapped>(?<!\S)(?P<by>[{re.escape(table.WRAPS)}]{{1,2}})
        (?P<wrapped_word>[^\s*_=|:^~$+\#]{{1,20}})(?P=by)(?!\S))
    | (?P<stars>\*{{2,}})
    | (?P<placeholder>[{table.PLACEHOLDERS}]+|_{{2,}}|×{{2,}}|(?<=[가-힣])×
        |(?<![A-Za-z])(?:O{{2,}}|X{{2,}})(?![A-Za-z])
        |(?<=[가-힣])[OX](?=[가-힣]))
    | (?P<unclear>(?<![A-Za-z0-9])x{{2,}}(?![A-Za-z])|(?<=[가-힣])x(?![A-Za-z0-9])
        |(?<!\S)(?<!\d\s)x(?!\S)(?!\s\d)|(?<!\S)UNK(?!\S))
    | (?P<code>(?<![A-Za-z])(?P<code_of>{"|".join(table.CODES)}):(?P<code_word>[가-힣]*)(?!\s?\d))
    | (?P<label>(?<!\S)(?P<label_word>(?:{table.SPEAKERS})(?:\s?[0-9A-Z]{{1,3}})?(?=\s?:)
        |[가-힣]{{1,10}}|[A-Za-z]{{1,20}}\d{{0,2}}|\d{{1,2}})\s?:(?=\s|[가-힣]))
    | (?P<noise>(?<![A-Za-z0-9])(?:[blnouBLNOU]/)+(?![A-Za-z0-9]))
    | (?P<before>(?<![^\s가-힣])/[blnouBLNOU](?=$|[\s.,?!…]))
    | (?P<filler>(?<![가-힣A-Za-z0-9])(?P<filler_word>[가-힣]+)[~+*]*/{_END})
    | (?P<dashes>(?<![가-힣A-Za-z0-9-])-(?P<dash_word>[가-힣]+)[~+*]*-(?![A-Za-z0-9-]))
    | (?P<percent>(?<![\w%)])(?<!\d\s)%(?P<percent_word>[A-Za-z]+|[가-힣]+))
    | (?P<plus>(?<=[가-힣)\]}}~*])\++(?!\d))
    | (?P<star>(?<=[가-힣)\]}}~+])\*|(?<!\S)(?<!\d\s)\*(?=\s|$|[가-힣]))
    | (?P<longer>(?<=[가-힣]):{{2,}})
    | (?P<escape>\\[nrt](?![A-Za-z0-9]))
    | (?P<tilde>(?<=[가-힣)\]}}+*])~+(?![가-힣\d]))
    | (?P<music>[{table.MUSIC}]+)
    | (?P<phone>(?<!\S)(?:{table.TOKENS})(?!\S))
    | (?P<slashed>(?<!\S)(?:[A-Za-z]{{1,12}}/|/[A-Za-z]{{2,12}}|[blnou]\s/(?!\s?[A-Za-z]))(?!\S))
    | (?P<hashed>(?<!\S)\#[가-힣A-Za-z]{{1,12}}(?!\S))
    | (?P<turn>(?<!\S)>{{2,}})
    | (?P<pause>(?<![:/\S])/{{2,}}(?!\S))
    | (?P<particle>(?<=[가-힣])(?:을\(를\)|를\(을\)|은\(는\)|는\(은\)|이\(가\)|와\(과\))(?![가-힣])
        |(?<=[가-힣])\((?:으\)(?=로|면|니|러|려|며|므로)|이\)(?=나|라|란|랑|며|고|든|여|야|었|지만)))
    | (?P<numbered>(?:(?<=^\d)|(?<=^\d\d)|(?<=\s\d)|(?<=\s\d\d))\)(?=\s))
    | (?P<event>/\s?\((?P<event_word>[^()/]*)\))
    | (?P<open>[{_OPEN}])
    | (?P<tag></?[^<>\s][^<>]*>)
    | (?P<loose>[{_CLOSE}]|<(?=[/A-Za-z가-힣])|≫|≪)
    """,
    re.VERBOSE,
)
