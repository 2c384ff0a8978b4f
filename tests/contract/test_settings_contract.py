"""params.yaml, the typed settings, dvc.yaml and the code agree on every key."""

import ast
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.freshness import READ, READ_BY_HAND, WRITTEN, Digests, digest_named, write_sources
from tasks.params import load, read_yaml
from tasks.settings import SECTIONS, Params, Section

ROOT = Path(__file__).parents[2]
SHARED = {"decide", "publish", "registry"}  # read by the release, which is not a DVC stage
BY_HAND = {"pretrain", "pretrain_llm", "study_asr"}
CLASSES = {section.__name__: name for name, section in SECTIONS.items()}
FIELD_NAMES = {"validate_": "validate"}
# classes that several sections share: what reads one reads them all
BASES = {
    base.__name__: [name for name, section in SECTIONS.items() if issubclass(section, base)]
    for section in SECTIONS.values()
    for base in section.__mro__[1:]
    if issubclass(base, Section) and base is not Section
}


PATHS = [
    f"{name}.{field}"
    for name, section in SECTIONS.items()
    for field, info in section.model_fields.items()
    if str(info.json_schema_extra["unit"]).startswith("path")
]


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
def test_a_stage_lists_exactly_the_keys_it_is_given(stage: str) -> None:
    """Those of the section that its run_stage call names, and those that it borrows."""
    section = section_given(dvc_stages()[stage])
    expected = {f"{section}.{field}" for field in SECTIONS[section].model_fields} if section else set()
    expected |= borrowed(dvc_stages()[stage])
    assert keys_of(dvc_stages()[stage]) == expected


def section_given(stage: dict[str, Any]) -> str | None:
    (call,) = stage_calls(stage)
    section = ast.literal_eval(call.args[1])
    assert section is None or section in SECTIONS
    return None if section is None else str(section)


def borrowed(stage: dict[str, Any]) -> set[str]:
    """Settings of other sections that the stage's run_stage call names."""
    lent = [k.value for call in stage_calls(stage) for k in call.keywords if k.arg == "borrowed"]
    return {value for found in lent for value in ast.literal_eval(found).values()}


def stage_calls(stage: dict[str, Any]) -> list[ast.Call]:
    path = ROOT.joinpath(*stage["cmd"].split()[2].split(".")).with_suffix(".py")
    return [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_stage"
    ]


def test_every_section_belongs_to_a_stage_or_to_the_release() -> None:
    given = {section_given(stage) for name, stage in dvc_stages().items() if name != "settings"}
    assert set(SECTIONS) - SHARED - BY_HAND == given - {None}


def test_the_code_reads_every_setting_and_no_other() -> None:
    read = settings_read()
    for name, section in SECTIONS.items():
        fields = set(section.model_fields)
        assert read[name] - fields == set(), f"{name}: the code reads keys that do not exist"
        assert fields - read[name] == set(), f"{name}: nobody reads these keys; drop them or use them"


