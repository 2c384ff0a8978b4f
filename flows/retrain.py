"""The flow `retrain`: the whole road, from settings to a released version.

    malgil run [--line asr|llm|all] [--quick] [-S section.key=value]...

A straight line of policy over functions that know nothing of Prefect: DVC stages (`flows.steps`) and the
release (`tasks.release`). The two lines run side by side; nothing is released unless every stage of the
run went well.
"""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import flow, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from flows import process, steps
from flows.environment import find_project, set_environment
from flows.lock import hold_run_lock
from flows.reaping import reaper
from flows.steps import StageRun
from flows.summary import SUMMARY, build_summary
from flows.table import as_markdown
from tasks import params as settings
from tasks.artifacts import write_json
from tasks.errors import MalgilError
from tasks.params import RESOLVED
from tasks.release import release
from tasks.release.release import Line, ReleaseResult
from tasks.settings import Params

BUILD, STORE, REPORT = Path("build"), Path("store"), Path("build/report.html")
LineChoice = Literal["all", "asr", "llm"]
log = logging.getLogger("malgil")


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """A refusal that names its remedy is final; anything else (the network) is worth another try."""
    return not isinstance(state.result(raise_on_failure=False), MalgilError)


# Prefect decides when. Whether a stage is fresh is DVC's alone, so nothing is cached or persisted here.
make_stage = task(
    name="stage", task_run_name="{stage}", tags=["dvc"], cache_policy=NO_CACHE, persist_result=False
)(steps.make)
decide_line = task(name="decide", task_run_name="decide-{line}", cache_policy=NO_CACHE, persist_result=False)(
    release.decide_line
)
publish_line = task(
    name="publish",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=_may_pass,
    cache_policy=NO_CACHE,
    persist_result=False,
)(release.publish_line)
register_line = task(name="register", cache_policy=NO_CACHE, persist_result=False)(release.register_line)


@flow(name="retrain", flow_run_name="retrain-{line}", persist_result=False, log_prints=False)
def retrain(
    line: LineChoice = "all", quick: bool = False, overrides: list[str] | None = None
) -> dict[str, Any]:
    """Retrain, evaluate and release.

    Args:
        line: the recogniser (asr), the language model (llm) or both (all).
        quick: the same road on a small corpus and few steps; its versions have names of their own.
        overrides: values of params.yaml for this run alone, each "section.key=value".

    Returns:
        What stands in build/summary.json.
    """
    set_environment(find_project())
    settings.load(quick=quick, sets=overrides or ())  # every mistake at once, before anything starts
    reaper.begin(UUID(str(runtime.flow_run.id)))
    with hold_run_lock():
        steps.clear_stale_locks()
        steps.clear_left_files()
        lines: tuple[Line, ...] = ("asr", "llm") if line == "all" else (line,)
        began = time.monotonic()
        params = _settle(quick, overrides or [])
        stages = _make_all(lines)
        results = {name: _release(name, params) for name in lines}
        report = _report(params, results, stages)
        summary = build_summary(BUILD, params, results, stages, report, wall_s=time.monotonic() - began)
        write_json(SUMMARY, summary)
        create_markdown_artifact(as_markdown(summary), key="retrain", description=f"{report.resolve()}")
        return summary


def _settle(quick: bool, overrides: Sequence[str]) -> Params:
    """Writes this run's settings through the stage `settings`."""
    environment = {"MALGIL_QUICK": "1" if quick else "", "MALGIL_SET": json.dumps(list(overrides))}
    make_stage("settings", environment, always=True)
    return settings.load(RESOLVED)


def _make_all(lines: Sequence[Line]) -> dict[str, StageRun]:
    """Every stage that the lines need, the two lines side by side; the first failure once all have ended.

    What a line needs beside the shared stages is made while these are, and its checks run side by side.
    """
    futures: dict[str, PrefectFuture[StageRun]] = {}
    beside = any(steps.EARLY.get(name) for name in lines)  # threads that wait for a core slow both down
    shared = _chain(steps.SHARED, steps.threads(2 if beside else 1), [], futures)
    ends: list[PrefectFuture[StageRun]] = []
    for name in lines:
        early = _chain(steps.EARLY.get(name, ()), steps.threads(2), [], futures)
        made = _chain(steps.LINES[name], steps.threads(len(lines)), [*shared, *early], futures)
        for check in steps.CHECKS.get(name, ()):
            ends += _chain((check,), steps.threads(2), made, futures)
        ends += made
    shipped = (BUILD / "asr/shipped", BUILD / "llm/gguf")
    if len(lines) == 2 or all(folder.exists() for folder in shipped):
        # llama.cpp's threads spin while they wait: on a busy machine a thread too many is many times slower
        _chain((steps.ROAD,), steps.threads(2), ends, futures)
    try:
        for future in futures.values():
            future.wait()
    except BaseException:
        process.stop_all()  # Ctrl-C: the stages' threads return, and so can we
        raise
    states = [future.state for future in futures.values()]
    ended_badly = [state for state in states if state.is_failed() or state.is_crashed()]
    causes = [state.result(raise_on_failure=False) for state in ended_badly]
    for cause in sorted(causes, key=lambda cause: not isinstance(cause, MalgilError)):
        if isinstance(cause, BaseException):
            raise cause
    return {stage: future.result() for stage, future in futures.items()}


def _chain(
    stages: Sequence[str],
    environment: dict[str, str],
    after: list[PrefectFuture[StageRun]],
    futures: dict[str, PrefectFuture[StageRun]],
) -> list[PrefectFuture[StageRun]]:
    """Submits stages, each after the one before; returns what to wait for next."""
    for stage in stages:
        futures[stage] = make_stage.submit(stage, environment, wait_for=after, return_state=False)
        after = [futures[stage]]
    return after


def _release(line: Line, params: Params) -> ReleaseResult:
    """Decide, publish, register: one line after the other, since both write the same store."""
    judgement = decide_line(line, params, build_dir=BUILD, store_dir=STORE)
    published = publish_line(judgement, params, build_dir=BUILD, store_dir=STORE)
    run_id = str(runtime.flow_run.id or "")
    return register_line(judgement, published, params, build_dir=BUILD, store_dir=STORE, flow_run_id=run_id)


def _report(params: Params, results: dict[Line, ReleaseResult], stages: dict[str, StageRun]) -> Path:
    """Writes the report and puts it beside the MLflow runs; a report of the same results stays as it is."""
    unchanged = all(stage.fresh for stage in stages.values()) and REPORT.is_file() and _told(results)
    if not unchanged:
        write_report_task(stages, results)
        release.attach_report(results, REPORT, params)
    return REPORT


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def write_report_task(stages: dict[str, StageRun], results: dict[Line, ReleaseResult]) -> None:
    """Writes build/report.html."""
    from tasks.report import write_report

    told: dict[str, dict[str, Any]] = {line: {**result} for line, result in results.items()}
    write_report(BUILD, told, {name: stage.summary() for name, stage in stages.items()}, REPORT)


def _told(results: dict[Line, ReleaseResult]) -> bool:
    """Whether the last summary, and so its report, has these results."""
    try:
        before = json.loads(SUMMARY.read_text("utf-8"))["release"]
        return all(
            dict(result, already=True) == dict(before[line], already=True) for line, result in results.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
