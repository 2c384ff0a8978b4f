"""params.yaml: loading, overriding, and reporting every mistake at once.

    python -m tasks.params --quick -S corpus.seed=7     writes build/params.yaml, the settings of this run

`params.yaml` is the only place a value is written. A run may override some (`-S section.key=value`) or
take the small values of the `quick` section; the result, checked, is build/params.yaml, and stages read
that. As the DVC stage `settings` the overrides come through MALGIL_QUICK and MALGIL_SET (a JSON list).
Beside it, build/sources/<stage>.json holds the digest of each input that the settings name by path, so
that DVC sees when a user's own recordings or model change (`tasks.freshness`).
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.artifacts import write_text
from tasks.errors import MalgilError, SettingsError, explain_os_error
from tasks.freshness import write_sources
from tasks.settings import SECTIONS, Params

RESOLVED = Path("build/params.yaml")
SOURCES = Path("build/sources")


class Rule(NamedTuple):
    """A condition between fields, with what to say when it does not hold."""

    fields: tuple[str, ...]
    holds: Callable[..., bool]
    says: str


RULES = (
    Rule(
        ("validate.min_duration_s", "validate.max_duration_s"),
        lambda a, b: a < b,
        "must be below max_duration_s",
    ),
    Rule(
        ("validate.min_characters_per_s", "validate.max_characters_per_s"),
        lambda a, b: a < b,
        "must be below max_characters_per_s",
    ),
    Rule(
        ("corpus.source", "corpus.manifest"),
        lambda s, m: s != "manifest" or bool(m),
        "needs corpus.manifest: a path",
    ),
    Rule(
        ("corpus.source", "corpus.folder"),
        lambda s, f: s != "folder" or bool(f),
        "needs corpus.folder: a path",
    ),
    Rule(
        ("corpus.source", "corpus.hub"),
        lambda s, h: s != "hub" or bool(h),
        "needs corpus.hub: a Hub id or a path",
    ),
    Rule(
        ("corpus.train_utterances", "corpus.voices"),
        lambda n, v: n >= v,
        "must give every one of corpus.voices one",
    ),
    Rule(
        ("corpus.test_utterances", "corpus.unseen_voices"),
        lambda n, v: n >= v,
        "must give every one of corpus.unseen_voices one",
    ),
    Rule(
        ("evaluate_road.quantisation", "quantise_llm.types"),
        lambda q, types: q in types,
        "must be one of quantise_llm.types",
    ),
    Rule(
        ("quantise_llm.types",),
        lambda types: len(set(types)) == len(types),
        "names a type twice; list each type once",
    ),
    Rule(
        ("registry.environments",),
        lambda names: len(set(names)) == len(names),
        "names an environment twice; list each once",
    ),
    Rule(
        ("registry.asr_model", "registry.llm_model"),
        lambda a, b: a != b,
        "must differ from registry.llm_model",
    ),
    Rule(("publish.asr_repo", "publish.llm_repo"), lambda a, b: a != b, "must differ from publish.llm_repo"),
    Rule(
        ("study_asr.sizes", "study_asr.steps"),
        lambda sizes, steps: len(sizes) == len(steps),
        "needs a number of study_asr.steps for every size",
    ),
    Rule(
        ("study_asr.sizes",),
        lambda sizes: sorted(set(sizes)) == list(sizes),
        "must ascend",
    ),
    Rule(
        ("pretrain.languages",),
        lambda names: "ko" not in names,
        "must not hold ko: the point is transfer to Korean",
    ),
)


def load(path: Path = Path("params.yaml"), *, quick: bool = False, sets: Sequence[str] = ()) -> Params:
    """The checked settings of a file.

    Args:
        path: a YAML file with one section per stage.
        quick: put the values of its `quick` section over the others.
        sets: overrides, each "section.key=value" with a YAML value; they win over `quick`.

    Raises:
        SettingsError: with every mistake of the file and of the overrides.
    """
    values, problems = resolve(read_yaml(path), quick=quick, sets=sets)
    return check(values, str(path), problems)


def read_yaml(path: Path) -> dict[str, Any]:
    """The raw mapping of a YAML 1.2 file."""
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise explain_os_error(error, path) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(
            str(path), [" ".join(str(error).split())], f"correct the YAML of {path}"
        ) from error
    if not isinstance(value, dict):
        raise SettingsError(str(path), ["it is not a mapping of sections"], f"restore {path} from git")
    return value


def resolve(
    raw: dict[str, Any], *, quick: bool = False, sets: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """`raw` with its `quick` section taken out and, if asked, laid over the rest; then `sets`.

    Returns:
        The values, and a line for each override that could not be laid over them.
    """
    values = {
        name: dict(part) if isinstance(part, dict) else part for name, part in raw.items() if name != "quick"
    }
    changes, problems = _quick_changes(raw.get("quick") or {}) if quick else ({}, [])
    for item in sets:
        key, sign, text = item.partition("=")
        if not sign or key.count(".") != 1:
            problems.append(f"-S {item}: must look like section.key=value")
            continue
        try:
            changes[key] = YAML(typ="safe", pure=True).load(io.StringIO(text))
        except YAMLError:
            problems.append(f"-S {item}: {text!r} is not a YAML value")
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if section in SECTIONS and isinstance(values.get(section), dict):
            values[section][name] = value
        else:
            problems.append(f"{key}: there is no section {section!r}{_nearest(section, SECTIONS)}")
    return values, problems


def _quick_changes(overlay: Any) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(overlay, dict):
        return {}, [f"quick: must be a mapping of sections, not {overlay!r}"]
    problems = [
        f"quick.{name}: must be a mapping, not {part!r}"
        for name, part in overlay.items()
        if not isinstance(part, dict)
    ]
    changes = {
        f"{s}.{k}": v for s, part in overlay.items() if isinstance(part, dict) for k, v in part.items()
    }
    return changes, problems


def check(values: dict[str, Any], source: str = "params.yaml", problems: Sequence[str] = ()) -> Params:
    """Validates every section and every rule between fields.

    Args:
        values: a mapping of sections.
        source: the file's name, for messages.
        problems: mistakes already found, reported with the others.

    Raises:
        SettingsError: with a line for each mistake, each starting with the path of its key.
    """
    problems = list(problems)
    bad: set[str] = set()
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        for mistake in error.errors():
            path = [str(part) for part in mistake["loc"]]
            bad.add(".".join(path[:2]))
            problems.append(_explain(path, mistake))
    for rule in RULES:
        if bad.isdisjoint(rule.fields) and bad.isdisjoint(f.partition(".")[0] for f in rule.fields):
            found = [values[s][k] for s, _, k in (f.partition(".") for f in rule.fields)]
            if not rule.holds(*found):
                problems.append(f"{rule.fields[0]}: {found[0]!r} {rule.says}")
    if problems:
        raise SettingsError(
            source, problems, f"correct {source} or the -S options; docs/reference/params.md lists them"
        )
    return params


def dump(values: dict[str, Any]) -> str:
    """YAML text of a raw mapping."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.dump(values, stream)
    return stream.getvalue()


