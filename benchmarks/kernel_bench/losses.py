"""Benchmarks of the losses: cross-entropy of logits, and of hidden states through the output projection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy as eager_cross_entropy

from benchmarks.kernel_bench.peers import compiled, made, normal, peer
from benchmarks.kernel_bench.problem import Asked, Problem
from malgil_kernels import cross_entropy, linear_cross_entropy
from malgil_kernels.cross_entropy.options import LossOptions
from malgil_kernels.cross_entropy.reference import cross_entropy_reference
from malgil_kernels.linear_cross_entropy.reference import linear_cross_entropy_reference

BF16 = torch.bfloat16
LIGER = "liger_kernel.transformers.functional"
# tokens, vocabulary; the first is the figure asked for
LOGITS = ((16_384, 131_072), (8_192, 262_144), (32_768, 49_152))
LOGITS_QUICK = ((5, 1_000),)
# tokens, hidden size, vocabulary, share of tokens that count, whether the weight is trained
LINEAR = (
    (32_768, 4_096, 128_256, 1.0, True),
    (32_768, 4_096, 128_256, 1.0, False),
    (32_768, 4_096, 128_256, 0.25, False),
)
LINEAR_QUICK = ((9, 16, 300, 0.5, False),)
OPTIONS = LossOptions(-100, 0.0, None, 0.0, "mean")


def problems(quick: bool) -> Iterator[Problem]:
    """Cross-entropy by vocabulary, then the fused projection: trained, frozen, and with completions alone."""
    for size in LOGITS_QUICK if quick else LOGITS:
        yield _logits(*size)
    for tokens, hidden, vocab, share, trained in LINEAR_QUICK if quick else LINEAR:
        yield _linear(tokens, hidden, vocab, share, trained)


def _targets(count: int, vocab: int, share: float, generator: torch.Generator) -> torch.Tensor:
    device = generator.device
    targets = torch.randint(vocab, (count,), generator=generator, device=device)
    counts = torch.rand(count, generator=generator, device=device) < share
    counts[0] = True
    return torch.where(counts, targets, torch.full_like(targets, -100))


def _logits(tokens: int, vocab: int) -> Problem:
    def inputs(tokens: int, vocab: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return normal((tokens, vocab), BF16, generator), _targets(tokens, vocab, 1.0, generator)

    def eager(logits: Any, target: Any) -> Any:
        return eager_cross_entropy(logits.float(), target)

    liger = peer(LIGER, "liger_cross_entropy")
    return Problem(
        op="cross_entropy",
        size=f"{tokens:,} tokens of {vocab:,}, bf16",
        make=lambda generator, _: inputs(tokens, vocab, generator),
        make_small=lambda generator, _: inputs(7, min(vocab, 1_000), generator),
        implementations={
            "malgil": lambda x, t: cross_entropy(made(x), t, gradient_in_place=True),
            "eager": eager,
            "compile": compiled(eager),
            "liger": lambda x, t: liger(made(x), t),
        },
        reference=lambda x, t: cross_entropy_reference(x, t, OPTIONS, None),
        dtype=BF16,
        asked=Asked(ratios={"liger": 1.0}, copy=0.8) if vocab == 131_072 else Asked(ratios={"liger": 1.0}),
        bytes_moved=2 * 2 * tokens * vocab,  # logits read, gradients written, two bytes each
        in_place=True,
    )


def _linear(tokens: int, hidden: int, vocab: int, share: float, trained: bool) -> Problem:
    def inputs(tokens: int, vocab: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        h = normal((tokens, hidden), BF16, generator)
        w = (normal((vocab, hidden), BF16, generator, grad=False) * hidden**-0.5).requires_grad_(trained)
        return h, w, _targets(tokens, vocab, share, generator)

    def eager(h: Any, w: Any, target: Any) -> Any:
        return eager_cross_entropy((h @ w.t()).float(), target)

    liger = peer(LIGER, "liger_fused_linear_cross_entropy")
    products = 3 if trained else 2
    first = share == 1.0 and trained
    return Problem(
        op="linear_cross_entropy",
        size=f"{tokens:,} tokens of {hidden:,}, vocabulary {vocab:,}, {share:.0%} count, "
        f"{'trained' if trained else 'frozen'} weight, bf16",
        make=lambda generator, _: inputs(tokens, vocab, generator),
        make_small=lambda generator, _: inputs(min(tokens, 33), min(vocab, 500), generator),
        implementations={
            "malgil": lambda h, w, t: linear_cross_entropy(h, w, t),
            "eager": eager,
            "liger": lambda h, w, t: liger(h, w, t),
        },
        reference=lambda h, w, t: linear_cross_entropy_reference(h, w, t, OPTIONS, None),
        dtype=BF16,
        asked=Asked(ratios={"liger": 1 / 0.9}, memory={"liger": 1.1}) if first else Asked(),
        flops=2 * products * int(tokens * share) * hidden * vocab,
        bytes_moved=2 * (2 * tokens * hidden + (2 if trained else 1) * vocab * hidden),
    )
