"""The chains of text normalisers by their id: which steps, in which version, in which order. A table.

An id never changes its meaning. A step that returns something else for any text is a new version of the
step ("numbers-2"), and a chain with it is a new id. The functions of the steps are in
`tasks.data.normalisers`; this table imports nothing, so that every artifact can name the steps.
"""

from __future__ import annotations

from tasks.errors import DataError

CHAINS: dict[str, tuple[str, ...]] = {
    "ko-1": ("nfc-1", "punctuation-1"),
    # Hanja before NFC: NFC forgets which of its readings a compatibility ideograph stands for.
    "ko-2": ("hanja-1", "nfc-1", "numbers-1", "latin-1", "punctuation-1"),
    "ko-3": ("hanja-2", "nfc-1", "numbers-1", "latin-1", "punctuation-1"),
}


def steps_of(chain: str) -> tuple[str, ...]:
    """The steps of a chain in their order. Raises DataError for an unknown id."""
    if chain not in CHAINS:
        raise DataError(
            f"text normaliser {chain!r} is not known",
            f"it is one of {', '.join(CHAINS)}",
            "correct prepare.normaliser in params.yaml, or make the artifact again with this version",
        )
    return CHAINS[chain]
