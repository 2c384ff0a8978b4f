"""dvc.yaml lists what each stage's code needs and makes, and the flow knows every stage."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from flows import steps

ROOT = Path(__file__).parents[2]
# They carry values or plumbing, not results: a change of them alone makes no artifact stale (dvc.yaml says so).
PLUMBING = {
    f"tasks/{name}.py"
    for name in (
        "errors",
        "artifacts",
        "progress",
        "tracking",
        "params",
        "settings/__init__",
        "settings/llm",
        "settings/section",
        "stage",
        "sources",
        "resume",
    )
}
STAGES: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
MADE = [name for name in STAGES if name != "settings"]


def module_of(stage: str) -> str:
    return str(STAGES[stage]["cmd"].split()[2])


def path_of(module: str) -> Path | None:
    folder = ROOT.joinpath(*module.split("."))
    for path in (folder.with_suffix(".py"), folder / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def code_of(path: Path) -> frozenset[str]:
    """The project files that a module needs, itself included; package files without code are left out."""
    needed: set[Path] = set()
    waiting = [path]
    while waiting:
        here = waiting.pop()
        relative = here.relative_to(ROOT).as_posix()
        if here in needed or relative in PLUMBING:
            continue
        needed.add(here)
        for name in imported(here):
            found = path_of(name)
            if found is not None and name.split(".")[0] == "tasks":
                waiting.append(found)
    return frozenset(p.relative_to(ROOT).as_posix() for p in needed if has_code(p))


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def has_code(path: Path) -> bool:
    body = ast.parse(path.read_text("utf-8")).body
    return path.name != "__init__.py" or any(not isinstance(node, ast.Expr) for node in body)


def paths(entries: list[Any]) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def test_dvc_reads_the_file_and_its_graph_is_sound() -> None:
    with Repo(str(ROOT)) as repo:
        assert {stage.name for stage in repo.index.stages} >= set(STAGES)
        assert len(repo.index.graph) >= len(STAGES)


def test_the_flow_runs_every_stage() -> None:
    run = steps.plan(("asr", "llm"), road=True)
    assert list(run) == MADE
    of_lines = [
        *steps.SHARED,
        *(stage for stages in steps.LINES.values() for stage in stages),
        "evaluate_road",
    ]
    assert sorted(of_lines) == sorted(MADE)


def test_a_stage_stands_below_those_it_reads_and_waits_for_them() -> None:
    run = steps.plan(("asr", "llm"), road=True)
    for place, (stage, reads) in enumerate(run.items()):
        assert set(reads) <= set(MADE[:place]), f"{stage} reads what dvc.yaml makes below it"
    with Repo(str(ROOT)) as repo:
        graph = {a.name: {b.name for b in own} - {"settings"} for a, own in repo.index.graph.adj.items()}
    assert {stage: set(reads) for stage, reads in run.items()} == {stage: graph[stage] for stage in run}


def test_the_language_model_needs_no_speech() -> None:
    run = steps.plan(("llm",), road=False)
    needed = {"evaluate_llm"}
    for stage in reversed(list(run)):
        needed |= set(run[stage]) if stage in needed else set()
    assert not needed & {"corpus", "embed_asr", "validate", "prepare_asr"}


@pytest.mark.parametrize("stage", MADE)
def test_code_dependencies_are_the_transitive_imports(stage: str) -> None:
    path = path_of(module_of(stage))
    assert path is not None, f"{module_of(stage)} does not exist"
    listed = {dep for dep in paths(STAGES[stage]["deps"]) if dep.endswith(".py")}
    assert listed == code_of(path)


@pytest.mark.parametrize("stage", MADE)
def test_paths_of_the_stage_door_are_those_of_the_graph(stage: str) -> None:
    """`python -m <module>` reads below the listed inputs and writes the listed outputs.

    What it keeps for itself between runs (checkpoints to resume from, downloads) is no output.
    """
    path = path_of(module_of(stage))
    assert path is not None
    outs, deps = paths(STAGES[stage]["outs"]), paths(STAGES[stage]["deps"])
    inputs, outputs = door(path)
    assert outputs, f"{module_of(stage)} has no run_stage(..., outputs=...) call"
    kept = (f"build/work/{stage}", "store")
    for written in outputs:
        if any(is_below(written, folder) for folder in kept):
            continue
        assert any(is_below(written, out) for out in outs), f"{written} is not below an output of {stage}"
    for out in outs:
        assert any(is_below(written, out) or is_below(out, written) for written in outputs), (
            f"nobody writes {out}"
        )
    for read in inputs:
        assert any(is_below(read, dep) or is_below(dep, read) for dep in deps), (
            f"{stage} reads {read}, not listed"
        )


def door(path: Path) -> tuple[list[str], list[str]]:
    """Default paths in the `inputs` and `outputs` of the module's run_stage call."""
    tree = ast.parse(path.read_text("utf-8"))
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("run_stage"):
            parts = {keyword.arg: keyword.value for keyword in node.keywords}
            return strings(parts.get("inputs"), constants), strings(parts.get("outputs"), constants)
    return [], []


def strings(node: ast.expr | None, constants: dict[str, ast.expr]) -> list[str]:
    if isinstance(node, ast.Name):
        node = constants.get(node.id)
    if node is None:
        return []
    values = node.values if isinstance(node, ast.Dict) else [node]
    named = [constants.get(v.id, v) if isinstance(v, ast.Name) else v for v in values]
    return [
        c.value
        for v in named
        for c in ast.walk(v)
        if isinstance(c, ast.Constant) and isinstance(c.value, str)
    ]


def is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
