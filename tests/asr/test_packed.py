"""Recordings packed without padding: each says what the model, as transformers loads it, says of it alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.asr.checkpoints.layout import MODEL_TYPES
from tasks.asr.engines.channels_last import multiply_out
from tasks.asr.engines.packed import PackedModel, why_not_packed
from tasks.asr.engines.torch_acoustic import TorchAcoustic, packs
from tasks.asr.recordings.windows import Grid, measure_grid
from tasks.asr.streaming.shape import StreamingShape, make_streaming
from tests.asr.tiny_models import foreign_checkpoint, tiny_model

TOLERANCE = 1e-5  # of logits whose spread is 1
PACKED = ("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2")
SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"conv_kernel": (10, 3, 3, 2), "conv_stride": (5, 2, 2, 2)},  # kernels that are no whole strides
    {"do_stable_layer_norm": False},
    {"conv_bias": False, "feat_proj_layer_norm": False},
)


def weighty(model: Any) -> Any:
    """The model with random weights and norms in all places, so that a part left out or swapped shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            spread = 0.5 / max(1, weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.3
            weight += 4 * spread * torch.randn(weight.shape, generator=generator)
    return model


def grid_of(model: Any) -> Grid:
    return measure_grid(
        lambda samples: int(model._get_feat_extract_output_lengths(torch.tensor([samples]))[0])
    )


def clips(grid: Grid) -> list[Any]:
    """One frame, some frames, several blocks of frames."""
    rng = np.random.default_rng(1)
    return [
        rng.standard_normal(n).astype(np.float32) for n in (grid.field, 5_321, grid.samples(1_500), 9_999)
    ]


def alone(model: Any, audio: list[Any]) -> list[Any]:
    with torch.inference_mode():
        return [model(torch.from_numpy(clip)[None]).logits[0].numpy() for clip in audio]


def check(model: Any) -> None:
    audio = clips(grid := grid_of(model))
    expected = alone(model, audio)
    scale = np.concatenate(expected).std()
    for found, own in zip(PackedModel(model, grid).logits(audio), expected, strict=True):
        assert found.shape == own.shape and np.abs(found - own).max() < TOLERANCE * scale
    for found, own in zip(alone(model, audio), expected, strict=True):  # the model itself still works
        assert np.abs(found - own).max() < TOLERANCE * scale


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_says_what_the_model_says_alone(kind: str, norm: str) -> None:
    for shape in SHAPES:
        check(weighty(tiny_model(kind, norm, **shape)))


@pytest.mark.parametrize(
    "positions",
    [
        {"num_conv_pos_embeddings": 7},
        {"num_conv_pos_embeddings": 1},
        {"num_conv_pos_embedding_groups": 1},
        {"num_conv_pos_embedding_groups": 32},
        {"conv_pos_batch_norm": True},
    ],
)
def test_every_positional_convolution(positions: dict[str, Any]) -> None:
    check(weighty(tiny_model("hubert", **positions)))


def test_a_streaming_checkpoint_levels_its_input() -> None:
    model = weighty(tiny_model("wav2vec2"))
    make_streaming(model, StreamingShape(chunk_frames=8, left_chunks=2, right_frames=2))
    check(model)


def test_what_cannot_be_packed_is_said() -> None:
    assert {kind for kind in MODEL_TYPES if why_not_packed(tiny_model(kind)) is None} == set(PACKED)
    assert "adapter" in str(why_not_packed(tiny_model("wav2vec2", add_adapter=True)))
    assert "adapters" in str(why_not_packed(tiny_model("wav2vec2", adapter_attn_dim=4)))


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_a_checkpoint_of_any_type_hears_the_same(kind: str, tmp_path: Path) -> None:
    """Packed or padded, through the door that transcription takes."""
    acoustic = TorchAcoustic(foreign_checkpoint(tmp_path, kind), 10.0, use_search=False)
    assert (acoustic.packed is None) == (kind not in PACKED)
    audio = clips(acoustic.grid)
    for found, own in zip(acoustic.logits(audio), alone(acoustic.model, audio), strict=True):
        assert found.shape == own.shape and np.abs(found - own).max() < 1e-4


def test_weights_are_shared_and_not_copied() -> None:
    model = tiny_model("wav2vec2")
    multiply_out(model)
    packed = PackedModel(model, grid_of(model))
    attention = model.base_model.encoder.layers[0].attention
    ours = packed._layers[0]._weight.untyped_storage().data_ptr()
    assert {part.weight.untyped_storage().data_ptr() for part in (attention.q_proj, attention.v_proj)} == {
        ours
    }


def test_packs_hold_every_clip_once_and_not_too_much_and_the_fullest_come_last() -> None:
    audio = [np.zeros(16_000 * seconds, np.float32) for seconds in (3, 30, 1, 4, 2, 9, 1)]
    groups = packs(audio, most_s=10.0)
    assert sorted(index for group in groups for index in group) == list(range(len(audio)))
    assert groups == [[3], [2, 6, 4, 0], [5], [1]]
    assert packs([], 10.0) == []
