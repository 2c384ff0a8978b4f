"""Evidence that is missing, cut off, or of other bytes is named, never guessed."""

from pathlib import Path

import pandas as pd
import pytest

from tasks.artifacts import read_json, write_json
from tasks.errors import ArtifactError, DataError
from tasks.release.evidence import (
    asr_answers,
    asr_evidence,
    checksums,
    evidence_digest,
    llm_evidence,
    shipped_files,
)

BUILD = Path("build")


def asr():
    return asr_evidence(BUILD, checksums(shipped_files("asr", BUILD)))


def llm(quantisation="Q8_0"):
    return llm_evidence(BUILD, checksums(shipped_files("llm", BUILD)), quantisation)


def test_only_the_shipped_file_and_the_plain_condition_count(project):
    found = asr()
    assert len(found.answers) == 320 and {a.split for a in found.answers} == {"test_sentences", "test_voices"}
    assert found.road.exact_match_unseen_voices == 0.95
    assert sum(a.errors for a in llm().answers) == 8 and len(llm().answers) == 300


def test_a_rise_is_measured_on_the_same_utterances(project):
    found = asr()
    assert len(found.silence) == 160 and len(found.joined) == 40
    assert all(change.before == change.after for change in (*found.silence, *found.joined))
    assert sum(c.before for c in found.joined) == 60 and sum(c.units for c in found.joined) == 12_000
    assert len(llm().quantised) == 300 and sum(c.before for c in llm().quantised) == 8


@pytest.mark.parametrize("plus", ["", "+"])
def test_joined_utterances_are_told_apart_by_the_ids_of_the_plain_ones(project, plus):
    """An id may have the sign that joins them."""
    path = BUILD / "asr/evaluation/utterances.parquet"
    table = pd.read_parquet(path)
    table["utterance_id"] = table["utterance_id"].str.replace("_sentences-", f"_sentences{plus}-")
    table.to_parquet(path)
    assert sum(c.before for c in asr().joined) == 60


def test_an_utterance_that_was_not_measured_plain_is_named(project):
    path = BUILD / "asr/evaluation/utterances.parquet"
    table = pd.read_parquet(path)
    gone = (table.condition == "plain") & (table.utterance_id == "test_sentences-7")
    table[~gone].to_parquet(path)
    with pytest.raises(ArtifactError, match=r"test_sentences-7 \(silence\) has no plain counterpart"):
        asr()


def test_quantisation_is_judged_on_the_same_examples(project):
    path = BUILD / "llm/evaluation/samples.parquet"
    table = pd.read_parquet(path)
    table[~((table.system == "merged") & (table.id > "s00199"))].to_parquet(path)
    assert len(llm().quantised) == 200 and len(llm().answers) == 300
    table[~((table.system == "Q8_0") & (table.id == "s00003"))].to_parquet(path)
    with pytest.raises(ArtifactError, match=r"answered 1 examples that the GGUF did not \(s00003\)"):
        llm()


def test_the_answers_of_a_version_published_before_floors_had_intervals_are_still_read(project):
    """Its tables have the plain and silent utterances alone, and no joined ones."""
    path = BUILD / "asr/evaluation/utterances.parquet"
    table = pd.read_parquet(path)
    table[table.condition == "plain"].to_parquet(path)
    assert len(asr_answers(path)) == 320


def test_the_out_of_domain_slice_has_a_rate_and_no_answers_to_compare(project):
    compared = len(asr().answers)
    assert asr().outside == ()  # a corpus without the slice
    table = BUILD / "asr/evaluation/utterances.parquet"
    rows = pd.read_parquet(table)
    outside = rows[rows["split"] == "test_voices"].assign(split="test_ood")
    pd.concat([rows, outside]).to_parquet(table)
    assert len(asr().answers) == compared and len(asr().outside) == 160


def test_the_digest_follows_what_is_judged_and_not_timings(project):
    before = evidence_digest(llm())
    metrics = read_json(BUILD / "llm/evaluation/metrics.json")
    metrics["tokens_per_s"]["Q8_0"] = 1.0
    write_json(BUILD / "llm/evaluation/metrics.json", metrics)
    assert evidence_digest(llm()) == before
    path = BUILD / "llm/evaluation/samples.parquet"
    samples = pd.read_parquet(path)
    samples.loc[(samples.system == "merged") & (samples.id == "s00001"), "exact"] = False
    samples.to_parquet(path)
    assert evidence_digest(llm()) != before


def _drop_column(name):
    path = BUILD / "asr/evaluation/utterances.parquet"
    pd.read_parquet(path).drop(columns=name).to_parquet(path)


def _without(condition):
    path = BUILD / "asr/evaluation/utterances.parquet"
    table = pd.read_parquet(path)
    table[table.condition != condition].to_parquet(path)


BAD = {
    "has no column edits": (ArtifactError, lambda: _drop_column("edits")),
    "no answers of onnx_int8, condition joined": (DataError, lambda: _without("joined")),
    "road/samples.parquet": (ArtifactError, lambda: (BUILD / "road/samples.parquet").write_bytes(b"PAR1 cut")),
    "not a whole Parquet file": (
        ArtifactError, lambda: (BUILD / "asr/evaluation/utterances.parquet").write_bytes(b"PAR1 cut off"),
    ),
    "is not JSON": (ArtifactError, lambda: (BUILD / "asr/evaluation/metrics.json").write_text('{"cut":')),
    "has no answers of onnx_int8": (
        DataError,
        lambda: pd.read_parquet(BUILD / "asr/evaluation/utterances.parquet").iloc[:0].to_parquet(
            BUILD / "asr/evaluation/utterances.parquet"
        ),
    ),
    "byte for byte": (ArtifactError, lambda: (BUILD / "asr/shipped/model.int8.onnx").write_bytes(b"other")),
    "no shipped files of the line asr": (
        ArtifactError, lambda: (BUILD / "asr/shipped/model.int8.onnx").unlink(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("says", BAD)
def test_bad_evidence_is_named(project, says):
    kind, spoil = BAD[says]
    spoil()
    with pytest.raises(kind, match=says):
        asr()


@pytest.mark.parametrize("name", ["Q8_0", "Q4_K_M"])
def test_no_gguf_ships_that_was_not_measured(project, name):
    (BUILD / f"llm/gguf/malgil-llm-{name}.gguf").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=f"measured on a malgil-llm-{name}.gguf .* byte for byte"):
        llm()


def test_a_quantisation_type_that_does_not_ship_is_named(project):
    with pytest.raises(ArtifactError, match="0 GGUF files of type Q6_K"):
        llm("Q6_K")
