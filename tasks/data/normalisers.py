"""The chosen chain of text normalisers, applied: what is trained on, scored against and validated. Pure.

`tasks.data.chains` says which steps a chain has; here stand the functions. Every step is a pure function of
the text and leaves what it does not know as it is. Spoken numbers to digits, the other way, is
`tasks.data.text.inverse_normalise`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import partial

from tasks.data import text as plain
from tasks.data.chains import steps_of
from tasks.data.hanja import read_hanja
from tasks.data.latin import read_latin
from tasks.data.read_out import read_numbers


def compose(text: str) -> str:
    """NFC: letters and marks composed (step `nfc-1`). Never NFKC or NFKD."""
    return unicodedata.normalize("NFC", text)


STEPS: dict[str, Callable[[str], str]] = {
    "nfc-1": compose,
    "punctuation-1": plain.normalise,
    "hanja-1": partial(read_hanja, version=1),
    "hanja-2": read_hanja,
    "numbers-1": read_numbers,
    "latin-1": read_latin,
}
"""Every step of every chain, by name and version."""


def normalise(text: str, chain: str = plain.NORMALISER_ID) -> str:
    """The text after every step of the chain. Applied to its own result it changes nothing.

    Raises:
        DataError: there is no chain of this id.
    """
    for step in steps_of(chain):
        text = STEPS[step](text)
    return text
