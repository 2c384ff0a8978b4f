"""Packed examples are exactly what they are alone, and no token is lost."""

import logging
from pathlib import Path

import pytest
import torch

from tasks.inference.loading import load_model, load_tokenizer
from tasks.llm.attention import PACKED, completion_loss, packed_logits
from tasks.llm.packing import Example, encode, pack, shared_prefix
from tests import tiny_llm


@pytest.fixture(scope="module")
def examples(base: Path) -> list[Example]:
    return encode(load_tokenizer(base), tiny_llm.rows(12))


def alone(model: torch.nn.Module, example: Example) -> torch.Tensor:
    """(completion, vocabulary) logits of one example by itself."""
    ids = torch.tensor([[*example.prompt, *example.completion]])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return logits[len(example.prompt) - 1 : -1].float()


@pytest.mark.parametrize("share", [True, False])
def test_packed_logits_equal_separate_ones(base: Path, examples: list[Example], share: bool) -> None:
    prefix = shared_prefix(examples) if share else 0
    assert not share or prefix > 5
    packed = load_model(base, attention=PACKED).eval()
    plain = load_model(base).eval()
    with torch.no_grad():
        for row in pack(examples, 500, prefix):
            assert row.prefix == prefix and len(row.segments) > 1
        together = torch.cat([packed_logits(packed, row) for row in pack(examples, 500, prefix)])
        separate = torch.cat([alone(plain, example) for example in examples])
    torch.testing.assert_close(together, separate, rtol=1e-4, atol=1e-4)


def test_the_plain_attention_would_leak(base: Path, examples: list[Example]) -> None:
    """The comparison above can fail: the same row under an ordinary mask differs by far more."""
    plain = load_model(base).eval()
    row = pack(examples[:3], 1000, 0)[0]
    with torch.no_grad():
        leaking = plain(input_ids=row.ids[None], attention_mask=torch.ones_like(row.ids[None])).logits[0]
        separate = torch.cat([alone(plain, example) for example in examples[:3]])
    assert (leaking[row.predicting].float() - separate).abs().max() > 0.1


def test_gradients_of_packed_rows_are_the_sums(base: Path, examples: list[Example]) -> None:
    packed, plain = (load_model(base, attention=kind) for kind in (PACKED, "sdpa"))
    for row in pack(examples[:4], 1000, shared_prefix(examples)):
        completion_loss(packed, row).backward()
    for example in examples[:4]:
        targets = torch.tensor(example.completion)
        torch.nn.functional.cross_entropy(alone(plain, example), targets, reduction="sum").backward()
    for (name, one), (_, other) in zip(packed.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, other.grad, rtol=1e-3, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("length", [64, 200, 1000])
def test_no_token_is_lost(examples: list[Example], length: int) -> None:
    prefix = shared_prefix(examples)
    rows = pack(examples, length, prefix)
    targets = [token for row in rows for token in row.targets.tolist()]
    assert targets == [token for example in examples for token in example.completion]
    own = [token for row in rows for start, end in row.segments for token in row.ids[start:end].tolist()]
    assert own == [t for e in examples for t in (*e.prompt[prefix:], *e.completion)]
    assert all(len(row.ids) <= length or len(row.segments) == 1 for row in rows)


def test_a_long_example_is_said(examples: list[Example], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pack(examples, 40, shared_prefix(examples))
    assert "a longer row of its own" in caplog.text


def test_completion_ends_with_the_end_token(base: Path, examples: list[Example]) -> None:
    end = load_tokenizer(base).eos_token_id
    assert all(example.completion[-1] == end and end not in example.completion[:-1] for example in examples)
