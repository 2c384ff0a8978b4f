"""The kernels against their peers, side by side in one run on one GPU.

    python benchmarks/triton_kernels.py                         # on a GPU: benchmarks/results/kernels.json
    python benchmarks/triton_kernels.py --family norms --family rope   # some; the others' last results stay
    python benchmarks/triton_kernels.py --quick                 # tiny sizes, a CPU will do: that it runs
    python benchmarks/triton_kernels.py --plot                  # docs/reference/kernels.svg from the JSON

Nothing that computes a wrong result is given a speed (`kernel_bench/verify.py`). Peers that are not installed
are named as missing: `pip install --no-deps liger-kernel bitsandbytes peft`, which can be carried as wheels.

On the GPU machine: its own torch 2.11, triton 3.6, transformers 5.17 and numpy 2.5 do, and nothing of ours is
installed there. With those and no GPU, `--quick` needs numpy below 2.4: see kernels/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before any kernel is imported
os.environ.setdefault("MALGIL_KERNELS", "triton")

from benchmarks.kernel_bench.plot import plot
from benchmarks.kernel_bench.problem import Problem
from benchmarks.kernel_bench.report import circumstances, load, save, table
from benchmarks.kernel_bench.run import FAMILIES, ceilings, measure_problem

OUT = ROOT / "benchmarks/results/kernels.json"
PLOT = ROOT / "docs/reference/kernels.svg"


def main() -> int:
    """Measures the families asked for and writes table and JSON; 1 when ours gave a wrong result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; needs no GPU")
    parser.add_argument("--budget-ms", type=float, default=150.0, help="device time per implementation")
    parser.add_argument("--out", type=Path, help="default: results/kernels.json; with --quick none")
    parser.add_argument("--commit", default="", help="where there is no git folder to ask")
    parser.add_argument("--plot", action="store_true", help="draw what --out holds, measure nothing")
    arguments = parser.parse_args()
    out: Path | None = arguments.out or (None if arguments.quick else OUT)
    if arguments.plot:
        plot(load(out or OUT), PLOT)
        print(f"wrote {PLOT.relative_to(ROOT)}")
        return 0
    if not torch.cuda.is_available() and not arguments.quick:
        print("no CUDA device: a speed needs one. Next: --quick shows that it runs", file=sys.stderr)
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results = load(out) if out and out.is_file() else {"families": {}}
    limits = ceilings(device)
    wrong = 0
    for family in arguments.family or list(FAMILIES):
        rows = []
        problems: list[Problem] = list(FAMILIES[family](arguments.quick))
        for number, problem in enumerate(problems, 1):
            print(f"{family} {number}/{len(problems)}: {problem.name}", file=sys.stderr, flush=True)
            rows.append(measure_problem(problem, device, limits, arguments.budget_ms))
        print(table(rows, limits), flush=True)
        wrong += sum(row["wrong"].get("malgil", "") != "" for row in rows)
        results["families"][family] = {
            "rows": rows,
            "ceilings": limits,
            **circumstances(arguments.quick, arguments.commit),
        }
        if out:
            save(results, out)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
