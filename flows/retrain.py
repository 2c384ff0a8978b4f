"""The flow `retrain`: the whole road, from settings to a released version.

    malgil run [--line asr|llm|all] [--quick] [-S section.key=value]...

A straight line of policy over functions that know nothing of Prefect: DVC stages (`flows.steps`) and the
release (`tasks.release`). The two lines run side by side; nothing is released unless every stage of the
run went well.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import flow, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from flows import process, steps
from flows.check import before_run
from flows.environment import begin_in_project
from flows.lock import hold_run_lock
from flows.reaping import reaper
from flows.steps import StageRun
from flows.summary import SUMMARY, build_summary
from flows.table import as_markdown
from tasks import params as settings
from tasks.artifacts import read_json, write_json
from tasks.errors import MalgilError
from tasks.release import release
from tasks.release.champion_adapter import champion_adapter
from tasks.release.judgement import model_name
from tasks.release.provable import unprovable
from tasks.release.release import Line, ReleaseResult
from tasks.settings import Params

BUILD, STORE, REPORT = Path("build"), Path("store"), Path("build/report.html")
STARTED_FROM = BUILD / "work/started_from.json"  # kept until the run has ended
LineChoice = Literal["all", "asr", "llm"]
log = logging.getLogger("malgil")


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """A refusal that names its remedy is final; anything else (the network) is worth another try."""
    return not isinstance(state.result(raise_on_failure=False), MalgilError)


# Prefect decides when. Whether a stage is fresh is DVC's alone, so nothing is cached or persisted here.
settle = task(name="settings", cache_policy=NO_CACHE, persist_result=False)(steps.settle)


@task(name="stage", task_run_name="{stage}", tags=["dvc"], cache_policy=NO_CACHE, persist_result=False)
def make_stage(stage: str, environment: Mapping[str, str], *, known_fresh: bool) -> StageRun | None:
    """A stage brought up to date; None of the road where nobody speaks commands."""
    if stage == "evaluate_road" and not steps.has_commands(BUILD / "prepared/asr"):
        log.warning(
            "the road from speech to tool call is left out, and not judged: the test utterances have no "
            "tool_call. Next: fill that column of the manifest if they are commands"
        )
        return None
    return steps.make(stage, environment, known_fresh=known_fresh)


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
    begin_in_project()
    before_run(line, quick, overrides or [])  # every mistake at once, before anything starts
    wanted = settings.load(quick=quick, sets=overrides or ())
    reaper.begin(UUID(str(runtime.flow_run.id)))
    with hold_run_lock():
        steps.clear_stale_locks()
        steps.clear_left_files()
        lines: tuple[Line, ...] = ("asr", "llm") if line == "all" else (line,)
        began = time.monotonic()
        initial = _going_on_from(wanted) if "llm" in lines else []
        params = settle(quick, [*(overrides or []), *initial])
        stages = _make_all(lines, params)
        results = {name: _release(name, params) for name in lines}
        report = _report(params, results, stages)
        summary = build_summary(BUILD, params, results, stages, report, wall_s=time.monotonic() - began)
        write_json(SUMMARY, summary)
        STARTED_FROM.unlink(missing_ok=True)
        create_markdown_artifact(as_markdown(summary), key="retrain", description=f"{report.resolve()}")
        return summary


def _going_on_from(params: Params) -> list[str]:
    """The override that names the champion's adapter, where the settings ask for it and a version serves.

    A killed run goes on from the champion that it began with, though its own version may serve by now.
    """
    if not params.train_llm.from_champion:
        return []
    model = model_name("llm", params)
    begun = read_json(STARTED_FROM) if STARTED_FROM.is_file() else {}
    gone = begun.get("adapter") and not Path(begun["adapter"]).is_dir()
    if begun.get("model") != model or gone:
        begun = {"model": model, "adapter": str(champion_adapter(params, STORE) or "")}
        STARTED_FROM.parent.mkdir(parents=True, exist_ok=True)
        write_json(STARTED_FROM, begun)
    return [f"train_llm.initial={begun['adapter']}"] if begun["adapter"] else []


def _make_all(lines: Sequence[Line], params: Params | None = None) -> dict[str, StageRun]:
    """Every stage that the lines need, each as soon as what it reads is there; the first failure at the end.

    Speech is rendered while the language model trains: its commands need none. With `params`, the size of a
    test set is held against the floors as soon as it is prepared.
    """
    shipped = (BUILD / "asr/shipped", BUILD / "llm/gguf")
    road = len(lines) == 2 or all(folder.exists() for folder in shipped)
    futures: dict[str, PrefectFuture[StageRun | None]] = {}
    planned = steps.plan(lines, road=road)
    fresh = steps.find_fresh(planned)
    for stage, reads in planned.items():
        # Two stages are at work most of the time; the recogniser alone is a chain. llama.cpp's threads spin
        # while they wait, so that on a busy machine a thread too many is many times slower.
        alone = lines == ("asr",) and stage not in steps.ROAD
        environment = steps.threads(1 if alone else 2)
        after = [futures[other] for other in reads]
        futures[stage] = make_stage.submit(
            stage, environment, known_fresh=stage in fresh, wait_for=after, return_state=False
        )
    warned = _warn_of_floors(lines, params, futures) if params else []
    try:
        for future in futures.values():
            future.wait()
        for warning in warned:
            warning.wait()
    except BaseException:
        process.stop_all()  # Ctrl-C: the stages' threads return, and so can we
        raise
    states = [future.state for future in futures.values()]
    ended_badly = [state for state in states if state.is_failed() or state.is_crashed()]
    causes = [state.result(raise_on_failure=False) for state in ended_badly]
    for cause in sorted(causes, key=lambda cause: not isinstance(cause, MalgilError)):
        if isinstance(cause, BaseException):
            raise cause
    made = {stage: future.result() for stage, future in futures.items()}
    return {stage: run for stage, run in made.items() if run is not None}


def _warn_of_floors(
    lines: Sequence[Line], params: Params, futures: dict[str, PrefectFuture[StageRun | None]]
) -> list[PrefectFuture[None]]:
    """The warnings of each line, given as soon as its test set is prepared."""
    prepared = [line for line in lines if steps.PREPARED[line] in futures]
    first: list[Line] = ["llm"] if "llm" in prepared else []
    submitted: list[PrefectFuture[None]] = []
    for asked, told in ((first, []), (prepared if "asr" in prepared else [], first)):
        if asked:
            after = [futures[steps.PREPARED[line]] for line in asked]
            submitted.append(warn_of_floors.submit(asked, told, params, wait_for=after, return_state=False))
    return submitted


@task(name="floors", cache_policy=NO_CACHE, persist_result=False)
def warn_of_floors(lines: list[Line], told: list[Line], params: Params) -> None:
    """Says, while training begins, which floors this test set can prove for no model; `told` has its own."""
    try:
        before = unprovable(told, params, BUILD / "prepared") if told else []
        for sentence in unprovable(lines, params, BUILD / "prepared"):
            if sentence not in before:
                log.warning("%s", sentence)
    except MalgilError as error:  # a warning that cannot be given stops no training
        log.warning("the floors were not held against the test set: %s", error)


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
