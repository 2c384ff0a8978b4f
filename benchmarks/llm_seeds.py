"""The built-in language model, trained with several seeds: how far do its figures lie apart?

    python benchmarks/llm_seeds.py --seeds 1 2 3 4 5            # after `malgil run`
    python benchmarks/llm_seeds.py --seeds 1 --without-initial  # the same training from a fresh adapter
    python benchmarks/llm_seeds.py --seeds 1 --quick            # few tokens and commands: shows that it runs

Each seed is trained, merged, converted and quantised as the pipeline does it, and its Q8_0 answers the
test commands from true text: under constraint, as it serves, and left free. Written after each to
benchmarks/results/llm_seeds.json (--quick: build/benchmarks/), where a run of the same seed takes the place
of the one before it. Six to nine minutes of one core per seed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.artifacts import read_json, write_json
from tasks.asr.provenance import git_commit, machine
from tasks.gguf.convert import convert
from tasks.gguf.quantise import quantise
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.llm.chat import exact_match, load_tools, messages
from tasks.llm.constrain import possible_answers
from tasks.llm.merge import merge
from tasks.llm.rows import read_rows
from tasks.llm.train import train
from tasks.params import load
from tasks.settings import Params
from tasks.stage import set_logging

BASE, PREPARED = Path("build/llm/base"), Path("build/prepared/llm")
RESULTS = Path("benchmarks/results/llm_seeds.json")
QUICK_RESULTS = Path("build/benchmarks/llm_seeds.json")
FREE = 200  # commands answered without constraint: three times as slow


def measure(params: Params, folder: Path) -> dict[str, Any]:
    """Trains with the settings and asks the Q8_0 that comes of it."""
    began = time.process_time()
    trained = train(
        params.train_llm,
        base=BASE,
        prepared=PREPARED,
        adapter=folder / "adapter",
        training=folder / "training",
        work=folder / "work",
    )
    training_s = time.process_time() - began
    merge(base=BASE, adapter=folder / "adapter", merged=folder / "merged")
    convert(params.convert_llm, merged=folder / "merged", gguf_f16=folder / "f16")
    types = params.quantise_llm.model_copy(update={"types": (params.evaluate_road.quantisation,)})
    quantise(types, gguf_f16=folder / "f16", gguf=folder / "gguf")
    (file,) = (folder / "gguf").glob("*.gguf")
    return {
        "seed": params.train_llm.seed,
        "initial": params.train_llm.initial,
        "tokens": trained.tokens,
        "examples": trained.examples,
        "training_cpu_s": round(training_s, 1),
        "validation_loss": trained.validation_loss,
        **ask(LlamaCppEngine(file), params),
    }


def ask(engine: LlamaCppEngine, params: Params) -> dict[str, Any]:
    """Right answers under constraint and left free, with the exact two-sided 95% interval of each."""
    tools = load_tools(PREPARED / "tools.json")
    rows = read_rows(PREPARED / "test.jsonl", tools)[: params.evaluate_llm.examples]
    found: dict[str, Any] = {}
    for name, asked in (("constrained", rows), ("free", rows[:FREE])):
        allowed = (
            [possible_answers(row["written"], tools) for row in asked] if name == "constrained" else None
        )
        prompts = [engine.render(messages(row["written"])) for row in asked]
        answers = engine.generate(prompts, params.evaluate_llm.max_new_tokens, allowed=allowed)
        right = sum(
            exact_match(said, row["tool_call"], tools) for said, row in zip(answers, asked, strict=True)
        )
        interval = binomtest(right, len(asked)).proportion_ci(0.95, method="exact")
        found[name] = {
            "right": right,
            "n": len(asked),
            "share": right / len(asked),
            "interval": [float(interval.low), float(interval.high)],
        }
    return found


def main() -> None:
    """Measures every seed and writes the file after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--without-initial", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or (QUICK_RESULTS if arguments.quick else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    set_logging()
    sets = ['train_llm.initial=""'] if arguments.without_initial else []
    if arguments.quick:
        sets += ["train_llm.max_tokens=1000", "evaluate_llm.examples=8"]
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(load(sets=[*sets, f"train_llm.seed={seed}"]), Path(folder))
        row |= {"machine": machine(), "commit": git_commit()}
        report = read_json(out) if out.is_file() else {"runs": []}
        others = [run for run in report["runs"] if (run["seed"], run["initial"]) != (seed, row["initial"])]
        runs = sorted([*others, row], key=lambda run: (run["initial"] == "", run["seed"]))
        write_json(out, {"runs": runs})
        print(row, flush=True)


if __name__ == "__main__":
    main()
