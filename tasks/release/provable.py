"""Which floors no model could prove on this test set, known before anything is trained. No command.

`malgil run` says so as soon as the data are prepared. A model without a single error is put before the very
floors that the real one will meet (`tasks.release.decide`): what it does not prove, none will.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.asr.joining import joined_groups
from tasks.data.manifest import OUT_OF_DOMAIN
from tasks.llm.chat import load_tools
from tasks.llm.rows import read_rows
from tasks.release.answers import VOICES, Answer, AsrEvidence, Change, LlmEvidence, Road
from tasks.release.decide import asr_floors, llm_floors
from tasks.release.evidence import Line, read_table
from tasks.release.floors import Floor
from tasks.settings import Params

# What makes the test set of a floor larger; the prepared data may have no more.
SIZES = {
    "min_exact_match": "evaluate_llm.examples (or, with data of your own, more test commands)",
    "max_quantisation_loss": "evaluate_llm.examples_beside (or, with data of your own, more test commands)",
    "min_exact_match_road": "evaluate_road.utterances (or corpus.test_utterances, or your own test_voices)",
    "max_cer_ood": "corpus.ood_utterances (or your own test_ood)",
}
SPEECH = "corpus.test_utterances (or the test splits of your own)"


def unprovable(lines: Sequence[Line], params: Params, prepared: Path) -> list[str]:
    """A sentence for every floor of the lines that a faultless model would not prove.

    Args:
        prepared: the folder of the prepared data.

    Raises:
        ArtifactError, DataError: the prepared data are not what their stage writes.
    """
    found: dict[str, Floor] = {}
    speech: list[Answer] = []
    if "asr" in lines:
        columns = ["split", "utterance_id", "speaker", "text"]
        speech = _answers(read_table(prepared / "asr/utterances.parquet", columns))
    road = None
    if len(lines) == 2:
        voices = [answer for answer in speech if answer.split == VOICES]
        size = min(params.evaluate_road.utterances, len(voices))
        chosen = np.linspace(0, len(voices) - 1, size).round().astype(int).tolist()  # as the road chooses
        road = Road(tuple(voices[place]._replace(units=1.0) for place in chosen))
    floors: list[Floor] = []
    if "asr" in lines:
        floors += asr_floors(faultless_asr(speech, road, params.evaluate_asr.joined), params.decide)
    if "llm" in lines:
        tools = load_tools(prepared / "llm/tools.json")
        rows = read_rows(prepared / "llm/test.jsonl", tools)[: params.evaluate_llm.examples]
        texts = [str(row["written"]) for row in rows]
        beside = params.evaluate_llm.examples_beside
        floors += llm_floors(faultless_llm(texts, beside, road), params.decide)
    for floor in floors:
        if floor.outcome != "kept" and floor.figures:
            found.setdefault(floor.figures.setting, floor)
    return [_say(floor) for floor in found.values()]


def faultless_asr(speech: Sequence[Answer], road: Road | None, joined: int) -> AsrEvidence:
    """The evidence on a recogniser that mishears nothing; `joined` utterances of a voice are put together."""
    within = tuple(answer for answer in speech if answer.split != OUT_OF_DOMAIN)
    known = [answer for answer in within if answer.split != VOICES]
    groups = joined_groups([answer.block for answer in known], joined) if known else []
    outside = tuple(answer for answer in speech if answer.split == OUT_OF_DOMAIN)
    return AsrEvidence(
        "",
        "",
        within,
        tuple(_unchanged([answer]) for answer in known),
        tuple(_unchanged([known[place] for place in group]) for group in groups),
        outside,
        road,
    )


def _unchanged(own: Sequence[Answer]) -> Change:
    """Utterances in one recording, heard without an error before and after."""
    text = " ".join(answer.reference for answer in own)
    return Change(own[0].block, text, 0.0, 0.0, sum(answer.units for answer in own))


def faultless_llm(texts: Sequence[str], beside: int, road: Road | None) -> LlmEvidence:
    """The evidence on a language model that is always right, and answers `beside` of the texts merged."""
    answers = tuple(Answer("test", str(n), text, "{}", 0.0, 1.0) for n, text in enumerate(texts))
    same = tuple(Change(text, "{}", 0.0, 0.0, 1.0) for text in texts[:beside])
    return LlmEvidence("", "the GGUF", (), answers, same, road)


def _answers(frame: pd.DataFrame) -> list[Answer]:
    frame = frame[frame["split"].str.startswith("test_")]
    columns = (frame["split"], frame["utterance_id"], frame["speaker"], frame["text"])
    return [
        Answer(str(s), str(i), str(b), str(text), 0.0, float(len("".join(str(text).split())) or 1))
        for s, i, b, text in zip(*columns, strict=True)
    ]


def _say(floor: Floor) -> str:
    f = floor.figures
    assert f is not None
    sign = "≥" if f.bound == "at least" else "≤"
    voices = "" if f.voices is None else f" by {f.voices} voice{'' if f.voices == 1 else 's'}"
    best = f"at least {f.low:.2%}" if f.bound == "at least" else f"at most {f.high:.2%}"
    needed = f"about {f.needed:,} are needed" if f.needed else "no number of them is enough"
    return (
        f"decide.{f.setting}: {sign} {f.limit:.2%} cannot be proven with n = {f.n:,}{voices}: a model "
        f"without an error shows {best} with {100 * f.confidence:.4g}% confidence, and will be held; "
        f"{needed}: raise {SIZES.get(f.setting, SPEECH)}, or choose another floor"
    )
