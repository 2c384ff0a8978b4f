"""The benchmark of the kernels: it runs end to end without a GPU, and gives no speed to a wrong result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from benchmarks.kernel_bench.problem import Asked, Problem, kept_gradients, output_gradient
from benchmarks.kernel_bench.run import measure_problem

ROOT = Path(__file__).parents[2]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LIMITS = {"copy_bytes_per_s": 1e12, "matmul_flops_per_s": 1e12}


def problem(**implementations):
    def inputs(generator, device):
        return (torch.randn(3, 5, generator=generator, device=device).requires_grad_(),)

    return Problem(
        op="square",
        size="3 x 5",
        make=inputs,
        make_small=inputs,
        implementations=implementations,
        reference=lambda x: x * x,
        dtype=torch.float32,
        asked=Asked(ratios={"eager": 1e-9, "absent": 1.0}),
        bytes_moved=60,
    )


def row_of(**implementations):
    return measure_problem(problem(**implementations), DEVICE, LIMITS, budget_ms=5.0)


def test_what_is_right_is_timed_and_the_ratio_is_the_peers_time_over_ours():
    row = row_of(malgil=lambda x: x * x, eager=lambda x: x**2)
    assert set(row["timings"]) == {"malgil", "eager"}
    times = {name: timing["median_ms"] for name, timing in row["timings"].items()}
    assert row["ratios"]["eager"] == pytest.approx(times["eager"] / times["malgil"])
    # a peer that was asked for and is not there does not count as beaten
    assert row["missed"] == ["absent: no figure (not measured)"]


def test_a_wrong_result_a_wrong_gradient_and_a_failing_peer_get_no_time_and_are_named():
    def fails(x):
        raise ImportError("no such peer")

    def wrong_gradient(x):
        return x.detach() * x + 0 * x

    row = row_of(malgil=lambda x: x * x * 1.001, eager=wrong_gradient, absent=fails)
    assert row["timings"] == {}
    assert "relative error" in row["wrong"]["malgil"]
    assert "relative error" in row["wrong"]["eager"]
    assert "no such peer" in row["wrong"]["absent"]


def test_what_is_wrong_only_at_full_size_is_caught_there():
    one = problem(malgil=lambda x: x * x if len(x) == 3 else x * x + 1, eager=lambda x: x * x)

    def large(generator, device):
        return (torch.randn(64, 5, generator=generator, device=device).requires_grad_(),)

    row = measure_problem(Problem(**{**one.__dict__, "make": large}), DEVICE, LIMITS, budget_ms=5.0)
    assert "at full size" in row["wrong"]["malgil"]
    assert "malgil" not in row["timings"]


class WritesOver(torch.autograd.Function):
    """x², whose backward leaves the gradient in x, as Liger's SwiGLU does."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        x.data.mul_(2 * dy)
        return x.data


def test_what_a_peer_writes_over_is_made_again_before_another_is_judged_or_timed():
    seen = []

    def ours(x):
        seen.append(x.detach().clone())
        return x * x

    one = problem(first=WritesOver.apply, malgil=ours)
    row = measure_problem(Problem(**{**one.__dict__, "in_place": True}), DEVICE, LIMITS, budget_ms=5.0)
    assert set(row["timings"]) == {"first", "malgil"}, row["wrong"]
    generators = (torch.Generator(device=DEVICE).manual_seed(number) for number in (3, *range(17)))
    made = [one.make(generator, DEVICE)[0] for generator in generators]
    assert all(any(torch.equal(x, fresh) for fresh in made) for x in seen)


def test_the_gradient_of_an_output_has_its_layout_and_is_made_once():
    y = torch.empty(2, 3, 5, device=DEVICE).transpose(0, 1)
    assert output_gradient(y).stride() == y.stride()
    gradient = kept_gradients()
    assert gradient(y) is gradient(torch.zeros_like(y))
    assert torch.equal(gradient(y), gradient(y.contiguous()))
    assert gradient(y.contiguous()).is_contiguous()


@pytest.mark.slow
def test_the_command_runs_every_family_on_tiny_shapes_and_writes_what_it_ran_on(tmp_path):
    out = tmp_path / "kernels.json"
    command = [sys.executable, "benchmarks/triton_kernels.py", "--quick", "--out", str(out)]
    environment = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "MALGIL_KERNELS")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    families = json.loads(out.read_text())["families"]
    assert set(families) == {"norms", "pointwise", "losses", "attention", "lora", "experts"}
    for family in families.values():
        assert family["versions"]["torch"] == torch.__version__
        assert family["quick"] is True
        for row in family["rows"]:
            assert "malgil" in row["timings"], row
