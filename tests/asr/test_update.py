"""An update is that of one large batch however it is cut, in every precision, and only what may learn learns."""

import logging
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

from tasks.asr.training.augment import Example
from tasks.asr.training.batching import AudioStore, Batch, ctc_loss, make_batch
from tasks.asr.training.freeze import Freezer, Trainable
from tasks.asr.training.processes import World
from tasks.asr.training.specaugment import Masking
from tasks.asr.training.update import Method, Updater, check_precision
from tasks.errors import CapacityError, SettingsError

FAMILIES = {
    "wav2vec2": (Wav2Vec2ForCTC, Wav2Vec2Config),
    "hubert": (HubertForCTC, HubertConfig),
    "data2vec": (Data2VecAudioForCTC, Data2VecAudioConfig),
}
MASKING = Masking(mask_time_prob=0.3, mask_time_length=4, mask_feature_prob=0.3, mask_feature_length=4)
# Three micro batches of 3, 1 and 2 utterances of other lengths, and the same six as one batch.
SECONDS = (0.5, 0.7, 0.8, 2.0, 1.1, 1.2)
CUTS = ((0, 1, 2), (3,), (4, 5))


def model_of(family: str = "wav2vec2", **changes: Any) -> Any:
    """Three layers, 16 wide, random weights that are the same every time, no dropout unless asked for."""
    torch.manual_seed(1)
    kind, config = FAMILIES[family]
    shape = {
        "vocab_size": 12,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": (8, 8, 16),
        "conv_kernel": (10, 8, 4),
        "conv_stride": (10, 8, 4),
        "conv_bias": True,
        "feat_extract_norm": "layer",
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "layerdrop": 0.0,
        "pad_token_id": 0,
        **{f"{where}_dropout": 0.0 for where in ("hidden", "attention", "activation", "feat_proj", "final")},
    }
    if family == "data2vec":
        shape |= {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}
    return kind(config(**{**shape, **changes}))


@pytest.fixture(scope="module")
def store() -> AudioStore:
    rng = np.random.default_rng(0)
    lengths = np.array([int(s * 16_000) for s in SECONDS], dtype=np.int64)
    flat = rng.integers(-8_000, 8_000, size=int(lengths.sum())).astype(np.int16)
    return AudioStore(flat, np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64), lengths)


def examples(numbers: tuple[int, ...]) -> tuple[Example, ...]:
    return tuple(
        Example(parts=(n,), silences=(0, 0), samples=int(SECONDS[n] * 16_000), seed=100 + n) for n in numbers
    )


def updater(
    model: Any, store: AudioStore, method: Method, loss_of: Any = ctc_loss, steps: int = 10
) -> Updater:
    """With plain gradient descent: Adam would blow the last bits of tiny gradients up to whole steps."""

    def batch_of(plan: tuple[Example, ...]) -> Batch:
        return make_batch(plan, store, lambda parts: [1 + parts[0], 3, 5][: 1 + parts[0] % 3], True, True)

    made = Updater(model, method, steps, batch_of, loss_of, World())
    for group in made.optimizer.param_groups:
        group["factor"] = 1.0
    made.optimizer = torch.optim.SGD(made.optimizer.param_groups)  # type: ignore[assignment]
    return made


def learned(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def after_updates(
    store: AudioStore, cuts: tuple[tuple[int, ...], ...], method: Method, **changes: Any
) -> Any:
    model = model_of(**changes).train()
    made = updater(model, store, method)
    if (
        method.precision == "fp16"
    ):  # its usual first scale overflows here, so that the first update is skipped
        made.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)  # type: ignore[attr-defined]
    losses = [made.update([examples(cut) for cut in cuts], step, 0.5)[0] for step in range(2)]
    return learned(model), losses


@pytest.mark.parametrize("masking", [Masking(), MASKING], ids=["plain", "specaugment"])
def test_micro_batches_of_unequal_size_make_the_update_of_one_large_batch(
    store: AudioStore, masking: Masking
) -> None:
    method = Method(masking=masking)
    large, losses = after_updates(store, ((0, 1, 2, 3, 4, 5),), method)
    cut, losses_cut = after_updates(store, CUTS, method)
    moved = largest_difference(large, learned(model_of()))
    assert largest_difference(large, cut) < 1e-5 * moved + 1e-6
    assert losses_cut == pytest.approx(losses, rel=1e-5)


