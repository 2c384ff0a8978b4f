"""The gate before any training: Great Expectations over the manifest and what its audio files really hold.

    python -m tasks.data.validate --corpus build/corpus --out build/validated

Bad rows go to quarantine.parquet with their reasons, the rest to manifest.parquet; result.json and the
offline report.html say what was asked and what was found. Lines that the corpus's door could not read count
as bad rows. When too many rows are bad, or a split is left with too few, the stage fails: the quarantine, the
result and the report are written all the same, the manifest is not, so that nothing can be trained on it. The
rules are in `tasks.data.checks`; what their columns hold, in `tasks.data.enrich`.
"""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.artifacts import new_folder, write_json, write_parquet, write_text
from tasks.data.chains import steps_of
from tasks.data.checks import OPTIONAL, REQUIRED, row_rules
from tasks.data.ctc import Units, label_count
from tasks.data.enrich import enrich
from tasks.data.expectations import Outcome, run_expectations, schema_rules, version
from tasks.data.manifest import KNOWN_SPLITS, SPLITS, read_table, records, write_manifest
from tasks.data.measure import measure_all
from tasks.data.own.intake import read_reconciliation
from tasks.data.own.reconciliation import BAD, Count
from tasks.data.page import without_nan
from tasks.data.quarantine import (
    describe,
    quarantined,
    reasons_by_row,
    tell_unread,
    unread_words,
    where_written,
    with_lines,
)
from tasks.data.text import NORMALISER_ID
from tasks.data.transcripts.conventions import REASONS as SET_ASIDE_FOR
from tasks.data.validation_report import render
from tasks.errors import DataError
from tasks.progress import track
from tasks.settings import Validate
from tasks.stage import run_stage

EXAMPLES = 5  # rows shown per expectation
WORST = 5  # rows named in the error message
BINS = {"measured_duration_s": 24, "characters_per_s": 24, "snr_db": 16, "silent_share": 20, "level_dbfs": 20}
log = logging.getLogger("malgil.validate")


def validate(
    params: Validate,
    *,
    corpus: Path,
    out: Path,
    duplicates: Path | None = None,
    normaliser: str = NORMALISER_ID,
    vocabulary: Units = "jamo",
    encoder: str = "",
) -> dict[str, Any]:
    """Validates a corpus and quarantines its bad rows.

    Args:
        params: limits.
        corpus: folder of manifest.parquet and the audio files its paths are relative to; sentences of
            commands.parquet are used where there is one.
        out: folder that becomes {manifest.parquet, quarantine.parquet, result.json, report.html}.
        normaliser: id of the chain of text normalisers that training will use.
        duplicates: duplicates.parquet of `tasks.asr.duplicates` for this corpus; without it only files of
            the same samples count as copies.
        vocabulary: of the recogniser that will be trained (`train_asr.vocabulary`).
        encoder: folder or Hub id of its encoder; "": whether a transcript fits its recording is not asked.

    Returns:
        The content of result.json.

    Raises:
        DataError: a required column is missing or of another type, more than `max_bad_share` of the rows are
        bad, or
            a split is left with fewer than `min_rows_per_split` rows.
    """
    manifest = read_table(corpus / "manifest.parquet")
    synthetic = is_synthetic(corpus)
    schema = run_expectations(_text_as_objects(manifest), schema_rules(list(manifest.columns)))
    if not all(outcome.passed for outcome in schema):
        result = {**_nothing_known(params, len(manifest), synthetic), **wrong_schema(schema, corpus)}
        _write(out, result, quarantine=pd.DataFrame({"utterance_id": [], "reasons": []}), good=None)
        raise DataError(
            result["problems"][0],
            "a manifest needs " + ", ".join(f"{name} ({kind})" for name, (kind, _) in REQUIRED.items()),
            "write the manifest again with these columns",
        )

    counts, aside = read_reconciliation(corpus)
    lines = aside[aside["reason"].isin(BAD)].reset_index(drop=True)
    measured = list(track(measure_all(corpus, manifest["path"]), "measure audio", len(manifest), "files"))
    copies = _copies(duplicates, manifest)
    count = label_count(vocabulary, encoder) if encoder else None
    frame = enrich(_text_as_objects(manifest), measured, _sentences(corpus), normaliser, copies, count)
    outcomes = run_expectations(frame, row_rules(params))
    reasons = reasons_by_row(outcomes, len(frame))
    bad = np.array([bool(own) for own in reasons], dtype=bool)
    result = summarise(params, frame, bad, [*schema, *outcomes], synthetic, lines["reason"])
    result["reconciliation"] = [count.as_json() for count in [*counts, _count(reasons)]]
    result["audio"] = audio_seconds(frame, bad)
    quarantine = with_lines(quarantined(frame, outcomes, reasons, list(manifest.columns)), lines)
    result["problems"] = find_problems(params, result, quarantine)
    result["ok"] = not result["problems"]
    if result["unread_words"]:
        log.warning(tell_unread(result["unread_words"], normaliser))
    result |= {"normaliser": normaliser, "normaliser_steps": list(steps_of(normaliser))}
    good = frame.loc[~bad, [*manifest.columns, *(name for name in OPTIONAL if name not in manifest)]]
    _write(out, result, quarantine, good if result["ok"] else None)
    log.info("%d of %d rows are good; report: %s", result["good"], result["rows"], out / "report.html")
    if not result["ok"]:
        raise _refused(params, result, out, normaliser)
    return result


