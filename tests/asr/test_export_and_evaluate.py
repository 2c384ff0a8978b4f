"""ONNX export against torch, the shipped file's facts, and evaluation under the three conditions."""

import base64
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch

from tasks.artifacts import sha256_file
from tasks.asr.checkpoints.checkpoint import Vocabulary, load_checkpoint, load_encoder, save_checkpoint
from tasks.asr.decoding import language_model
from tasks.asr.decoding.decode import SearchOptions
from tasks.asr.engines.torch_model import FP32_NAME, ONNX_NAME, OnnxRecogniser, TorchRecogniser
from tasks.asr.evaluate import evaluate
from tasks.asr.export import export, to_onnx
from tasks.asr.joining import joined_groups
from tasks.asr.ngrams import symbol_ngrams
from tasks.asr.prepared import read_prepared
from tasks.asr.quality.rates import rates
from tasks.errors import ArtifactError, DataError, ModelError
from tasks.settings import EvaluateAsr, ExportAsr
from tests.asr.conftest import SENTENCES

EXPORT = ExportAsr(opset=17, max_logit_difference=1e-3, max_relative_difference_int8=0.1)
EVALUATE = EvaluateAsr(
    silence_s=0.5,
    joined=3,
    batch_seconds=20.0,
    length_bounds_s=(0.7, 1.0),
    snr_bounds_db=(15.0,),
    confidence=0.9,
    resamples=300,
)


