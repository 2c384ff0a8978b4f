"""No speed without a right result: every implementation is judged before any is timed.

At a small odd size against the reference in float64, by the tolerance table of `malgil_kernels.testing`; at
full size against one another, because what breaks there (32-bit offsets, grids) does not show in small.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.kernel_bench.problem import Compute, Problem, outputs_and_gradients
from malgil_kernels.testing import TOLERANCE, relative_error

SLACK_AT_FULL_SIZE = 2.0  # both sides round there


def errors_small(problem: Problem, compute: Compute, device: torch.device) -> list[float]:
    """Relative errors of outputs and gradients against float64, at the small size."""
    inputs = problem.make_small(torch.Generator(device=device).manual_seed(3), device)
    wide = [
        x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x for x in inputs
    ]
    wanted = outputs_and_gradients(problem.reference, wide, problem.backward)
    found = outputs_and_gradients(compute, inputs, problem.backward)
    return [relative_error(a, b) for a, b in zip(found, wanted, strict=True)]


def verdict(problem: Problem, name: str, device: torch.device) -> str:
    """ "" when the implementation is right, else what is wrong with it."""
    try:
        errors = errors_small(problem, problem.implementations[name], device)
    except Exception as error:  # noqa: BLE001 — a peer fails in its own way; whatever it is goes into the table
        return f"fails: {type(error).__name__}: {error}".splitlines()[0][:200]
    bound = TOLERANCE[problem.dtype]
    worst = max(errors, default=0.0)
    return "" if worst <= bound else f"wrong: relative error {worst:.1e} is over {bound:.1e}"


def differs_at_full_size(
    problem: Problem, found: Sequence[torch.Tensor], other: Sequence[torch.Tensor]
) -> str:
    """ "" when two implementations agree at full size within twice the tolerance, else by how much not."""
    bound = SLACK_AT_FULL_SIZE * TOLERANCE[problem.dtype]
    for number, (a, b) in enumerate(zip(found, other, strict=True)):
        scale = float(b.detach().abs().max().float().clamp_min(1e-30))
        worst = (
            max(
                float((x.float() - y.float()).abs().max())
                for x, y in zip(
                    a.detach().reshape(-1).split(1 << 26), b.detach().reshape(-1).split(1 << 26), strict=True
                )
            )
            / scale
        )
        if not worst <= bound:
            return f"result {number} differs from the others by {worst:.1e} at full size"
    return ""
