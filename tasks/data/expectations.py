"""Great Expectations over a pandas frame: runs a list of rules and says which rows break which.

The library is imported here, inside the one function, because that costs 5 to 9 seconds; nothing but the
validation stage pays them. Its context is ephemeral: no folder, no telemetry, no Data Docs (those load from
the network).
"""

import logging
import os
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tasks.data.checks import DTYPES, REQUIRED, RowRule
from tasks.errors import DataError


class Outcome(NamedTuple):
    """One rule's answer: `failing_rows` are positions in the frame; a rule on the whole table has none."""

    rule: RowRule
    expectation: str
    passed: bool
    failing_rows: tuple[int, ...]
    observed: str


def schema_rules(columns: Collection[str]) -> list[RowRule]:
    """That the required columns are there and hold the right kind of value; asked before anything uses them.

    Args:
        columns: the frame's columns. The kind is asked only of those that it has.
    """
    exist = [
        RowRule("missing_column", name, "ExpectColumnToExist", {}, f"there is a column {name}: {holds}")
        for name, (_, holds) in REQUIRED.items()
    ]
    kinds = [
        RowRule(
            "wrong_type",
            name,
            "ExpectColumnValuesToBeInTypeList",
            {"type_list": DTYPES[kind]},
            f"column {name} holds {kind}",
        )
        for name, (kind, _) in REQUIRED.items()
        if name in columns
    ]
    return exist + kinds


def run_expectations(frame: pd.DataFrame, rules: Sequence[RowRule]) -> list[Outcome]:
    """Evaluates every rule on the frame, in one suite.

    Args:
        frame: any index; rows are named by position.
        rules: their `expectation` is the name of a class in `great_expectations.expectations`.

    Returns:
        One outcome per rule, in the rules' order.

    Raises:
        DataError: Great Expectations could not evaluate a rule on this frame.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    # It sets this one logger to INFO itself and then tells of a temporary folder.
    logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    positioned = frame.assign(row=range(len(frame)))
    asset = context.data_sources.add_pandas("corpus").add_dataframe_asset("manifest")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": positioned})
    suite = gx.ExpectationSuite(
        name="manifest",
        expectations=[
            getattr(gx.expectations, rule.expectation)(
                column=rule.column, meta={"rule": number}, **rule.arguments
            )
            for number, rule in enumerate(rules)
        ],
    )
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]}
    answers = {
        config.meta["rule"]: answer
        for answer in batch.validate(suite, result_format=form).results
        if (config := answer.expectation_config) is not None
    }
    return [_outcome(rule, answers[number]) for number, rule in enumerate(rules)]


def version() -> str:
    """The installed version of Great Expectations."""
    from importlib.metadata import version as installed

    return installed("great_expectations")


def _outcome(rule: RowRule, answer: Any) -> Outcome:
    raised = (answer.exception_info or {}).get("exception_message")
    if raised:
        raise DataError(
            f"Great Expectations could not evaluate {rule.expectation} on column {rule.column}: {raised}",
            rule.says,
            "look at the column's values; a mixture of types is the usual cause",
        )
    rows = sorted({int(found["row"]) for found in answer.result.get("unexpected_index_list") or ()})
    observed = answer.result.get("observed_value")
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", rule.expectation).lower()
    return Outcome(rule, name, bool(answer.success), tuple(rows), "" if observed is None else str(observed))
