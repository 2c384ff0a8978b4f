"""Measures one problem: judges every implementation, times the right ones in turns, adds up the figures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.kernel_bench import attention, experts, lora, losses, norms, pointwise
from benchmarks.kernel_bench.measure import (
    Run,
    Timing,
    copies_past_cache,
    copy_bytes_per_s,
    matmul_flops_per_s,
    time_runs,
)
from benchmarks.kernel_bench.problem import Compute, Problem, Tensors, kept_gradients, outputs_and_gradients
from benchmarks.kernel_bench.verify import differs_at_full_size, verdict

FAMILIES: dict[str, Callable[[bool], Iterable[Problem]]] = {
    "norms": norms.problems,
    "pointwise": pointwise.problems,
    "losses": losses.problems,
    "attention": attention.problems,
    "lora": lora.problems,
    "experts": experts.problems,
}
Row = dict[str, Any]


def ceilings(device: torch.device) -> dict[str, float]:
    """What the device does at most, measured now: bytes copied per second and bf16 FLOPs per second."""
    return {
        "copy_bytes_per_s": copy_bytes_per_s(device),
        "matmul_flops_per_s": matmul_flops_per_s(device, torch.bfloat16),
    }


def measure_problem(
    problem: Problem, device: torch.device, limits: dict[str, float], budget_ms: float
) -> Row:
    """A row of the table: timings of all that are right, why the others have none, and the verdicts."""
    wrong = {name: verdict(problem, name, device) for name in problem.implementations}
    timings = _timings(problem, wrong, device, budget_ms)
    torch.compiler.reset()  # its limit of recompilations is per function, and sizes share theirs
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return _row(problem, timings, wrong, limits)


def _timings(
    problem: Problem, wrong: dict[str, str], device: torch.device, budget_ms: float
) -> dict[str, Timing]:
    """Times what is right; adds to `wrong` what turns out not to be at full size."""

    def made(number: int) -> Tensors:
        return problem.make(torch.Generator(device=device).manual_seed(number), device)

    wrong |= _full_size_verdicts(problem, wrong, made)
    sets = [made(0)]
    copies = copies_past_cache(sum(x.nbytes for x in sets[0]), device)
    sets += [made(number) for number in range(1, copies)]
    gradient = kept_gradients()

    def turns(compute: Compute) -> Run:
        return lambda turn: outputs_and_gradients(compute, sets[turn % len(sets)], problem.backward, gradient)

    @torch.no_grad()
    def restore() -> None:
        for number, inputs in enumerate(sets if problem.in_place else []):
            for x, fresh in zip(inputs, made(number), strict=True):
                x.copy_(fresh)

    runs = {name: turns(compute) for name, compute in problem.implementations.items() if not wrong[name]}
    if not runs:
        return {}
    return time_runs(
        runs, budget_ms=budget_ms, device=device, graph=problem.graph, sets=len(sets), restore=restore
    )


def _full_size_verdicts(
    problem: Problem, wrong: dict[str, str], made: Callable[[int], Tensors]
) -> dict[str, str]:
    """Ours against the first peer that is right, at full size; {} where there is nothing to compare with."""
    peers = [name for name, why in wrong.items() if not why and name != "malgil"]
    if wrong["malgil"] or not peers:
        return {}
    # each on inputs of its own, equal ones: either may write over them
    other = outputs_and_gradients(problem.implementations[peers[0]], made(0), problem.backward)
    found = outputs_and_gradients(problem.implementations["malgil"], made(0), problem.backward)
    return {"malgil": differs_at_full_size(problem, found, other)}


def _row(
    problem: Problem, timings: dict[str, Timing], wrong: dict[str, str], limits: dict[str, float]
) -> Row:
    ours = timings.get("malgil")
    peers = {name: t for name, t in timings.items() if name != "malgil"}
    row: Row = {
        "name": problem.name,
        "op": problem.op,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "bytes_moved": problem.bytes_moved,
        "flops": problem.flops,
        "timings": {name: asdict(t) for name, t in timings.items()},
        "wrong": {name: why for name, why in wrong.items() if why},
        "asked": asdict(problem.asked),
        "ratios": {name: t.median_ms / ours.median_ms for name, t in peers.items()} if ours else {},
        "best_peer": min(peers, key=lambda name: peers[name].median_ms) if peers else None,
    }
    if ours:
        seconds = ours.median_ms / 1e3
        row["share_of_copy"] = problem.bytes_moved / seconds / limits["copy_bytes_per_s"]
        row["share_of_matmul"] = problem.flops / seconds / limits["matmul_flops_per_s"]
        row["gb_per_s"] = problem.bytes_moved / seconds / 1e9
        row["tflop_per_s"] = problem.flops / seconds / 1e12
        row["memory_ratios"] = {
            name: ours.peak_bytes / t.peak_bytes for name, t in peers.items() if t.peak_bytes
        }
        row["missed"] = _missed(problem, row)
    return row


def _missed(problem: Problem, row: Row) -> list[str]:
    """Each figure asked for that was not reached; a peer that is missing is not counted as beaten."""
    asked, said = problem.asked, []
    for peer, least in asked.ratios.items():
        found = row["ratios"].get(peer)
        if found is None:
            said.append(f"{peer}: no figure ({row['wrong'].get(peer, 'not measured')})")
        elif found < least:
            said.append(f"{peer}: {found:.2f}x, asked {least:g}x")
    for peer, most in asked.memory.items():
        found = row["memory_ratios"].get(peer)
        if found is None or found > most:
            said.append(f"memory over {peer}'s: {found and f'{found:.2f}'}, asked {most:g} at most")
    if asked.copy and row["share_of_copy"] < asked.copy:
        said.append(f"{row['share_of_copy']:.0%} of the copy ceiling, asked {asked.copy:.0%}")
    if asked.tflops and row["tflop_per_s"] < asked.tflops:
        said.append(f"{row['tflop_per_s']:.0f} TFLOP/s, asked {asked.tflops:g}")
    return said
