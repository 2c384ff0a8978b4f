"""How a kernel is timed: device events, inputs that rotate past the cache, medians with their spread.

    timing = time_runs({"malgil": run, "eager": other}, budget_ms=200, device=torch.device("cuda"))

Runs take turns in blocks, so that clocks and heat hit all alike. On a CPU the same code runs once by the
clock of the process: it shows that a benchmark runs, and its numbers say nothing about kernels. The ceilings
(copy bandwidth, matrix rate) are measured in the same process, never taken from a datasheet.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Run = Callable[[int], object]  # takes a turn's number, by which it picks its inputs
BLOCKS = 8  # how often each implementation takes its turn
CACHE_FACTOR = 2.5  # inputs that rotate fill the L2 cache so many times
MOST_COPIES = 16


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call, and the memory it took beyond what was there before, in bytes."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    calls: int
    peak_bytes: int
    graph: bool  # replayed as a CUDA graph: without the time that launches take


def copies_past_cache(bytes_of_inputs: int, device: torch.device) -> int:
    """How many sets of inputs are needed so that a set has left the L2 cache when its turn comes again."""
    if device.type != "cuda":
        return 1
    cache: int = torch.cuda.get_device_properties(device).L2_cache_size
    return max(1, min(MOST_COPIES, round(CACHE_FACTOR * cache / max(bytes_of_inputs, 1)) + 1))


def time_runs(
    runs: Mapping[str, Run],
    *,
    budget_ms: float,
    device: torch.device,
    graph: bool = False,
    sets: int = 1,
    restore: Callable[[], None] = lambda: None,
) -> dict[str, Timing]:
    """Times every run, in turns.

    Args:
        budget_ms: device time to spend on each implementation.
        graph: replay each run as a CUDA graph, where it can be captured: for calls shorter than a launch.
        sets: how many sets of inputs a run rotates over.
        restore: called before each turn, untimed: gives back what a run has written over.
    """
    if device.type != "cuda":
        timings = {}
        for name, run in runs.items():
            restore()
            timings[name] = _by_clock(run)
        return timings
    calls, peaks, captured = dict(runs), {}, {}
    for name, run in runs.items():
        peaks[name] = _peak_bytes(run)
        if graph:
            replay = _captured(run, sets)
            captured[name] = replay is not None
            calls[name] = replay or run
    estimates = {name: _block(call, 3, 0)[0] for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for block in range(BLOCKS):
        for name, call in calls.items():
            restore()
            repeats = max(1, round(budget_ms / BLOCKS / max(estimates[name], 1e-3)))
            samples[name] += _block(call, min(repeats, 500), block)
    per_replay = {name: sets if captured.get(name) else 1 for name in runs}
    return {
        name: _timing([s / per_replay[name] for s in samples[name]], peaks[name], captured.get(name, False))
        for name in runs
    }


def _timing(samples: Sequence[float], peak: int, graph: bool) -> Timing:
    ordered = sorted(samples)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    return Timing(statistics.median(ordered), at(0.2), at(0.8), len(ordered), peak, graph)


def _block(call: Run, repeats: int, offset: int) -> list[float]:
    """Milliseconds of each of `repeats` calls, queued without waiting for one another."""
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)
    ]
    call(offset)  # the first after another implementation's turn pays for its caches
    for turn, (begin, end) in enumerate(events):
        begin.record()
        call(offset + turn)
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in events]


def _peak_bytes(run: Run) -> int:
    """What one call allocates at most, on top of its inputs; the call before it warms up."""
    run(0)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _captured(run: Run, sets: int) -> Run | None:
    """One graph of a call on each set of inputs; None where the run cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(0)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            kept = [run(turn) for turn in range(sets)]
    except RuntimeError:
        torch.cuda.synchronize()
        return None

    def replay(_: int) -> object:
        graph.replay()
        return kept

    return replay


def _by_clock(run: Run) -> Timing:
    began = time.process_time()
    run(0)
    took = (time.process_time() - began) * 1e3
    return Timing(took, took, took, 1, 0, False)


def copy_bytes_per_s(device: torch.device) -> float:
    """Bytes read plus bytes written per second by the best of a few large copies."""
    count = (1 << 30) if device.type == "cuda" else (1 << 22)
    source = torch.randn(count // 4, device=device)
    target = torch.empty_like(source)
    timing = time_runs({"copy": lambda _: target.copy_(source)}, budget_ms=200, device=device)["copy"]
    return 2 * count / timing.median_ms * 1e3


def matmul_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product on random values."""
    size = 8192 if device.type == "cuda" else 256
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    timing = time_runs({"matmul": lambda _: a @ b}, budget_ms=300, device=device)["matmul"]
    return 2 * size**3 / timing.median_ms * 1e3
