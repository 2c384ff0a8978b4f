"""The rates of one system from its table of utterances (`tasks.asr.evaluate.run_system`), as fractions.

Rates are pooled over utterances, except those over unseen voices, which are the mean of the voices' rates: a
speaker's utterances are not independent, and every voice counts alike. CER is without spaces unless its name
says otherwise. Pure; no command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tasks.asr.quality.intervals import rate_interval
from tasks.asr.quality.jamo import confusions, counts
from tasks.asr.quality.metrics import cer, space_normalised_wer, wer
from tasks.data.manifest import OOD_KIND, OUT_OF_DOMAIN
from tasks.settings import EvaluateAsr

SPLITS = ("test_sentences", "test_voices")


def rates(table: pd.DataFrame, params: EvaluateAsr) -> dict[str, Any]:
    """The rates of one system from its table (see the module's docstring), as fractions; those of the
    out-of-domain slice and of conditions that it has not heard are None. Pure.
    """
    plain = table[table["condition"] == "plain"]
    sentences, voices = (plain[plain["split"] == split] for split in SPLITS)
    by_voice = {
        str(speaker): _cer(own)
        for part in (sentences, voices)
        for speaker, own in part.groupby("speaker", sort=True)
    }
    unseen = sorted(set(voices["speaker"]))
    silent, joined = (table[table["condition"] == condition] for condition in ("silence", "joined"))
    return {
        "cer_unseen_sentences": _cer(sentences),
        "cer_unseen_voices": sum(by_voice[str(speaker)] for speaker in unseen) / len(unseen),
        "wer_unseen_sentences": _wer(sentences),
        "wer_unseen_voices": sum(_wer(own) for _, own in voices.groupby("speaker")) / len(unseen),
        "wer_space_normalised_unseen_sentences": _respaced_wer(sentences),
        "wer_space_normalised_unseen_voices": sum(_respaced_wer(own) for _, own in voices.groupby("speaker"))
        / len(unseen),
        "cer_with_spaces_unseen_sentences": _cer(sentences, spaces=True),
        "cer_with_spaces_unseen_voices": _cer(voices, spaces=True),
        "cer_by_voice": by_voice,
        "unseen_voices": [str(speaker) for speaker in unseen],
        "cer_with_silence": _cer_if_heard(silent[silent["split"] == SPLITS[0]]),
        "cer_with_silence_unseen_voices": _cer_if_heard(silent[silent["split"] == SPLITS[1]]),
        "cer_joined": _cer_if_heard(joined[joined["split"] == SPLITS[0]]),
        "cer_joined_unseen_voices": _cer_if_heard(joined[joined["split"] == SPLITS[1]]),
        "cer_unseen_sentences_greedy": _cer(sentences, heard="greedy"),
        "cer_unseen_voices_greedy": sum(_cer(own, heard="greedy") for _, own in voices.groupby("speaker"))
        / len(unseen),
        **_out_of_domain(plain[plain["split"] == OUT_OF_DOMAIN]),
        **_intervals(plain, [by_voice[str(speaker)] for speaker in unseen], params),
        "n_unseen_sentences": len(sentences),
        "n_unseen_voices": len(voices),
        "n_joined": int((joined["split"] == SPLITS[0]).sum()),
        "n_ood": int((plain["split"] == OUT_OF_DOMAIN).sum()),
    }


def jamo_confusions(table: pd.DataFrame) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The most frequent jamo confusions of the plain test utterances: what the recogniser says ("search") and
    what it says without its n-gram model ("greedy"), in domain and out of domain. Pure.
    """
    plain = table[table["condition"] == "plain"]
    outside = plain["split"] == OUT_OF_DOMAIN
    return {
        name: {
            part: confusions(plain.loc[rows, "reference"].tolist(), plain.loc[rows, heard].tolist())
            for part, rows in (("in_domain", ~outside), ("out_of_domain", outside))
        }
        for name, heard in (("search", "hypothesis"), ("greedy", "greedy"))
    }


def jamo_counts(table: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """All confusions of jamo with others of their place by what the recogniser says of the plain test
    utterances, in domain and out of domain. Pure.
    """
    plain = table[table["condition"] == "plain"]
    outside = plain["split"] == OUT_OF_DOMAIN
    return {
        part: counts(plain.loc[rows, "reference"].tolist(), plain.loc[rows, "hypothesis"].tolist())
        for part, rows in (("in_domain", ~outside), ("out_of_domain", outside))
    }


def _out_of_domain(rows: pd.DataFrame) -> dict[str, Any]:
    there = len(rows) > 0
    return {
        "cer_ood": _cer(rows) if there else None,
        "cer_ood_greedy": _cer(rows, heard="greedy") if there else None,
        "cer_with_spaces_ood": _cer(rows, spaces=True) if there else None,
        "wer_ood": _wer(rows) if there else None,
        "wer_space_normalised_ood": _respaced_wer(rows) if there else None,
        "cer_ood_by_kind": {str(kind): _cer(own) for kind, own in rows.groupby(OOD_KIND, sort=False) if kind}
        if there
        else {},
    }


def _intervals(plain: pd.DataFrame, unseen: Sequence[float], params: EvaluateAsr) -> dict[str, Any]:
    """Intervals of the headline CERs; that over unseen voices draws the voices' rates, as its mean counts
    them.
    """

    def interval(errors: Sequence[float], units: Sequence[float], blocks: Sequence[str]) -> Any:
        if not len(units):
            return None
        return rate_interval(errors, units, blocks, confidence=params.confidence, resamples=params.resamples)

    found = {
        name: interval(rows["edits"].tolist(), rows["characters"].tolist(), rows["speaker"].tolist())
        for name, split in (("cer_unseen_sentences", SPLITS[0]), ("cer_ood", OUT_OF_DOMAIN))
        for rows in (plain[plain["split"] == split],)
    }
    voices = [str(number) for number in range(len(unseen))]
    found["cer_unseen_voices"] = interval(unseen, [1.0] * len(unseen), voices)
    return {f"{name}_interval": list(ends) if ends else None for name, ends in found.items()}


def _respaced_wer(rows: pd.DataFrame) -> float:
    return space_normalised_wer(rows["reference"].tolist(), rows["hypothesis"].tolist())


def _cer_if_heard(rows: pd.DataFrame) -> float | None:
    return _cer(rows) if len(rows) else None


def _cer(rows: pd.DataFrame, spaces: bool = False, heard: str = "hypothesis") -> float:
    return cer(rows["reference"].tolist(), rows[heard].tolist(), spaces)


def _wer(rows: pd.DataFrame) -> float:
    return wer(rows["reference"].tolist(), rows["hypothesis"].tolist())