def test_specaugment_masks_in_training_alone_and_by_the_seed_of_the_example(store: AudioStore) -> None:
    _, plain = after_updates(store, CUTS, Method())
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    _, masked = after_updates(store, CUTS, Method(masking=MASKING))
    assert masked[0] != pytest.approx(plain[0], rel=1e-3)
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]
    np.random.seed(77)
    assert after_updates(store, CUTS, Method(masking=MASKING))[1] == masked
    model = model_of()
    inputs = torch.randn(1, 16_000)
    before = model.eval()(inputs).logits
    updater(model, store, Method(masking=MASKING))
    assert torch.equal(model.eval()(inputs).logits, before)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_a_full_memory_halves_the_micro_batch_and_keeps_the_update(
    store: AudioStore, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []

    def full(module: Any, arguments: tuple[Any, ...], output: Any) -> None:
        sizes.append(arguments[0].shape[0] * arguments[0].shape[-1])
        if sizes[-1] > 3 * 16_000:
            raise error

    whole = ((0, 1, 2, 3, 4, 5),)
    expected, losses = after_updates(store, whole, Method(masking=MASKING))
    model = model_of().train()
    made = updater(model, store, Method(masking=MASKING))
    model.wav2vec2.feature_extractor.register_forward_hook(full)
    with caplog.at_level(logging.WARNING):
        found = [made.update([examples(cut) for cut in whole], step, 0.5)[0] for step in range(2)]
    assert caplog.text.count("out of memory") == len([size for size in sizes if size > 3 * 16_000]) >= 1
    assert found == pytest.approx(losses, rel=1e-5)
    moved = largest_difference(expected, learned(model_of()))
    assert largest_difference(expected, learned(model)) < 1e-5 * moved + 1e-6


def test_one_utterance_too_large_for_memory_is_said(store: AudioStore) -> None:
    def full(model: Any, batch: Batch) -> torch.Tensor:
        if batch.inputs.shape[1] > 1.5 * 16_000:
            raise MemoryError
        return ctc_loss(model, batch)

    made = updater(model_of().train(), store, Method(), full)
    with pytest.raises(CapacityError, match="one utterance"):
        made.update([examples((0, 1, 2, 3, 4, 5))], 0, 0.5)


def test_other_errors_are_not_taken_for_a_full_memory(store: AudioStore) -> None:
    def broken(model: Any, batch: Batch) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        updater(model_of().train(), store, Method(), broken).update([examples((0, 1))], 0, 0.5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        (Trainable("head"), {"head"}),
        (Trainable("top_layers", 2), {"head", "layer 2", "layer 1"}),
        (Trainable("encoder"), {"head", "layer 2", "layer 1", "layer 0", "rest"}),
        (Trainable("all"), {"head", "layer 2", "layer 1", "layer 0", "rest", "convolutions"}),
    ],
    ids=["head", "top_layers", "encoder", "all"],
)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_what_may_learn_learns_and_nothing_else(
    store: AudioStore, family: str, trainable: Trainable, expected: set[str], checkpointing: bool
) -> None:
    model = model_of(family).train()
    before = learned(model)
    made = updater(model, store, Method(trainable=trainable, gradient_checkpointing=checkpointing))
    made.update([examples((0, 1))], 0, 0.5)
    assert changed_parts(before, learned(model)) == expected


def changed_parts(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    found = set()
    for name, value in after.items():
        if torch.equal(value, before[name]):
            continue
        if name.startswith("lm_head"):
            found.add("head")
        elif ".feature_extractor." in name:
            found.add("convolutions")
        else:
            _, layer, number = name.partition(".encoder.layers.")
            found.add(f"layer {number[0]}" if layer else "rest")
    return found


@pytest.mark.parametrize(
    "trainable", [Trainable("all"), Trainable("top_layers", 1)], ids=["all", "top layer"]
)
def test_gradient_checkpointing_changes_nothing_but_memory(store: AudioStore, trainable: Trainable) -> None:
    dropout = {"hidden_dropout": 0.2, "layerdrop": 0.3}
    plain, _ = after_updates(store, CUTS, Method(trainable=trainable), **dropout)
    again, _ = after_updates(store, CUTS, Method(trainable=trainable, gradient_checkpointing=True), **dropout)
    assert largest_difference(plain, again) < 1e-6


@pytest.mark.parametrize(
    ("trainable", "opened"),
    [
        (Trainable("all"), [5, 5, 5, 5, 5]),
        (Trainable("all", unfreeze_share=0.8), [1, 2, 3, 4, 5]),
        (Trainable("encoder", unfreeze_share=0.4), [1, 3, 5, 5, 5]),
        (Trainable("top_layers", 2, unfreeze_share=0.4), [1, 2, 3, 3, 3]),
        (Trainable("head", unfreeze_share=0.4), [1, 1, 1, 1, 1]),
    ],
)
def test_layers_join_from_the_top_at_their_share_of_the_steps(
    trainable: Trainable, opened: list[int]
) -> None:
    steps = [0, 20, 40, 60, 80]
    freezer = Freezer(model_of(), trainable, steps=100)
    assert [freezer.at(step) for step in steps] == opened
    for step, parts in zip(steps, opened, strict=True):
        model = model_of()
        assert Freezer(model, trainable, steps=100).at(step) == parts  # as after a resume
        learning = [
            any(w.requires_grad for w in layer.parameters()) for layer in model.wav2vec2.encoder.layers
        ]
        assert learning == [number >= 4 - parts for number in range(3)]


def test_more_top_layers_than_there_are_is_an_error(store: AudioStore) -> None:
    with pytest.raises(SettingsError, match="top_layers = 4: the encoder has 3 layers"):
        Freezer(model_of(), Trainable("top_layers", 4), steps=10)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("fp16", 0.01)])
def test_lower_precision_learns_nearly_the_same(store: AudioStore, precision: Any, tolerance: float) -> None:
    full, losses = after_updates(store, CUTS, Method())
    lower, losses_lower = after_updates(store, CUTS, Method(precision=precision))
    assert losses_lower == pytest.approx(losses, rel=tolerance)
    assert losses_lower != losses
    assert all(value.dtype == torch.float32 for value in lower.values())
    assert largest_difference(full, lower) < 0.2 * largest_difference(full, learned(model_of()))


def test_a_precision_that_the_device_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Any:
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(torch.nn.functional, "conv1d", refuse)
    with pytest.raises(SettingsError, match="precision = fp16: cpu cannot compute"):
        check_precision("fp16", "cpu")
    check_precision("fp32", "cpu")
