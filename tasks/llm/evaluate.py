"""Exact match of tool calls from true text: merged model, every GGUF that ships, and the base model beside.

    python -m tasks.llm.evaluate

All systems get the same commands of the test split (`tasks.llm.measure`). The base model's answers are those
of the stage `evaluate_base_llm`.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from tasks.artifacts import read_json, sha256_file
from tasks.cpu import measured_on
from tasks.errors import ArtifactError, explain_os_error
from tasks.inference.engine import Engine
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.inference.transformers_engine import TransformersEngine
from tasks.llm.measure import Examples, Measured, first_of, measure, read_examples, write_measured
from tasks.settings import EvaluateLlm
from tasks.stage import run_stage


def evaluate(
    params: EvaluateLlm,
    *,
    serves: str,
    base_evaluation: Path,
    merged: Path,
    gguf: Path,
    prepared: Path,
    out_dir: Path,
) -> dict[str, Any]:
    """Writes `out_dir`/metrics.json and samples.parquet; returns the metrics.

    Args:
        serves: the quantisation type that serves: it answers `params.examples` commands, the others the first
            `params.examples_beside` of them.
        base_evaluation: what `tasks.llm.evaluate_base` wrote for the same examples.

    Raises:
        DataError: the test split is empty or breaks the schema. ModelError: a model cannot be read.
        ArtifactError: the base model was asked something else.
    """
    asked = read_examples(prepared, merged, params.examples, params.max_new_tokens)
    beside = first_of(asked, params.examples_beside)
    found = read_measured(base_evaluation, beside)
    for system, path in systems(merged, gguf).items():
        found.append(measure(system, _engine(path), path, asked if system == serves else beside))
    # the release refuses to ship a GGUF other than the one measured
    sha256 = {path.stem.rpartition("-")[2]: sha256_file(path) for path in sorted(gguf.glob("*.gguf"))}
    about = {"sha256": sha256, "measured_on": measured_on()}
    return write_measured(found, asked.asked | about, out_dir)


def systems(merged: Path, gguf: Path) -> dict[str, Path]:
    """Every model that is asked here: name → folder or file; a GGUF goes by its quantisation type."""
    files = sorted(gguf.glob("*.gguf"), key=lambda path: -path.stat().st_size)
    return {"merged": merged, **{path.stem.rpartition("-")[2]: path for path in files}}


def read_measured(folder: Path, asked: Examples) -> list[Measured]:
    """What another stage measured with the same examples.

    Raises:
        ArtifactError: the files cannot be read, or the examples or their settings were others.
    """
    metrics = read_json(folder / "metrics.json")
    try:
        samples = pd.read_parquet(folder / "samples.parquet")
    except OSError as error:
        raise explain_os_error(error, folder / "samples.parquet") from error
    same = {key: metrics.get(key) for key in asked.asked} == asked.asked
    found = []
    for system, rows in samples.groupby("system", sort=False):
        name = str(system)
        records = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
        found.append(
            Measured(
                system=name,
                exact_match=metrics["exact_match"][name],
                bytes=metrics["bytes"][name],
                tokens_per_s=metrics["tokens_per_s"][name],
                samples=records,
            )
        )
        same = same and rows["prompt"].tolist() == asked.prompts
    if not same:
        raise ArtifactError(
            f"{folder} holds answers to other examples",
            "every system must have been asked the same",
            "make it again: `dvc repro evaluate_base_llm`",
        )
    return found


def _engine(path: Path) -> Engine:
    return LlamaCppEngine(path) if path.suffix == ".gguf" else TransformersEngine(path)


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.llm.evaluate",
            "evaluate_llm",
            evaluate,
            inputs={
                "base_evaluation": Path("build/llm/base_evaluation"),
                "merged": Path("build/llm/merged"),
                "gguf": Path("build/llm/gguf"),
                "prepared": Path("build/prepared/llm"),
            },
            outputs={"out_dir": Path("build/llm/evaluation")},
            borrowed={"serves": "evaluate_road.quantisation"},
        )
    )
