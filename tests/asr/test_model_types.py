"""Every type of checkpoint, with layer norm and group norm: batches, fine-tuning, export."""

import copy
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tasks.asr.checkpoints.checkpoint import MODEL_TYPES, Vocabulary, load_checkpoint
from tasks.asr.engines.channels_last import ChannelsLastEncoder, for_inference
from tasks.asr.engines.onnx_form import WholeStrides, for_onnx
from tasks.asr.engines.onnx_model import FILES
from tasks.asr.engines.torch_model import OnnxRecogniser, TorchRecogniser, recognise
from tasks.asr.export import export
from tasks.asr.train import train
from tasks.asr.training.augment import normalised
from tasks.asr.training.batching import buckets, pad, takes_mask, uses_mask
from tasks.settings import ExportAsr, TrainAsr
from tasks.tracking import read_history
from tests.asr.tiny_models import foreign_checkpoint, tiny_model

EXPORT = ExportAsr(opset=17, max_logit_difference=1e-3, max_relative_difference_int8=0.1)
TOLERANCE = 1e-4  # of logits whose spread is about 1; a mask that is wrong costs 0.2 and more
PADDED = ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm")  # with layer norm: exact under a mask
# one norm for each type, so that both are trained and exported
ONE_NORM = [(kind, ("layer", "group")[number % 2]) for number, kind in enumerate(MODEL_TYPES)]


