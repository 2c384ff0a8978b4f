"""Exact match of tool calls from true text: base model, merged model, and every GGUF that ships.

    python -m tasks.llm.evaluate

All systems get the same commands of the test split. tokens_per_s counts the tokens of prompts and
answers (the shared prefix once) per second of wall time, on whatever threads the process has.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.artifacts import new_folder, sha256_file, write_json, write_parquet
from tasks.cpu import measured_on
from tasks.inference.engine import Engine, shared_prefix
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.inference.loading import load_tokenizer
from tasks.inference.transformers_engine import TransformersEngine
from tasks.llm.chat import Tools, load_tools, render_prompt
from tasks.llm.constrain import possible_answers
from tasks.llm.metrics import Judged, judge, share_exact
from tasks.llm.rows import read_rows
from tasks.progress import Progress
from tasks.settings import EvaluateLlm
from tasks.stage import run_stage

log = logging.getLogger("malgil.evaluate_llm")


def evaluate(
    params: EvaluateLlm, *, base: Path, merged: Path, gguf: Path, prepared: Path, out_dir: Path
) -> dict[str, Any]:
    """Writes `out_dir`/metrics.json and samples.parquet; returns the metrics.

    Raises:
        DataError: the test split is empty or breaks the schema. ModelError: a model cannot be read.
    """
    tools = load_tools(prepared / "tools.json")
    rows = read_rows(prepared / "test.jsonl", tools)[: params.examples]
    tokenizer = load_tokenizer(base)
    prompts = [render_prompt(tokenizer, row["written"]) for row in rows]
    exact, sizes, speeds = {}, {}, {}
    samples: list[dict[str, Any]] = []
    for system, path in systems(base, merged, gguf).items():
        judged, speeds[system] = answer(system, _engine(path), prompts, rows, tools, params.max_new_tokens)
        exact[system] = share_exact(judged)
        sizes[system] = weights_bytes(path)
        samples += [{"system": system, **asdict(one)} for one in judged]
        log.info(
            "%s: exact match %.3f, %.1f MB, %.0f tokens/s",
            system,
            exact[system],
            sizes[system] / 1e6,
            speeds[system],
        )
    # the release refuses to ship a GGUF other than the one measured
    sha256 = {path.stem.rpartition("-")[2]: sha256_file(path) for path in sorted(gguf.glob("*.gguf"))}
    metrics = {"exact_match": exact, "bytes": sizes, "tokens_per_s": speeds, "n": len(rows), "sha256": sha256}
    metrics["measured_on"] = measured_on()
    with new_folder(out_dir) as folder:
        write_json(folder / "metrics.json", metrics)
        write_parquet(folder / "samples.parquet", pd.DataFrame(samples))
    return metrics


def systems(base: Path, merged: Path, gguf: Path) -> dict[str, Path]:
    """Every model that is evaluated: name → folder or file; a GGUF goes by its quantisation type."""
    files = sorted(gguf.glob("*.gguf"), key=lambda path: -path.stat().st_size)
    return {"base": base, "merged": merged, **{path.stem.rpartition("-")[2]: path for path in files}}


def answer(
    system: str, engine: Engine, prompts: list[str], rows: list[dict[str, Any]], tools: Tools, max_tokens: int
) -> tuple[list[Judged], float]:
    """The judged answers of one system, and its tokens per second."""
    with Progress(f"evaluate {system}", len(rows), "commands") as progress:
        began = time.monotonic()
        allowed = [possible_answers(row["written"], tools) for row in rows]
        texts = engine.generate(prompts, max_tokens, allowed=allowed, advance=progress.advance)
        seconds = time.monotonic() - began
    return judge(rows, texts, tools), _tokens(engine.tokenise, prompts, texts) / seconds


def _tokens(tokenise: Callable[[str], list[int]], prompts: list[str], texts: list[str]) -> int:
    ids = [tokenise(prompt) for prompt in prompts]
    shared = shared_prefix(ids)
    return shared + sum(len(row) - shared for row in ids) + sum(len(tokenise(text)) for text in texts)


def _engine(path: Path) -> Engine:
    return LlamaCppEngine(path) if path.suffix == ".gguf" else TransformersEngine(path)


def weights_bytes(path: Path) -> int:
    """Bytes of a GGUF, or of the safetensors of a folder."""
    files = [path] if path.is_file() else list(path.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.llm.evaluate",
            "evaluate_llm",
            evaluate,
            inputs={
                "base": Path("build/llm/base"),
                "merged": Path("build/llm/merged"),
                "gguf": Path("build/llm/gguf"),
                "prepared": Path("build/prepared/llm"),
            },
            outputs={"out_dir": Path("build/llm/evaluation")},
        )
    )