def write_resolved(path: Path, target: Path, *, quick: bool, sets: Sequence[str]) -> Params:
    """Checks the settings of this run, writes them to `target` and returns them."""
    values, problems = resolve(read_yaml(path), quick=quick, sets=sets)
    params = check(values, str(path), problems)
    write_text(target, dump(values))
    return params


def describe(values: dict[str, Any]) -> str:
    """Markdown: a table per section with each setting's type, value, unit and meaning."""
    lines = [
        "# Settings",
        "",
        "Made by `python -m tasks.params --describe`; the values are those of params.yaml.",
        "",
    ]
    for name, kind in SECTIONS.items():
        lines += [
            f"## {name}",
            "",
            kind.__doc__,
            "",
            "| setting | type | value | unit | meaning |",
            "|---|---|---|---|---|",
        ]
        for key, field in kind.model_fields.items():
            type_name = getattr(field.annotation, "__name__", str(field.annotation))
            if "Literal" in str(field.annotation) or "tuple" in str(field.annotation):
                type_name = str(field.annotation).replace("typing.", "")
            shown = str(values[name][key]).replace("|", "\\|")
            unit = field.json_schema_extra["unit"] if isinstance(field.json_schema_extra, dict) else ""
            lines.append(f"| `{key}` | {type_name} | `{shown}` | {unit} | {field.description} |")
        lines.append("")
    return "\n".join(lines)


def section(params: Params, name: str) -> Any:
    """The settings of one section by its name in params.yaml."""
    return getattr(params, "validate_" if name == "validate" else name)


def setting_of(params: Params, path: str) -> Any:
    """One setting by its path in params.yaml: "prepare.normaliser"."""
    name, _, key = path.partition(".")
    return getattr(section(params, name), key)


def _explain(path: list[str], mistake: Any) -> str:
    where = ".".join(path)
    kind = mistake["type"]
    if kind == "extra_forbidden":
        section = path[0]
        known = SECTIONS[section].model_fields if len(path) > 1 and section in SECTIONS else SECTIONS
        return f"{where}: unknown {'key' if len(path) > 1 else 'section'}{_nearest(path[-1], known)}"
    if kind == "missing":
        return f"{where}: is missing"
    return f"{where}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}, not {mistake['input']!r}"


def _nearest(name: str, known: Any) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Checks params.yaml and writes the settings of this run."""
    parser = argparse.ArgumentParser(prog="python -m tasks.params", description=main.__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, default=RESOLVED)
    parser.add_argument("--sources", type=Path, default=SOURCES)
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("MALGIL_QUICK")))
    parser.add_argument("-S", dest="sets", action="append", metavar="section.key=value")
    parser.add_argument("--describe", action="store_true", help="print docs/reference/params.md and stop")
    arguments = parser.parse_args(argv)
    sets = arguments.sets if arguments.sets is not None else json.loads(os.environ.get("MALGIL_SET", "[]"))
    try:
        if arguments.describe:
            print(describe(read_yaml(arguments.params)))
            return 0
        params = write_resolved(arguments.params, arguments.out, quick=arguments.quick, sets=sets)
        write_sources(params, arguments.sources)
    except MalgilError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