def _refused(params: Validate, result: dict[str, Any], out: Path, normaliser: str) -> DataError:
    return DataError(
        "; ".join(result["problems"]),
        f"at most {params.max_bad_share:.1%} of the rows may be bad (validate.max_bad_share) "
        f"and every split needs {params.min_rows_per_split} good rows (validate.min_rows_per_split)",
        f"read {out / 'report.html'}; the rows with their reasons are in {out / 'quarantine.parquet'}. "
        "Mend or remove them and start the same command again"
        + (f". {tell_unread(result['unread_words'], normaliser)}" if result["unread_words"] else ""),
    )


def is_synthetic(corpus: Path) -> bool:
    """Whether the corpus's card says that its speech is synthetic."""
    card = corpus / "card.md"
    return card.is_file() and "speech here is synthetic" in card.read_text(encoding="utf-8")


def summarise(
    params: Validate,
    frame: pd.DataFrame,
    bad: np.ndarray[Any, np.dtype[np.bool_]],
    outcomes: Sequence[Outcome],
    synthetic: bool,
    lines: Collection[str] = (),
) -> dict[str, Any]:
    """result.json without its verdict: counts, answers, distributions of the good rows.

    Args:
        lines: the reason of every line that the door set aside as bad; they count as bad rows.
    """
    good = frame[~bad]
    rows, quarantined = len(frame) + len(lines), int(bad.sum()) + len(lines)
    return {
        **_nothing_known(params, rows, synthetic),
        "good": len(good),
        "quarantined": quarantined,
        "bad_share": quarantined / rows if rows else 0.0,
        "hours": float(good["measured_duration_s"].sum()) / 3600.0,
        "voices": int(good["speaker"].nunique()),
        "unread_words": unread_words(frame.loc[frame[list(SET_ASIDE_FOR)].isna().all(axis=1), "text"]),
        "reasons": dict(Counter(lines))
        | {o.rule.reason: len(o.failing_rows) for o in outcomes if o.failing_rows},
        "splits": {
            name: {
                "rows": int((frame["split"] == name).sum()),
                "good": len(part := good[good["split"] == name]),
                "hours": float(part["measured_duration_s"].sum()) / 3600.0,
                "speakers": int(part["speaker"].nunique()),
            }
            for name in KNOWN_SPLITS
            if name in SPLITS or (frame["split"] == name).any()
        },
        "speakers": {str(name): int(count) for name, count in good["speaker"].value_counts().items()},
        "expectations": [_answer(frame, outcome) for outcome in outcomes],
        "distributions": {name: histogram(good[name], bins) for name, bins in BINS.items()},
    }