def settings_read() -> dict[str, set[str]]:
    """Attributes read from anything known, by its annotation, to be a section of the settings."""
    read: dict[str, set[str]] = defaultdict(set)
    for path in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        tree = ast.parse(path.read_text("utf-8"))
        names = imported_sections(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                collect(node, names, read)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                collect(node, names, read)
    for base, sections in BASES.items():
        for name in sections:
            read[name] |= read[base]
    for name in read:
        read[name] -= {"model_dump", "model_dump_json", "model_copy"}
    return read


def imported_sections(tree: ast.Module) -> dict[str, str]:
    """What a file calls the classes of tasks.settings, and the section of each ("Params": the whole)."""
    return {
        alias.asname or alias.name: CLASSES.get(alias.name, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "tasks.settings"
        for alias in node.names
        if alias.name in CLASSES or alias.name in BASES or alias.name == "Params"
    }


def collect(scope: ast.ClassDef | ast.FunctionDef, names: dict[str, str], read: dict[str, set[str]]) -> None:
    """Adds what a function or class reads; expressions are told apart by their text ("self.params")."""
    known = {text: names[kind] for text, kind in annotated(scope) if kind in names}
    for node in ast.walk(scope):  # section = params.train_asr, self.params = params, params = load(...)
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            for target, value in pairs(node.targets[0], node.value):
                if section := section_of(value, known):
                    known[ast.unparse(target)] = section
    for node in ast.walk(scope):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            # by a name out of a table: the strings of this function that are keys of the section
            section = section_of(node.args[0], known)
            words = {
                n.value for n in ast.walk(scope) if isinstance(n, ast.Constant) and isinstance(n.value, str)
            }
            if section in SECTIONS:
                read[section] |= words & set(SECTIONS[section].model_fields)
        if isinstance(node, ast.Attribute):
            section = section_of(node.value, known)
            if section and section != "Params":
                read[section].add(node.attr)


def pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """What is assigned to what: `a, b = x, y` is two."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def annotated(scope: ast.AST) -> list[tuple[str, str]]:
    """Arguments and dataclass fields with the last word of their annotation."""
    found = []
    for node in ast.walk(scope):
        if isinstance(node, ast.arg) and node.annotation:
            found.append((node.arg, ast.unparse(node.annotation)))
        elif isinstance(node, ast.AnnAssign):
            text = ast.unparse(node.target)
            found += [(text, ast.unparse(node.annotation)), (f"self.{text}", ast.unparse(node.annotation))]
    return [(text, kind.strip("\"'").split(".")[-1]) for text, kind in found]


def section_of(value: ast.expr, known: dict[str, str]) -> str | None:
    """The section that an expression is, "Params" for the whole; None for anything else."""
    text = ast.unparse(value)
    if text in known:
        return known[text]
    if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in ("load", "settle"):
        return "Params"
    if isinstance(value, ast.Attribute) and section_of(value.value, known) == "Params":
        return FIELD_NAMES.get(value.attr, value.attr)
    return None


def test_every_setting_of_type_path_is_an_input_whose_content_counts_or_an_output_with_a_reason() -> None:
    known = [
        f"{name}.{key}" for table in (READ, READ_BY_HAND) for name, keys in table.items() for key in keys
    ]
    assert sorted([*known, *WRITTEN]) == sorted(PATHS), "say in tasks/freshness.py what each path names"
    assert all(len(reason) > 20 for reason in WRITTEN.values())
    assert set(READ_BY_HAND) <= BY_HAND
    for stage in READ:
        assert f"build/sources/{stage}.json" in dvc_stages()[stage]["deps"], f"{stage} does not look at it"


@pytest.mark.parametrize("path", [path for path in PATHS if path.partition(".")[0] in READ])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_path_names_changes_and_its_stage_is_made_again(path: str, kind: str, tmp_path: Path) -> None:
    """The name stays, and so does all else: only the content of the file, or of one in the folder."""
    stage, _, key = path.partition(".")
    named = tmp_path / "named"
    content = named / "sub/model.bin" if kind == "folder" else named
    content.parent.mkdir(parents=True, exist_ok=True)
    sets = [f"{path}={named}"]
    if stage == "corpus" and key in ("manifest", "folder", "hub"):
        sets.append(f"corpus.source={key}")
    if (kind, key) == ("folder", "readings"):
        pytest.skip("readings are a table")
    sources = tmp_path / "build/sources"
    seen = []
    for text in ("one", "two", "one"):
        content.write_text(text)
        write_sources(load(ROOT / "params.yaml", sets=sets), sources)
        seen.append({found.stem: found.read_text() for found in sources.iterdir()})
    assert seen[0] == seen[2] != seen[1]
    assert {name for name in seen[0] if seen[0][name] != seen[1][name]} == {stage}


def _key_of_speech(params: Params, work: Path) -> str:
    from tasks.asr.pretraining.corpus import speech_key

    return speech_key(params.pretrain, work)


def _key_of_initial(params: Params, work: Path) -> str | None:
    return digest_named(params.pretrain.initial, Digests(work / "digests.json"))


def _key_of_documents(params: Params, work: Path) -> list[Any]:
    from tasks.llm.pretraining.documents import read_documents

    return read_documents(Path(params.pretrain_llm.text))


BY_HAND_KEYS = {
    "pretrain.corpus": (_key_of_speech, "corpus.parquet"),
    "pretrain.initial": (_key_of_initial, "initial/model.safetensors"),
    "pretrain_llm.text": (_key_of_documents, "text.txt"),
}


@pytest.mark.parametrize("path", [f"{name}.{key}" for name, keys in READ_BY_HAND.items() for key in keys])
def test_what_is_run_by_hand_knows_its_inputs_by_their_content(path: str, tmp_path: Path) -> None:
    """What `tasks.asr.pretrain` and `tasks.llm.pretrain` key their resumable state by."""
    key_of, name = BY_HAND_KEYS[path]
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    named = file if file.parent == tmp_path else file.parent
    params = load(ROOT / "params.yaml", sets=[f"{path}={named}", "pretrain.source=audio"])
    keys = []
    for text in ("one", "two", "one"):
        file.write_text(text)
        keys.append(key_of(params, tmp_path / "work"))
    assert keys[0] == keys[2] != keys[1]
