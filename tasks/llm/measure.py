"""A model asked the commands of the test split: its answers judged and timed. No command.

`tasks.llm.evaluate_base` measures the base model, `tasks.llm.evaluate` what the training made of it. All get
the same commands, the file that serves more of them, since the gate's floors stand on it. tokens_per_s counts
the tokens of prompts and answers (the shared prefix once) per second of wall time, on whatever threads the
process has.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.artifacts import new_folder, write_json, write_parquet
from tasks.inference.engine import Engine, shared_prefix
from tasks.inference.loading import load_tokenizer
from tasks.llm.chat import Tools, load_tools, render_prompt
from tasks.llm.constrain import possible_answers
from tasks.llm.metrics import Judged, judge, share_exact
from tasks.llm.rows import answer_settings, read_rows
from tasks.progress import Progress

log = logging.getLogger("malgil.evaluate_llm")


@dataclass(frozen=True)
class Examples:
    """What every model is asked: rows of the test split, as prompts; `asked` says under which settings."""

    rows: list[dict[str, Any]]
    prompts: list[str]
    tools: Tools
    max_tokens: int
    asked: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One model's figures and judged answers."""

    system: str
    exact_match: float
    bytes: int
    tokens_per_s: float
    samples: list[dict[str, Any]]


def read_examples(prepared: Path, model: Path, examples: int, max_tokens: int) -> Examples:
    """The first `examples` commands of the test split in `prepared`, by the chat template of `model`.

    Raises:
        DataError: the test split is empty or breaks the schema. ModelError: no readable tokenizer.
    """
    tools = load_tools(prepared / "tools.json")
    rows = read_rows(prepared / "test.jsonl", tools)[:examples]
    tokenizer = load_tokenizer(model)
    prompts = [render_prompt(tokenizer, row["written"]) for row in rows]
    return Examples(
        rows, prompts, tools, max_tokens, answer_settings(prepared, max_tokens) | {"n": len(rows)}
    )


def first_of(examples: Examples, count: int) -> Examples:
    """The first `count` of the examples."""
    rows, prompts = examples.rows[:count], examples.prompts[:count]
    return replace(examples, rows=rows, prompts=prompts, asked={**examples.asked, "n": len(rows)})


def measure(system: str, engine: Engine, path: Path, examples: Examples) -> Measured:
    """Asks `engine`, made of the folder or file `path`, every example."""
    judged, speed = answer(
        system, engine, examples.prompts, examples.rows, examples.tools, examples.max_tokens
    )
    samples = [
        {"system": system, **asdict(one), "prompt": prompt}
        for one, prompt in zip(judged, examples.prompts, strict=True)
    ]
    found = Measured(system, share_exact(judged), weights_bytes(path), speed, samples)
    said = (system, found.exact_match, found.bytes / 1e6, speed)
    log.info("%s: exact match %.3f, %.1f MB, %.0f tokens/s", *said)
    return found


def write_measured(found: Sequence[Measured], about: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Writes `out_dir`/metrics.json (returned; `about` beside the figures) and samples.parquet."""
    metrics = {
        "exact_match": {one.system: one.exact_match for one in found},
        "bytes": {one.system: one.bytes for one in found},
        "tokens_per_s": {one.system: one.tokens_per_s for one in found},
        "answered": {one.system: len(one.samples) for one in found},
        **about,
    }
    with new_folder(out_dir) as folder:
        write_json(folder / "metrics.json", metrics)
        write_parquet(folder / "samples.parquet", pd.DataFrame([row for one in found for row in one.samples]))
    return metrics


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


def weights_bytes(path: Path) -> int:
    """Bytes of a GGUF, or of the safetensors of a folder."""
    files = [path] if path.is_file() else list(path.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files)