def histogram(values: pd.Series, bins: int) -> dict[str, list[float]]:
    """{"edges": bins + 1 numbers, "counts": bins numbers} of the finite values; empty lists without any."""
    finite = values.astype(float).to_numpy()
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return {"edges": [], "counts": []}
    spread = (0.0, 1.0) if finite.min() >= 0.0 and finite.max() <= 1.0 else None  # a share: the whole scale
    counts, edges = np.histogram(finite, bins=bins, range=spread)
    return {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}


def find_problems(params: Validate, result: dict[str, Any], quarantine: pd.DataFrame) -> list[str]:
    """Why the corpus cannot be trained on, one sentence each; empty when it can."""
    problems = []
    if result["bad_share"] > params.max_bad_share:
        counts = sorted(result["reasons"].items(), key=lambda item: -item[1])
        worst = ", ".join(_named(row) for row in quarantine.head(WORST).to_dict("records"))
        problems.append(
            f"{result['quarantined']} of {result['rows']} rows ({result['bad_share']:.1%}) are bad: "
            + ", ".join(f"{count} {reason}" for reason, count in counts)
            + f"; the worst: {worst}"
        )
    for name, split in result["splits"].items():
        if split["good"] < params.min_rows_per_split:
            lost = Counter(
                reason
                for row in quarantine.itertuples()
                if row.split == name
                for reason in str(row.reasons).split(", ")
            )
            why = ", ".join(f"{count} {reason}" for reason, count in lost.most_common())
            found = "is empty" if not split["rows"] else f"has {split['good']} good rows of {split['rows']}"
            problems.append(f"split {name} {found}" + (f" ({why})" if why else ""))
    return problems


def _named(row: dict[Any, Any]) -> str:
    """A quarantined row or line, for the message: its id and split, where it is written, what was found."""
    name = (
        f"{row['utterance_id'] or '(no id)'} [{row['split']}]" if row["split"] or row["utterance_id"] else ""
    )
    return " ".join(part for part in (name, where_written(row), f"({row['details']})") if part)


def _count(reasons: Sequence[Sequence[str]]) -> Count:
    """The rows of the manifest: good ones came out, each of the others is set aside for its first reason.

    A file that is missing leaves fields empty (its hash): that is no reason beside another.
    """
    first = Counter(next((one for one in own if one != "empty_field"), own[0]) for own in reasons if own)
    good = sum(not own for own in reasons)
    return Count("validate", "row", len(reasons), good, dict(first.most_common())).check()


def audio_seconds(frame: pd.DataFrame, bad: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, float]:
    """Seconds of audio as decoded: of all rows, of the good ones, and of those set aside; they add up."""
    seconds = frame["measured_duration_s"].astype(float).fillna(0.0)
    return {
        "in_s": float(seconds.sum()),
        "out_s": float(seconds[~bad].sum()),
        "set_aside_s": float(seconds[bad].sum()),
    }


def _answer(frame: pd.DataFrame, outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.rule.reason,
        "rule": outcome.rule.says,
        "expectation": outcome.expectation,
        "column": outcome.rule.column,
        "passed": outcome.passed,
        "failing_rows": len(outcome.failing_rows),
        "examples": [
            {"utterance_id": str(frame["utterance_id"].iat[row]), "found": describe(frame, outcome, row)}
            for row in outcome.failing_rows[:EXAMPLES]
        ],
    }


