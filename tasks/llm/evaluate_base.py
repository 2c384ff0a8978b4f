"""Exact match of tool calls from true text: the base model, before any training.

    python -m tasks.llm.evaluate_base

A stage of its own: it depends on the base model and the test split alone, so a retraining does not repeat
it. `tasks.llm.evaluate` puts its figures beside those of the models that the training made.
"""

from pathlib import Path
from typing import Any

from tasks.inference.transformers_engine import TransformersEngine
from tasks.llm.measure import measure, read_examples, write_measured
from tasks.stage import run_stage

SYSTEM = "base"


def evaluate_base(
    *, examples: int, max_new_tokens: int, base: Path, prepared: Path, out_dir: Path
) -> dict[str, Any]:
    """Writes `out_dir`/metrics.json and samples.parquet with one system, `base`; returns the metrics.

    Raises:
        DataError: the test split is empty or breaks the schema. ModelError: the model cannot be read.
    """
    asked = read_examples(prepared, base, examples, max_new_tokens)
    return write_measured([measure(SYSTEM, TransformersEngine(base), base, asked)], asked.asked, out_dir)


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.llm.evaluate_base",
            None,
            evaluate_base,
            inputs={"base": Path("build/llm/base"), "prepared": Path("build/prepared/llm")},
            outputs={"out_dir": Path("build/llm/base_evaluation")},
            borrowed={
                "examples": "evaluate_llm.examples_beside",
                "max_new_tokens": "evaluate_llm.max_new_tokens",
            },
        )
    )
