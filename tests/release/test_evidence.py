"""Evidence that is missing, cut off, or of other bytes is named, never guessed."""

from pathlib import Path

import pandas as pd
import pytest

from tasks.artifacts import read_json, write_json
from tasks.errors import ArtifactError, DataError
from tasks.release.evidence import (
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
    assert found.road.exact_match_unseen_voices == 0.9
    assert llm().exact_match == 0.97 and len(llm().answers) == 300


def test_the_out_of_domain_slice_has_a_rate_and_no_answers_to_compare(project):
    compared = len(asr().answers)
    table = BUILD / "asr/evaluation/utterances.parquet"
    rows = pd.read_parquet(table)
    outside = rows[rows["split"] == "test_voices"].assign(split="test_ood")
    pd.concat([rows, outside]).to_parquet(table)
    path = BUILD / "asr/evaluation/metrics.json"
    metrics = read_json(path)
    metrics["onnx_int8"]["cer_ood"] = 0.6
    write_json(path, metrics)
    assert asr().cer_ood == 0.6 and len(asr().answers) == compared
    metrics["onnx_int8"]["cer_ood"] = None
    write_json(path, metrics)
    assert asr().cer_ood is None


def test_the_digest_follows_what_is_judged_and_not_timings(project):
    before = evidence_digest(llm())
    metrics = read_json(BUILD / "llm/evaluation/metrics.json")
    metrics["tokens_per_s"]["Q8_0"] = 1.0
    write_json(BUILD / "llm/evaluation/metrics.json", metrics)
    assert evidence_digest(llm()) == before
    metrics["exact_match"]["Q8_0"] = 0.5
    write_json(BUILD / "llm/evaluation/metrics.json", metrics)
    assert evidence_digest(llm()) != before


def _drop_column(name):
    path = BUILD / "asr/evaluation/utterances.parquet"
    pd.read_parquet(path).drop(columns=name).to_parquet(path)


def _without(name):
    path = BUILD / "asr/evaluation/metrics.json"
    metrics = read_json(path)
    del metrics["onnx_int8"][name]
    write_json(path, metrics)


BAD = {
    "has no column edits": (ArtifactError, lambda: _drop_column("edits")),
    "onnx_int8.cer_joined = None": (ArtifactError, lambda: _without("cer_joined")),
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