def _nothing_known(params: Validate, rows: int, synthetic: bool) -> dict[str, Any]:
    return {
        "ok": False,
        "problems": [],
        "synthetic": synthetic,
        "rows": rows,
        "good": 0,
        "quarantined": 0,
        "bad_share": 0.0,
        "max_bad_share": params.max_bad_share,
        "min_rows_per_split": params.min_rows_per_split,
        "hours": 0.0,
        "voices": 0,
        "unread_words": {},
        "reasons": {},
        "splits": {},
        "speakers": {},
        "expectations": [],
        "distributions": {},
        "reconciliation": [],
        "audio": {"in_s": 0.0, "out_s": 0.0, "set_aside_s": 0.0},
        "great_expectations": version(),
    }


def wrong_schema(outcomes: Sequence[Outcome], corpus: Path) -> dict[str, Any]:
    """What result.json says of wrong columns: one problem that names all of them."""
    missing = [o.rule.column for o in outcomes if not o.passed and o.rule.reason == "missing_column"]
    wrong = [o for o in outcomes if not o.passed and o.rule.reason == "wrong_type"]
    found = [f"there is no column {', '.join(missing)}"] if missing else []
    found += [
        f"column {o.rule.column} holds {o.observed or 'other values'}, not {REQUIRED[o.rule.column][0]}"
        for o in wrong
    ]
    nothing = pd.DataFrame({"utterance_id": []})
    return {
        "problems": [f"{corpus / 'manifest.parquet'}: {'; '.join(found)}"],
        "expectations": [
            {**_answer(nothing, o._replace(failing_rows=())), "failing_rows": len(o.failing_rows)}
            for o in outcomes
        ],
    }


def _text_as_objects(manifest: pd.DataFrame) -> pd.DataFrame:
    """Columns that are neither numbers nor truth values as Python objects, None where there is no value."""
    frame = manifest.copy()
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            values = frame[name].astype(object)
            frame[name] = values.where(values.notna(), None)
    return frame


def _copies(path: Path | None, manifest: pd.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows that hold one recording. Raises DataError for a table of another manifest."""
    if path is None:
        return []
    table = read_table(path)
    ids = [str(name) for name in manifest["utterance_id"]]
    pairs: list[tuple[int, int]] = []
    for found in records(table):
        pair = int(found["row"]), int(found["other_row"])
        names = [str(found["utterance_id"]), str(found["other_utterance_id"])]
        if max(pair) >= len(ids) or [ids[row] for row in pair] != names:
            raise DataError(
                f"{path} names {' and '.join(names)} in rows {pair[0]} and {pair[1]}",
                "it must be made from this manifest",
                "make it again: `dvc repro -f embed_asr`",
            )
        pairs.append(pair)
    return pairs


def _sentences(corpus: Path) -> dict[str, str]:
    """Sentence id to text, of commands.parquet where the corpus has one."""
    path = corpus / "commands.parquet"
    if not path.is_file():
        return {}
    commands = read_table(path)
    if not {"sentence_id", "text"} <= set(commands.columns):
        return {}
    return {
        str(name): str(text) for name, text in zip(commands["sentence_id"], commands["text"], strict=True)
    }


def _write(out: Path, result: dict[str, Any], quarantine: pd.DataFrame, good: pd.DataFrame | None) -> None:
    with new_folder(out) as folder:
        if good is not None:
            write_manifest(folder / "manifest.parquet", good)
        write_parquet(folder / "quarantine.parquet", quarantine)
        write_json(folder / "result.json", without_nan(result))
        write_text(folder / "report.html", render(result, quarantine))


if __name__ == "__main__":
    assert __spec__ is not None
    raise SystemExit(
        run_stage(
            __spec__.name,
            "validate",
            validate,
            inputs={
                "corpus": Path("build/corpus"),
                "duplicates": Path("build/embeddings/duplicates.parquet"),
            },
            outputs={"out": Path("build/validated")},
            borrowed={
                "normaliser": "prepare.normaliser",
                "vocabulary": "train_asr.vocabulary",
                "encoder": "train_asr.encoder",
            },
        )
    )
