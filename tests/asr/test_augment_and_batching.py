"""Plans of examples, what they render to, and batches: deterministic, of the promised length, within the budget."""

from itertools import islice

import numpy as np
import pytest

from tasks.asr.training.augment import (
    NO_AUGMENTATION,
    Augmentation,
    coloured_noise,
    draw_example,
    normalised,
    render,
)
from tasks.asr.training.batching import (
    AudioStore,
    buckets,
    cut_batches,
    make_batch,
    pad,
    plan_batches,
    rounded_up,
)
from tasks.data.espeak import SAMPLE_RATE_HZ

FULL = Augmentation(joined_share=0.6, max_joined=4, max_silence_s=1.0, noise_share=0.7)


@pytest.fixture(scope="module")
def store() -> AudioStore:
    rng = np.random.default_rng(0)
    lengths = rng.integers(8_000, 48_000, size=50).astype(np.int64)
    flat = rng.integers(-8_000, 8_000, size=int(lengths.sum())).astype(np.int16)
    return AudioStore(flat, np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64), lengths)


def test_rendered_length_is_the_planned_one(store: AudioStore) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        example = draw_example((1, 2, 3)[: 1 + seed % 3], store.lengths, FULL, rng)
        audio = render(example, [store.clip(part) for part in example.parts])
        assert len(audio) == example.samples
        assert np.isfinite(audio).all()


def test_rendering_is_repeatable(store: AudioStore) -> None:
    example = draw_example((4, 5), store.lengths, FULL, np.random.default_rng(3))
    clips = [store.clip(part) for part in example.parts]
    assert np.array_equal(render(example, clips), render(example, clips))


def test_without_augmentation_the_clip_is_unchanged(store: AudioStore) -> None:
    example = draw_example((7,), store.lengths, NO_AUGMENTATION, np.random.default_rng(0))
    assert np.array_equal(render(example, [store.clip(7)]), store.clip(7))


def test_joined_parts_come_in_order_with_silence_between(store: AudioStore) -> None:
    how = Augmentation(joined_share=1.0, max_joined=2, max_silence_s=2.0, noise_share=0.0, voice_share=0.0)
    for seed in range(20):
        example = draw_example((8, 9), store.lengths, how, np.random.default_rng(seed))
        audio = render(example, [store.clip(8), store.clip(9)])
        before, between, after = example.silences
        first = before + len(store.clip(8))
        assert not audio[:before].any()
        assert not audio[first : first + between].any()
        assert not audio[len(audio) - after :].any()
        assert np.array_equal(audio[before:first], store.clip(8))
        assert np.array_equal(audio[first + between : len(audio) - after], store.clip(9))


def test_noise_has_the_planned_level() -> None:
    how = Augmentation(joined_share=0, max_joined=1, max_silence_s=0, noise_share=1.0, voice_share=0.0)
    clip = np.sin(np.arange(32_000) / 5).astype(np.float32)
    for seed in range(5):
        example = draw_example((0,), np.array([32_000]), how, np.random.default_rng(seed))
        noise = render(example, [clip]) - clip
        assert example.snr_db is not None
        measured = 10 * np.log10(np.mean(clip**2) / np.mean(noise**2))
        assert measured == pytest.approx(example.snr_db, abs=0.1)


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_noise_has_power_one(colour: float) -> None:
    noise = coloured_noise(30_001, colour, np.random.default_rng(1))
    assert len(noise) == 30_001
    assert np.mean(noise**2) == pytest.approx(1.0, rel=1e-3)


def test_too_long_joins_are_shortened(store: AudioStore) -> None:
    how = Augmentation(
        joined_share=1.0, max_joined=8, max_silence_s=0, noise_share=0, voice_share=0, longest_s=3.0
    )
    for seed in range(10):
        example = draw_example(tuple(range(8)), store.lengths, how, np.random.default_rng(seed))
        assert example.parts == tuple(range(len(example.parts)))
        assert example.samples <= 3.0 * SAMPLE_RATE_HZ


def test_batches_keep_the_budget_and_hold_everything_once(store: AudioStore) -> None:
    rng = np.random.default_rng(0)
    examples = [draw_example((i,), store.lengths, NO_AUGMENTATION, rng) for i in range(50)]
    batches = cut_batches(examples, batch_seconds=8.0)
    assert sorted(e.parts[0] for batch in batches for e in batch) == list(range(50))
    for batch in batches:
        padded_s = len(batch) * max(e.samples for e in batch) / SAMPLE_RATE_HZ
        assert padded_s <= 8.0 or len(batch) == 1
    padded = sum(len(b) * max(e.samples for e in b) for b in batches)
    assert padded < 1.15 * sum(e.samples for e in examples)


def test_plans_continue_where_they_were_left(store: AudioStore) -> None:
    whole = list(islice(plan_batches(store.lengths, FULL, 8.0, seed=5), 40))
    again = list(islice(plan_batches(store.lengths, FULL, 8.0, seed=5), 25, 40))
    assert whole[25:] == again
    assert whole[:10] != list(islice(plan_batches(store.lengths, FULL, 8.0, seed=6), 10))


def test_ramp_starts_plain_and_ends_augmented(store: AudioStore) -> None:
    plans = plan_batches(store.lengths, FULL, 8.0, seed=1, ramp_examples=400)
    first = [e for batch in islice(plans, 20) for e in batch]
    assert all(len(e.parts) == 1 and not any(e.silences) and e.snr_db is None for e in first)
    later = [e for batch in islice(plans, 600, 700) for e in batch]
    assert any(len(e.parts) > 1 for e in later)
    assert any(e.snr_db is not None for e in later)


@pytest.mark.parametrize("masked", [True, False])
def test_make_batch_pads_and_masks(store: AudioStore, masked: bool) -> None:
    plan = next(plan_batches(store.lengths, FULL, 8.0, seed=2))
    batch = make_batch(plan, store, lambda parts: [3] * len(parts), normalise=True, masked=masked)
    longest = max(e.samples for e in plan)
    assert batch.inputs.shape == batch.mask.shape == (len(plan), rounded_up(longest) if masked else longest)
    assert batch.mask.sum(-1).tolist() == [e.samples for e in plan]
    assert batch.inputs[batch.mask == 0].abs().sum() == 0
    assert batch.target_lengths.tolist() == [len(e.parts) for e in plan]


def test_the_shapes_of_batches_come_back(store: AudioStore) -> None:
    """A shape never seen costs the convolutions a compilation; hundreds of steps must share few shapes."""
    plans = islice(plan_batches(store.lengths, FULL, 8.0, seed=3), 400)
    shapes = [(len(plan), rounded_up(max(e.samples for e in plan))) for plan in plans]
    assert len(set(shapes)) < 120
    assert all(rows * samples <= 8.0 * 16_000 for rows, samples in shapes if rows > 1)


def test_normalised_has_zero_mean_and_unit_variance(store: AudioStore) -> None:
    audio = normalised(store.clip(0) + 0.1)
    assert audio.mean() == pytest.approx(0, abs=1e-4)
    assert audio.std() == pytest.approx(1, abs=1e-3)


def test_buckets_of_equal_length_never_pad() -> None:
    lengths = [16_000, 20_000, 16_000, 20_000, 20_000]
    assert sorted(map(sorted, buckets(lengths, 60.0, equal_only=True))) == [[0, 2], [1, 3, 4]]
    assert buckets(lengths, 1.0) == [[0], [2], [1], [3], [4]]


def test_pad_shapes() -> None:
    inputs, mask = pad([np.ones(3, np.float32), np.ones(5, np.float32)])
    assert inputs.shape == (2, 5)
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