def clips() -> list[np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(1)
    return [rng.standard_normal(n).astype(np.float32) for n in (5_321, 16_000, 16_000, 23_456, 9_999)]


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_batches_of_unequal_lengths_equal_one_by_one(kind: str, norm: str, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(foreign_checkpoint(tmp_path / "checkpoint", kind, norm))
    torch.nn.init.normal_(checkpoint.model.lm_head.weight, std=3.0)  # so that every frame says something
    exact = uses_mask(checkpoint.model)
    assert exact == (kind in PADDED and norm == "layer")
    audio = clips()
    together = recognise(checkpoint, audio, batch_seconds=60.0)
    assert together == [recognise(checkpoint, [clip], batch_seconds=60.0)[0] for clip in audio]
    assert len({found.text for found in together}) == len(audio)
    groups = buckets([len(clip) for clip in audio], 60.0, equal_only=not exact)
    assert len(groups) == (1 if exact else 4)  # without a mask only the two of one length go together
    for group in groups:
        inputs, mask = pad([normalised(audio[index]) for index in group])
        with torch.inference_mode():
            logits = checkpoint.model(inputs, attention_mask=mask if exact else None).logits
            for row, index in enumerate(group):
                alone = checkpoint.model(torch.from_numpy(normalised(audio[index]))[None]).logits[0]
                assert torch.allclose(logits[row, : len(alone)], alone, atol=10 * TOLERANCE)


def test_a_batch_norm_before_the_positional_convolution_is_never_padded() -> None:
    plain, with_norm = tiny_model("hubert"), tiny_model("hubert", conv_pos_batch_norm=True)
    assert uses_mask(plain) and not uses_mask(with_norm)
    assert takes_mask(with_norm) and not takes_mask(tiny_model("hubert", "group"))


@pytest.mark.parametrize(("kind", "norm"), ONE_NORM)
def test_every_type_learns(kind: str, norm: str, prepared: Path, settings: TrainAsr, tmp_path: Path) -> None:
    start = foreign_checkpoint(tmp_path / "start", kind, norm)
    changes = {"encoder": str(start), "steps": 30, "evaluate_every": 30, "checkpoint_every": 30}
    changes |= {"learning_rate": 0.01, "noise_share": 0.0, "joined_share": 0.0, "max_silence_s": 0.0}
    changes |= {"vocabulary": "syllable", "batch_seconds": 2.0}
    folder = tmp_path / "run"
    result = train(
        settings.model_copy(update=changes),
        prepared=prepared,
        out_dir=folder / "checkpoint",
        training_dir=folder / "training",
        work_dir=folder / "work",
    )
    losses = [row["loss"] for row in read_history(folder / "training/history.jsonl") if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert result["head"] == "new"
    written = load_checkpoint(folder / "checkpoint")
    assert written.model.config.model_type == kind
    assert written.model.config.feat_extract_norm == norm if kind != "data2vec-audio" else True


@pytest.mark.parametrize(("kind", "norm"), ONE_NORM)
def test_both_onnx_files_of_every_type_say_what_torch_says(kind: str, norm: str, tmp_path: Path) -> None:
    checkpoint = foreign_checkpoint(tmp_path / "checkpoint", kind, norm)
    export(EXPORT, checkpoint=checkpoint, out_dir=tmp_path / "shipped")
    audio = clips()
    expected = TorchRecogniser(checkpoint).transcribe(audio)
    assert OnnxRecogniser(tmp_path / "shipped", precision="fp32").transcribe(audio) == expected
    ids = json.loads((checkpoint / "vocab.json").read_text(encoding="utf-8"))
    for precision, name in FILES.items():
        recogniser = OnnxRecogniser(tmp_path / "shipped", precision=precision)  # type: ignore[arg-type]
        assert recogniser.vocabulary.ids == ids
        assert recogniser.vocabulary.blank_id == ids["[PAD]"]
        session = onnxruntime.InferenceSession(str(tmp_path / "shipped" / name))
        assert session.get_modelmeta().custom_metadata_map["sample_rate_hz"] == "16000"


def test_inputs_are_left_alone_where_the_checkpoint_says_so(tmp_path: Path) -> None:
    checkpoint = foreign_checkpoint(tmp_path / "checkpoint")
    said = json.loads((checkpoint / "preprocessor_config.json").read_text(encoding="utf-8"))
    (checkpoint / "preprocessor_config.json").unlink()
    (checkpoint / "processor_config.json").write_text(
        json.dumps({"feature_extractor": said | {"do_normalize": False}}), encoding="utf-8"
    )
    loaded = load_checkpoint(checkpoint)
    assert loaded.normalise is False
    assert loaded.vocabulary != Vocabulary.of_jamo()
    export(EXPORT, checkpoint=checkpoint, out_dir=tmp_path / "shipped")
    audio = np.float32(0.05) * clips()[0]
    with torch.inference_mode():
        plain = loaded.model(torch.from_numpy(audio)[None]).logits[0].numpy()
    for precision, bound in (("fp32", 1e-4), ("int8", 0.1)):
        recogniser = OnnxRecogniser(tmp_path / "shipped", precision=precision)  # type: ignore[arg-type]
        assert np.abs(recogniser.logits(audio) - plain).max() < bound
    assert recognise(loaded, [audio], 10.0)[0].text == TorchRecogniser(checkpoint).transcribe([audio])[0]


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_the_form_for_inference_computes_what_the_model_computes(kind: str, norm: str) -> None:
    shapes: tuple[dict[str, tuple[int, ...]], ...] = (
        {},  # kernels that are whole strides, and one that is not
        {"conv_kernel": (10, 3, 3, 2), "conv_stride": (5, 2, 2, 2)},  # as of the published ones
    )
    for shape in shapes:
        model = tiny_model(kind, norm, **shape)
        inputs = torch.from_numpy(np.stack([clips()[0], clips()[4][:5_321]]))
        with torch.inference_mode():
            plain = model(inputs).logits
        for form, encoder in ((for_inference, ChannelsLastEncoder), (for_onnx, WholeStrides)):
            other = form(copy.deepcopy(model))
            with torch.inference_mode():
                found = other(inputs).logits
            replaced = isinstance(other.base_model.feature_extractor, encoder)
            assert replaced == (norm == "layer" or kind == "data2vec-audio")
            assert torch.allclose(found, plain, atol=TOLERANCE) and plain.std() > 10 * TOLERANCE


def test_the_exported_feature_encoder_multiplies_by_no_zeros() -> None:
    """Kernels of three steps at a stride of two are products of three steps, and not of four."""
    model = tiny_model("wav2vec2", conv_kernel=(10, 3, 3, 2), conv_stride=(5, 2, 2, 2))
    layers = model.base_model.feature_extractor.conv_layers
    ours = WholeStrides(layers).others
    assert sum(w.numel() for w in ours.parameters()) == sum(w.numel() for w in layers[1:].parameters())
