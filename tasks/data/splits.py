"""The splits of a user's recordings: their names told apart, and what is missing cut from train. Pure.

A recogniser is judged on sentences that it has not learnt (`test_sentences`, known speakers) and on voices
that it has not heard (`test_voices`). Data sets come with a train and a test part, or with none. What is
missing is cut by speaker, the same way every time (by a hash of names and sentences, no seed), and no
sentence is left on both sides of a cut: rows that would leak are left out and counted.
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import pandas as pd

from tasks.data.manifest import KNOWN_SPLITS
from tasks.data.own.reconciliation import place
from tasks.errors import DataError

SHARE = 0.1  # of the rows that a cut starts from, for each split cut by speaker
SENTENCE_SHARE = 0.05  # of their sentences, for each split cut by sentence
FEWEST = 4  # sentences of a split cut by sentence, where there are eight times as many
LARGEST_SPEAKER = (
    0.25  # a speaker with a larger share of the rows is not taken for a test while others are left
)
UNKNOWN = "unknown"

SPLIT_NAMES: dict[str, str] = {
    **{name: name for name in KNOWN_SPLITS},
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("valid", "val", "dev", "eval", "development"), "validation"),
    "test": "test",
}
"""What a data set may call a split. `test` is told apart by its speakers."""

_CUT = ("validation", "test_sentences", "test_voices")


class Splits(NamedTuple):
    """`frame` with every row in one of `KNOWN_SPLITS`, `left_out` the rows whose sentence is on the other
    side of a cut; `notes` say what was decided."""

    frame: pd.DataFrame
    notes: list[str]
    left_out: pd.DataFrame


def complete_splits(frame: pd.DataFrame, sentences: pd.Series, source: str) -> Splits:
    """Give every row its split.

    Args:
        frame: one row per recording, with `speaker` ("" where it is not known) and `split` ("" likewise).
        sentences: a key per row, the same for the same words.
        source: what to call the data in errors.

    Raises:
        DataError: the names of splits that are none, all at once.
    """
    frame, notes = frame.reset_index(drop=True).copy(), []
    keys = sentences.reset_index(drop=True)
    named = frame["split"].str.strip()
    frame["split"] = named.map(lambda name: SPLIT_NAMES.get(name.lower(), name))
    unknown = sorted(set(frame["split"]) - set(KNOWN_SPLITS) - {"", "test"})
    if unknown:
        first = frame[frame["split"] == unknown[0]].iloc[0]
        where = (
            f" (first: {place(first['origin_file'], first['origin_line'])})" if "origin_file" in first else ""
        )
        raise DataError(
            f"column split of {source} holds {', '.join(map(repr, unknown))}{where}",
            f"a split is one of {', '.join(KNOWN_SPLITS)}, or train, validation (dev) and test",
            "name test_sentences what known speakers say and test_voices what other speakers say, "
            "or leave the column out",
        )
    nameless = not frame["speaker"].astype(bool).any()
    frame["speaker"] = frame["speaker"].where(frame["speaker"].astype(bool), UNKNOWN)
    notes += _tell_tests_apart(frame)
    missing = [name for name in _CUT if not (frame["split"] == name).any()]
    pool = frame["split"].isin(("", "train"))
    if missing and pool.any():
        cut, said = _cut(frame[pool], keys[pool], set(keys[~pool]), missing)
        frame.loc[pool, "split"] = cut
        notes += said
    is_left_out = frame["split"] == "left out"
    left_out, frame = frame[is_left_out], frame[~is_left_out].reset_index(drop=True)
    frame["split"] = frame["split"].replace("", "train")
    return Splits(frame, notes + _rename_unknown_voices(frame, nameless), left_out)


def _tell_tests_apart(frame: pd.DataFrame) -> list[str]:
    """Rows of a plain `test`: speakers heard in training go to test_sentences, others to test_voices."""
    tests = frame["split"] == "test"
    if not tests.any():
        return []
    heard = set(frame.loc[frame["split"].isin(("", "train", "validation")), "speaker"])
    known = tests & frame["speaker"].isin(heard)
    frame.loc[known, "split"] = "test_sentences"
    frame.loc[tests & ~known, "split"] = "test_voices"
    return [
        f"test became test_voices ({int((tests & ~known).sum())} rows, speakers not in train) and "
        f"test_sentences ({int(known.sum())} rows, speakers in train)"
    ]


def _cut(
    pool: pd.DataFrame, keys: pd.Series, tested: set[str], missing: list[str]
) -> tuple[pd.Series, list[str]]:
    """The split of every row of the pool, "left out" for those that would leak, and what to say of it."""
    role = _roles_of_speakers(
        pool["speaker"], [name for name in ("test_voices", "validation") if name in missing]
    )
    by_speaker = set(role.values())
    by_sentence = [name for name in missing if name not in by_speaker]
    roles = pool["speaker"].map(lambda speaker: role.get(speaker, "train"))
    said_by = {key: frozenset(found) for key, found in roles.groupby(keys)}
    home = _homes(said_by, by_sentence, tested)
    split = pd.Series(
        [_place(own, home[key], by_sentence, missing) for own, key in zip(roles, keys, strict=True)],
        index=pool.index,
    )
    notes = [
        f"{name} was cut from train by {'speaker' if name in by_speaker else 'sentence'}: "
        f"{int((split == name).sum())} rows"
        + (f" of {pool.loc[split == name, 'speaker'].nunique()} speakers" if name in by_speaker else "")
        for name in missing
    ]
    if left_out := int((split == "left out").sum()):
        notes.append(f"{left_out} rows were left out: their sentence is on the other side of a cut")
    return split, notes


def _roles_of_speakers(speakers: pd.Series, wanted: list[str]) -> dict[str, str]:
    """Speaker to the split cut from train that has them. At least half of the speakers stay in train."""
    counts = speakers.value_counts()
    names = sorted(
        counts.index, key=lambda name: (counts[name] > LARGEST_SPEAKER * len(speakers), _hash(name))
    )
    roles: dict[str, str] = {}
    for at, split in enumerate(wanted):
        most = max(0, len(names) // 2 - len(roles))
        if at == 0 and len(wanted) > 1:
            most = (most + 1) // 2
        rows = 0
        for name in [name for name in names if name not in roles][:most]:
            if rows >= SHARE * len(speakers):
                break
            roles[name] = split
            rows += int(counts[name])
    return roles


def _homes(said_by: dict[str, frozenset[str]], by_sentence: list[str], tested: set[str]) -> dict[str, str]:
    """The one split that each sentence may be in: by who says it, by the order of hashes where several do."""
    home = {key: "tested" for key in said_by if key in tested}
    home |= {key: next(iter(said)) for key, said in said_by.items() if len(said) == 1 and key not in home}
    shared = sorted((key for key in said_by if key not in home), key=_hash)
    for name in sorted({role for key in shared for role in said_by[key]} - {"train"}):
        free = [key for key in shared if key not in home and name in said_by[key]]
        quota = min(math.ceil(SHARE * len(shared)), len(shared) // 4)
        home |= dict.fromkeys(free[:quota], name)
    home |= {key: "train" for key in shared if key not in home}
    learnt = sorted((key for key, split in home.items() if split == "train"), key=_hash)
    quota = max(math.ceil(SENTENCE_SHARE * len(learnt)), min(FEWEST, len(learnt) // 8))
    quota = min(quota, len(learnt) // (2 * len(by_sentence) or 1))  # half stays in train
    for at, name in enumerate(by_sentence):
        home |= dict.fromkeys(learnt[at * quota : (at + 1) * quota], name)
    return home


def _place(role: str, home: str, by_sentence: list[str], missing: list[str]) -> str:
    """The split of a row by the role of its speaker and the home of its sentence."""
    if role == home or (role == "train" and home in by_sentence):
        return home
    if role == "train" and home == "test_voices" and "test_sentences" in missing:
        return "test_sentences"  # a known voice says what is not learnt
    return "left out"


def _rename_unknown_voices(frame: pd.DataFrame, nameless: bool) -> list[str]:
    """Where nobody can tell the speakers apart, test_voices gets a speaker of its own, and a warning."""
    unseen = frame["split"] == "test_voices"
    others = set(frame.loc[~unseen, "speaker"])
    if not (nameless or len(set(frame["speaker"])) == 1) or not unseen.any():
        return []
    frame.loc[unseen & frame["speaker"].isin(others), "speaker"] += "-test"
    return [
        "there is one speaker, or none is named: test_voices holds voices heard in training, and its rate "
        "says nothing about unseen voices"
    ]


def _hash(name: str) -> float:
    """A number in [0, 1) that only the name decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48