@pytest.fixture(scope="module")
def checkpoint(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser with untrained weights: export and evaluation do not care."""
    folder = tmp_path_factory.mktemp("checkpoint")
    vocabulary = Vocabulary.of_jamo()
    model = load_encoder(str(encoder), vocabulary, seed=4)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)  # so that it says something
    about = {"units": "jamo", "normaliser": "ko-1", "training_digest": "d" * 64}
    save_checkpoint(folder, model, vocabulary, about)
    language_model.save(symbol_ngrams(SENTENCES, vocabulary), folder)
    return folder


@pytest.fixture(scope="module")
def shipped(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "shipped"
    export(EXPORT, checkpoint=checkpoint, out_dir=folder)
    return folder


def test_fp32_graph_equals_torch_at_any_length(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    path = tmp_path / "model.onnx"
    to_onnx(loaded, path, opset=17)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for shape in ((1, 900), (2, 12_345), (1, 64_000)):
        inputs = rng.standard_normal(shape).astype(np.float32)
        (found,) = session.run(["logits"], {"input_values": inputs})
        with torch.inference_mode():
            assert np.abs(found - loaded.model(torch.from_numpy(inputs)).logits.numpy()).max() < 1e-4


def test_only_matrix_products_are_quantised(shipped: Path) -> None:
    kinds = {node.op_type for node in onnx.load(str(shipped / ONNX_NAME)).graph.node}
    assert "MatMulInteger" in kinds or "DynamicQuantizeMatMul" in kinds
    assert "Conv" in kinds
    assert "ConvInteger" not in kinds


@pytest.mark.parametrize("name", [ONNX_NAME, FP32_NAME])
def test_each_file_carries_what_it_needs(shipped: Path, checkpoint: Path, name: str) -> None:
    names = {path.name for path in shipped.iterdir()}
    assert names == {ONNX_NAME, FP32_NAME, "vocab.json", "preprocessor_config.json", "malgil.json"}
    session = onnxruntime.InferenceSession(str(shipped / name), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert language_model.read(checkpoint) == language_model.unpack(
        base64.b64decode(metadata["language_model"]), "the file"
    )
    assert SearchOptions(**json.loads(metadata["search"])) == SearchOptions()
    assert metadata["sample_rate_hz"] == "16000"
    assert metadata["normaliser"] == "ko-1"
    assert metadata["do_normalize"] == "true"
    assert metadata["training_digest"] == "d" * 64
    assert json.loads(metadata["vocabulary"]) == load_checkpoint(checkpoint).vocabulary.ids
    about = json.loads((shipped / "malgil.json").read_text(encoding="utf-8"))
    assert sha256_file(shipped / name) == about["sha256" if name == ONNX_NAME else "sha256_fp32"]
    assert about["file"] == ONNX_NAME  # the one that is gated and serves


def test_a_version_without_the_exact_file_says_so(shipped: Path, tmp_path: Path) -> None:
    shutil.copytree(shipped, tmp_path / "copy")
    (tmp_path / "copy" / FP32_NAME).unlink()
    OnnxRecogniser(tmp_path / "copy")
    with pytest.raises(ModelError, match=r"has no model\.fp32\.onnx"):
        OnnxRecogniser(tmp_path / "copy", precision="fp32")


def test_the_onnx_recogniser_starts_without_torch() -> None:
    code = "import sys, tasks.asr.engines.onnx_model; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_int8_file_that_lost_too_much_is_not_shipped(checkpoint: Path, tmp_path: Path) -> None:
    strict = ExportAsr(opset=17, max_logit_difference=1e-3, max_relative_difference_int8=1e-6)
    with pytest.raises(ModelError, match="int8 ONNX graph differs"):
        export(strict, checkpoint=checkpoint, out_dir=tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


def test_both_recognisers_say_the_same(shipped: Path, checkpoint: Path, prepared: Path) -> None:
    _, store = read_prepared(prepared).split("test_sentences")
    clips = [store.clip(index) for index in range(6)]
    by_torch, by_onnx = TorchRecogniser(checkpoint), OnnxRecogniser(shipped)
    assert by_torch.transcribe(clips) == [by_torch.transcribe([clip])[0] for clip in clips]
    agreement = np.mean(
        [a == b for a, b in zip(by_torch.transcribe(clips), by_onnx.transcribe(clips), strict=True)]
    )
    logits = by_onnx.logits(clips[0])
    assert logits.shape[1] == len(by_onnx.vocabulary.symbols)
    assert agreement >= 0 and all(isinstance(text, str) for text in by_onnx.transcribe(clips))


def test_another_graph_than_torch_is_not_shipped(checkpoint: Path, tmp_path: Path) -> None:
    strict = ExportAsr(opset=17, max_logit_difference=1e-12, max_relative_difference_int8=0.1)
    with pytest.raises(ModelError, match="differs from torch"):
        export(strict, checkpoint=checkpoint, out_dir=tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


def test_a_changed_onnx_file_is_refused(shipped: Path, tmp_path: Path) -> None:
    shutil.copytree(shipped, tmp_path / "copy")
    content = bytearray((tmp_path / "copy" / ONNX_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "copy" / ONNX_NAME).write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"malgil\.json names"):
        OnnxRecogniser(tmp_path / "copy")


def test_evaluation_covers_systems_splits_and_conditions(
    shipped: Path, checkpoint: Path, prepared: Path, tmp_path: Path
) -> None:
    paths = {"checkpoint": checkpoint, "shipped": shipped, "prepared": prepared}
    metrics = evaluate(EVALUATE, **paths, out_dir=tmp_path / "evaluation")
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    assert written == metrics
    table = pd.read_parquet(tmp_path / "evaluation" / "utterances.parquet")
    assert set(table["system"]) == {"checkpoint", "onnx_int8"}
    conditions = {name: set(own["condition"]) for name, own in table.groupby("system")}
    assert conditions == {"checkpoint": {"plain"}, "onnx_int8": {"plain", "silence", "joined"}}
    assert set(table["split"]) == {"test_sentences", "test_voices"}
    assert metrics["normaliser"] == "ko-1"
    for name in ("checkpoint", "onnx_int8"):
        own = metrics[name]
        assert own["n_unseen_sentences"] == own["n_unseen_voices"] == 16
        assert set(own["cer_by_voice"]) == {"ko+f1", "ko+m1", "ko+f2", "ko+m3"}
        assert all(
            math.isfinite(value)
            for key, value in own.items()
            if key.startswith(("cer_", "wer_")) and isinstance(value, float)
        )
        assert own["cer_ood"] is None and own["n_ood"] == 0  # the fixture has no such split
        assert not [row for row in own["slices"] if "domain" in row["slice"]]
        assert own["confusions"]["search"]["out_of_domain"] == own["jamo_counts"]["out_of_domain"] == []
        assert all(0 < row["n"] <= row["of"] for row in own["jamo_counts"]["in_domain"])
        low, high = own["cer_unseen_sentences_interval"]
        assert low <= own["cer_unseen_sentences"] <= high
        plain = table[(table["system"] == name) & (table["condition"] == "plain")]
        sentences = plain[plain["split"] == "test_sentences"]
        assert own["cer_unseen_sentences"] == pytest.approx(
            sentences["edits"].sum() / sentences["characters"].sum()
        )
    assert metrics["onnx_int8"]["n_joined"] == 4  # two voices of 8 utterances each, in groups of three
    unheard = ("cer_with_silence", "cer_joined", "cer_with_silence_unseen_voices", "cer_joined_unseen_voices")
    assert [metrics["checkpoint"][key] for key in unheard] == [None] * 4
    assert all(metrics["onnx_int8"][key] is not None for key in unheard)
    joined = table[table["condition"] == "joined"].iloc[0]
    assert joined["utterance_id"].count("+test_") == 2


def test_unseen_voices_are_averaged_not_pooled() -> None:
    rows = []
    for split, speaker, reference, hypothesis in (
        ("test_sentences", "a", "가나", "가나"),
        ("test_voices", "b", "가", "나"),
        ("test_voices", "c", "가나다라마바사아자", "가나다라마바사아자"),
    ):
        for condition in ("plain", "silence", "joined"):
            rows.append((condition, split, speaker, reference, hypothesis))
    table = pd.DataFrame(rows, columns=["condition", "split", "speaker", "reference", "hypothesis"])
    table["greedy"] = table["reference"]
    table["edits"], table["characters"] = 0, 1
    found = rates(table, EVALUATE)
    assert found["cer_unseen_voices"] == pytest.approx(0.5)
    assert found["cer_unseen_voices_greedy"] == 0.0
    assert found["cer_unseen_sentences"] == 0.0
    assert found["cer_by_voice"] == {"a": 0.0, "b": 1.0, "c": 0.0}


def test_the_out_of_domain_slice_is_measured_alone(
    shipped: Path, checkpoint: Path, prepared: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    rows = pd.read_parquet(data / "utterances.parquet")
    outside = rows["split"] == "validation"
    rows = rows.assign(ood_kind="", snr_db=float("nan"))
    rows.loc[outside, ["split", "ood_kind"]] = ["test_ood", "hum"]
    rows.loc[rows.index[outside][:3], "ood_kind"] = "quiet"
    rows.to_parquet(data / "utterances.parquet", index=False)
    paths = {"checkpoint": checkpoint, "shipped": shipped}
    found = evaluate(EVALUATE, **paths, prepared=data, out_dir=tmp_path / "with")["onnx_int8"]
    without = evaluate(EVALUATE, **paths, prepared=prepared, out_dir=tmp_path / "without")["onnx_int8"]
    table = pd.read_parquet(tmp_path / "with/utterances.parquet")
    own = table[(table["split"] == "test_ood") & (table["system"] == "onnx_int8")]
    assert set(own["condition"]) == {"plain"} and len(own) == found["n_ood"] == 16
    assert found["cer_ood"] == pytest.approx(own["edits"].sum() / own["characters"].sum())
    quiet = own[own["ood_kind"] == "quiet"]
    assert found["cer_ood_by_kind"]["quiet"] == pytest.approx(
        quiet["edits"].sum() / quiet["characters"].sum()
    )
    sizes = {row["slice"]: row["utterances"] for row in found["slices"]}
    assert (sizes["out of domain"], sizes["quiet"], sizes["hum"]) == (16, 3, 13)
    same = [key for key in without if key.startswith(("cer_", "wer_")) and "ood" not in key]
    assert {key: found[key] for key in same} == {key: without[key] for key in same}


def test_joined_groups_are_of_one_speaker_where_possible() -> None:
    assert joined_groups(["a", "b", "a", "a", "b"], 3) == [[0, 2, 3]]
    assert joined_groups(["a", "b", "c", "d"], 3) == [[0, 1, 2]]
    with pytest.raises(DataError, match="to join"):
        joined_groups(["a", "a"], 3)


def test_an_empty_test_split_is_named(
    shipped: Path, checkpoint: Path, prepared: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    rows = pd.read_parquet(data / "utterances.parquet")
    rows[rows["split"] != "test_voices"].to_parquet(data / "utterances.parquet", index=False)
    paths = {"checkpoint": checkpoint, "shipped": shipped, "prepared": data}
    with pytest.raises(DataError, match="test_voices"):
        evaluate(EVALUATE, **paths, out_dir=tmp_path / "evaluation")
