"""params.yaml, the typed settings, dvc.yaml and the code agree on every key."""

import ast
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.params import load, read_yaml
from tasks.settings import SECTIONS

ROOT = Path(__file__).parents[2]
SHARED = {"decide", "publish", "registry"}  # read by the release, which is not a DVC stage
BY_HAND = {"pretrain"}
CLASSES = {section.__name__: name for name, section in SECTIONS.items()}
FIELD_NAMES = {"validate_": "validate"}


def dvc_stages() -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    return stages


def keys_of(stage: dict[str, Any]) -> set[str]:
    return {key for part in stage.get("params", []) for keys in part.values() for key in keys}


def test_shipped_values_are_valid_with_and_without_quick() -> None:
    load(ROOT / "params.yaml")
    load(ROOT / "params.yaml", quick=True)


def test_params_yaml_and_settings_have_the_same_keys() -> None:
    raw = read_yaml(ROOT / "params.yaml")
    assert set(raw) - {"quick"} == set(SECTIONS)
    for name, section in SECTIONS.items():
        assert set(raw[name]) == set(section.model_fields), name


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_says_what_it_is_and_in_which_unit(name: str) -> None:
    for field, info in SECTIONS[name].model_fields.items():
        assert info.description and len(info.description) > 5, f"{name}.{field} has no description"
        extra = info.json_schema_extra
        assert isinstance(extra, dict) and extra.get("unit"), f"{name}.{field} has no unit"


@pytest.mark.parametrize("stage", [name for name in dvc_stages() if name != "settings"])
def test_a_stage_lists_exactly_the_keys_of_its_section(stage: str) -> None:
    expected = {f"{stage}.{field}" for field in SECTIONS[stage].model_fields} if stage in SECTIONS else set()
    assert keys_of(dvc_stages()[stage]) == expected


def test_every_section_belongs_to_a_stage_or_to_the_release() -> None:
    assert set(SECTIONS) - SHARED - BY_HAND <= set(dvc_stages())


def test_the_code_reads_every_setting_and_no_other() -> None:
    read = settings_read()
    for name, section in SECTIONS.items():
        fields = set(section.model_fields)
        assert read[name] - fields == set(), f"{name}: the code reads keys that do not exist"
        assert fields - read[name] == set(), f"{name}: nobody reads these keys; drop them or use them"


def settings_read() -> dict[str, set[str]]:
    """Attributes read from arguments that are annotated with a section's class, or through Params."""
    read: dict[str, set[str]] = defaultdict(set)
    for path in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef):
                collect(function, read)
    return read


def collect(function: ast.FunctionDef, read: dict[str, set[str]]) -> None:
    sections, whole = {}, set()
    for argument in [*function.args.args, *function.args.kwonlyargs]:
        kind = ast.unparse(argument.annotation).split(".")[-1] if argument.annotation else ""
        if kind in CLASSES:
            sections[argument.arg] = CLASSES[kind]
        elif kind == "Params":
            whole.add(argument.arg)
    for node in ast.walk(function):  # params = load(...), section = params.train_asr
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            target, value = node.targets[0].id, node.value
            if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in ("load", "_settle"):
                whole.add(target)
            elif (
                isinstance(value, ast.Attribute)
                and isinstance(value.value, ast.Name)
                and value.value.id in whole
            ):
                sections[target] = FIELD_NAMES.get(value.attr, value.attr)
    for node in ast.walk(function):
        if not isinstance(node, ast.Attribute):
            continue
        if isinstance(node.value, ast.Name) and node.value.id in sections:
            read[sections[node.value.id]].add(node.attr)
        inner = node.value
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id in whole:
            read[FIELD_NAMES.get(inner.attr, inner.attr)].add(node.attr)
    for name in sections.values():
        read[name] -= {"model_dump", "model_dump_json", "model_copy"}
