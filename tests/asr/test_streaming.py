"""Streams against whole passes: exact where it is said, blind to the future, the same for any way of feeding."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)

from tasks.asr.checkpoints.checkpoint import Checkpoint, Vocabulary, load_checkpoint, save_checkpoint
from tasks.asr.decoding.decode import greedy
from tasks.asr.engines.torch_model import recognise
from tasks.asr.export import compare, to_onnx
from tasks.asr.streaming.attention import CHUNKED, hear_chunks
from tasks.asr.streaming.cached import CachedEncoder
from tasks.asr.streaming.level import levelled
from tasks.asr.streaming.shape import StreamingShape, make_streaming, positional
from tasks.asr.streaming.training import alternating
from tasks.asr.streaming.windowed import WindowedEncoder, WindowShape
from tasks.asr.train import train
from tasks.asr.training.augment import normalised
from tasks.asr.training.batching import pad
from tasks.errors import ModelError
from tasks.settings import TrainAsr

Array = np.ndarray[Any, Any]
VOCABULARY = Vocabulary.of_symbols(tuple("가나다라마바사아"))
SHAPES = {
    "mini": StreamingShape(chunk_frames=16, left_chunks=2, right_frames=14),
    "wide kernel, cut": StreamingShape(chunk_frames=8, left_chunks=1, right_frames=5),
    "nothing to look at": StreamingShape(chunk_frames=4, left_chunks=0, right_frames=0),
}
KERNELS = {"mini": 32, "wide kernel, cut": 63, "nothing to look at": 7}


def tiny(kind: str = "wav2vec2", **changes: Any) -> Any:
    """A random model whose attention and positions matter (larger weights than a fresh one has)."""
    shape = {
        "vocab_size": len(VOCABULARY.symbols),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "conv_dim": (16, 16, 16, 32),
        "conv_kernel": (16, 8, 4, 4),
        "conv_stride": (10, 4, 4, 2),
        "num_feat_extract_layers": 4,
        "conv_bias": True,
        "feat_extract_norm": "layer",
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 4,
        "do_stable_layer_norm": True,
        "apply_spec_augment": False,
        "pad_token_id": 0,
        **changes,
    }
    torch.manual_seed(1)
    model = {
        "wav2vec2": lambda: Wav2Vec2ForCTC(Wav2Vec2Config(**shape)),
        "hubert": lambda: HubertForCTC(HubertConfig(**shape)),
        "data2vec-audio": lambda: Data2VecAudioForCTC(Data2VecAudioConfig(**shape)),
    }[kind]()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def streaming(name: str = "mini", kind: str = "wav2vec2", stable: bool = True) -> Any:
    model = tiny(kind, num_conv_pos_embeddings=KERNELS[name], do_stable_layer_norm=stable)
    make_streaming(model, SHAPES[name])
    return model


def checkpoint_of(model: Any, normalise: bool = False) -> Checkpoint:
    return Checkpoint(model, VOCABULARY, normalise, {})


def sound(samples: int, seed: int = 0) -> Array:
    """Noise that swells and fades, with a pause in it."""
    rng = np.random.default_rng(seed)
    swell = 0.2 * np.abs(np.sin(np.arange(samples) / 5000)) * (np.arange(samples) % 30_000 > 6_000)
    return (rng.standard_normal(samples) * (swell + 0.001)).astype(np.float32)


def whole(model: Any, audio: Array, chunked: bool) -> Array:
    hear_chunks(model, chunked)
    with torch.inference_mode():
        logits: Array = model(torch.from_numpy(audio)[None]).logits[0].numpy()
    return logits


def streamed(encoder: Any, audio: Array, sizes: Any) -> Array:
    found, at = [], 0
    while at < len(audio):
        size = next(sizes)
        found += encoder.accept(audio[at : at + size])
        at += size
    return np.concatenate([*found, *encoder.finish()])


def sizes(kind: str) -> Any:
    rng = np.random.default_rng(3)
    while True:
        yield {"single": 1, "odd": int(rng.integers(1, 7000)), "all": 10**9}[kind]


@pytest.mark.parametrize(
    ("name", "kind", "stable", "feeding", "samples"),
    [
        ("mini", "wav2vec2", True, "odd", 80_077),
        ("mini", "hubert", False, "odd", 48_000),
        ("wide kernel, cut", "wav2vec2", False, "all", 60_001),
        ("wide kernel, cut", "hubert", True, "odd", 33_333),
        ("nothing to look at", "wav2vec2", True, "odd", 40_000),
        ("nothing to look at", "wav2vec2", False, "single", 3_000),
        ("mini", "wav2vec2", True, "single", 800),
        ("mini", "wav2vec2", True, "all", 686),
    ],
)
def test_cached_stream_equals_its_masked_full_pass(
    name: str, kind: str, stable: bool, feeding: str, samples: int
) -> None:
    model = streaming(name, kind, stable)
    audio = sound(samples)
    expected = whole(model, audio, chunked=True)
    found = streamed(CachedEncoder(checkpoint_of(model)), audio, sizes(feeding))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4
    assert greedy(found, VOCABULARY) == greedy(expected, VOCABULARY)
    if samples > 30_000:  # what full attention gives is something else, so the mask is not idle
        assert np.abs(whole(model, audio, chunked=False) - expected).max() > 0.1


def test_a_chunk_knows_nothing_after_its_latency() -> None:
    model = streaming()
    encoder = CachedEncoder(checkpoint_of(model))
    audio = sound(40_000)
    known = round(encoder.latency_s * 16_000)
    other = audio.copy()
    other[known:] = sound(40_000 - known, seed=9)
    first, second = (whole(model, each, chunked=True) for each in (audio, other))
    assert np.array_equal(first[:16], second[:16])
    assert not np.allclose(first[16:32], second[16:32])
    assert encoder.accept(audio[: known - 1]) == []
    assert len(encoder.accept(audio[known - 1 : known])) == 1


def test_what_a_stream_keeps_does_not_grow() -> None:
    encoder = CachedEncoder(checkpoint_of(streaming()))

    def kept() -> int:
        caches = [t for pair in encoder._caches._kept.values() for t in pair]
        front = encoder._front
        parts = [encoder._features, front._samples, front._raw, front._leveller._mean, *caches]  # type: ignore[union-attr]
        return sum(part.numel() for part in parts)

    second = sound(16_000)
    sizes_kept = []
    for _ in range(20):
        encoder.accept(second)
        sizes_kept.append(kept())
    assert max(sizes_kept[10:]) <= max(sizes_kept[:10])


def test_levelling_hears_the_same_at_any_loudness_and_nothing_of_the_future() -> None:
    audio = torch.from_numpy(sound(64_000)[8_000:])[None]
    loud, quiet = levelled(audio), levelled(audio * 0.05)
    spoken = audio.abs() > 0.02
    assert torch.allclose(loud[spoken], quiet[spoken], rtol=0.05, atol=0.01)
    offset = levelled(audio + 0.3)
    assert offset[0, 32_000:].mean().abs() < 0.1
    before = audio[:, :9_600]
    with_a_bang = torch.cat([before, torch.ones(1, 9_600)], dim=1)
    assert torch.equal(levelled(with_a_bang)[:, :9_600], levelled(before))


def test_padding_changes_nothing_in_chunks() -> None:
    model = streaming()
    short, long = sound(9_000), sound(50_000, seed=2)
    hear_chunks(model, True)
    inputs, mask = pad([short, long])
    with torch.inference_mode():
        both = model(inputs, attention_mask=mask).logits.numpy()
    assert np.isfinite(both).all()
    for row, audio in enumerate((short, long)):
        alone = whole(model, audio, chunked=True)
        assert np.abs(both[row, : len(alone)] - alone).max() < 1e-4


def test_padded_frames_see_something_for_kernels_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain softmax over nothing is NaN, which the next layer would carry into every frame."""

    def plain(query: Any, key: Any, value: Any, attn_mask: Any, scale: float, **_: Any) -> Any:
        weights = (query @ key.transpose(-1, -2) * scale).masked_fill(~attn_mask, -torch.inf)
        return weights.softmax(dim=-1) @ value

    model = streaming()
    hear_chunks(model, True)
    inputs, mask = pad([sound(9_000), sound(50_000, seed=2)])
    with torch.inference_mode():
        expected = model(inputs, attention_mask=mask).logits
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", plain)
        found = model(inputs, attention_mask=mask).logits
    assert torch.isfinite(found).all() and torch.allclose(found, expected, atol=1e-4)


def test_a_streaming_checkpoint_is_loaded_for_whole_utterances(tmp_path: Path) -> None:
    model = streaming("wide kernel, cut")
    audio = sound(30_000)
    expected = whole(model, audio, chunked=False)
    in_chunks = whole(model, audio, chunked=True)
    save_checkpoint(tmp_path, model, VOCABULARY, {}, normalise=False)
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.config._attn_implementation != CHUNKED
    assert not loaded.normalise
    with torch.inference_mode():
        found = loaded.model(torch.from_numpy(audio)[None]).logits[0].numpy()
    assert np.abs(found - expected).max() < 1e-5
    (transcript,) = recognise(loaded, [audio], 40.0)
    assert transcript.greedy == greedy(expected, VOCABULARY)
    again = streamed(CachedEncoder(loaded), audio, sizes("odd"))
    assert np.abs(again - in_chunks).max() <= 1e-4
    kernel = Wav2Vec2ForCTC.from_pretrained(tmp_path).wav2vec2.encoder.pos_conv_embed.conv.weight
    beyond = kernel[..., 63 // 2 + 5 + 1 :]
    assert beyond.numel() and not beyond.any(), "plain transformers sees the bounded convolution too"


def test_onnx_of_a_streaming_checkpoint_levels_its_input(tmp_path: Path) -> None:
    model = streaming()
    save_checkpoint(tmp_path, model, VOCABULARY, {}, normalise=False)
    loaded = load_checkpoint(tmp_path)
    to_onnx(loaded, tmp_path / "model.onnx", 17)
    assert compare(loaded, tmp_path / "model.onnx").largest < 1e-3
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    audio = sound(50_000)[8_000:]
    loud, quiet = (session.run(None, {"input_values": (a * audio)[None]})[0] for a in (1.0, np.float32(0.2)))
    assert np.abs(loud - quiet).max() < 0.5 * np.abs(loud - loud.mean()).max()


def test_windows_take_every_frame_once_from_what_they_say() -> None:
    model = tiny()
    audio = sound(100_000)
    shape = WindowShape(left_s=1.0, hop_s=0.4, right_s=0.3)
    left, hop, right = 50, 20, 15
    frames = len(whole(model, audio, chunked=False))
    for normalise in (True, False):  # False: convolution features are kept, and must not change a thing
        checkpoint = checkpoint_of(model, normalise)
        found = streamed(WindowedEncoder(checkpoint, shape), audio, sizes("odd"))
        at_once = streamed(WindowedEncoder(checkpoint, shape), audio, sizes("all"))
        assert len(found) == len(at_once) == frames
        assert np.abs(found - at_once).max() < 1e-4
        for first in (0, 3 * hop, 7 * hop):
            begin, end = max(0, first - left), first + hop + right
            window = audio[begin * 320 : (end - 1) * 320 + 686]
            logits = whole(model, normalised(window) if normalise else window, chunked=False)
            expected = logits[first - begin : first - begin + hop]
            assert np.abs(found[first : first + hop] - expected).max() < 1e-4


def test_windows_work_for_what_cannot_be_cached() -> None:
    for model in (tiny(feat_extract_norm="group"), tiny("data2vec-audio")):
        audio = sound(30_000)
        found = streamed(WindowedEncoder(checkpoint_of(model, normalise=False)), audio, sizes("odd"))
        assert found.shape == whole(model, audio, chunked=False).shape
        with pytest.raises(ModelError, match="windowed"):
            make_streaming(model, SHAPES["mini"])


def test_a_stock_checkpoint_is_told_how_to_become_a_streaming_one() -> None:
    with pytest.raises(ModelError, match=r"train_asr\.chunk_frames"):
        CachedEncoder(checkpoint_of(tiny()))
    model = streaming()
    model.config.malgil_streaming = {"chunk": 3}
    with pytest.raises(ModelError, match="malgil_streaming"):
        CachedEncoder(checkpoint_of(model))


def test_steps_are_whole_or_in_chunks_by_their_number_alone() -> None:
    model = streaming()

    def modes(start: int, per_step: int = 1) -> list[bool]:
        plans = alternating(iter(range(400)), model, 0.25, 7, per_step)
        return [model.config._attn_implementation == CHUNKED for _ in islice(plans, start, None)]

    every = modes(0)
    assert modes(150) == every[150:]
    assert 0.65 < sum(every) / len(every) < 0.85
    assert modes(0, per_step=2)[::2] == modes(0, per_step=2)[1::2] == every[:200]


def test_fine_tuning_in_chunks_writes_a_streaming_checkpoint(
    settings: TrainAsr, prepared: Path, tmp_path: Path
) -> None:
    asked = settings.model_copy(update={"chunk_frames": 8, "left_chunks": 2, "right_frames": 1})
    paths = {name: tmp_path / name for name in ("out_dir", "training_dir", "work_dir")}
    train(asked, prepared=prepared, **paths)
    loaded = load_checkpoint(paths["out_dir"])
    assert not loaded.normalise
    assert loaded.model.config.malgil_streaming["chunk_frames"] == 8
    kernel = positional(loaded.model).weight
    assert not kernel[..., 8 // 2 + 1 + 1 :].any(), "the taps beyond the look-ahead have learned"
    assert kernel[..., : 8 // 2 + 1 + 1].any(dim=0).any(dim=0).all()
    audio = sound(20_000)
    expected = whole(loaded.model, audio, chunked=True)
    found = streamed(CachedEncoder(loaded), audio, sizes("odd"))
    assert np.abs(found - expected).max() <= 1e-4
    with pytest.raises(ModelError, match="chunk_frames"):
        stock = settings.model_copy(update={"encoder": str(paths["out_dir"])})
        train(stock, prepared=prepared, **{name: tmp_path / f"other-{name}" for name in paths})
