"""No refusal of converter, publisher or trainer is unknown to the check before a run.

Every place where they raise an error of ours stands in `REFUSALS`, with the check that asks the same before, or
with the reason why nobody can know it before. A new one without an entry fails here: give the check a way to
know it, or say why there is none.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tasks import errors
from tasks.preflight import capacity, language_model, publishing, recogniser, source

ROOT = Path(__file__).parents[2]
ERRORS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
}
CHECKS = {
    "base model": language_model.look,
    "first adapter": language_model.look_at_adapter,
    "publishing": publishing.look,
    "data source": source.look,
    "encoder": recogniser.look,
    "disk": capacity.look_at_disk,
}


class Place(NamedTuple):
    """How often a function refuses, the check that knows of it, or else why none can."""

    count: int
    check: str = ""
    why_not: str = ""


AFTER_TRAINING = "of weights that exist only after training"
WORDS = "the words of an error that others raise"
REFUSALS: dict[str, dict[str, Place]] = {
    "tasks/gguf/convert.py": {
        "read_config": Place(1, "base model"),
        "headers": Place(1, "base model"),
        "_files": Place(1, "base model"),
        "_tensors": Place(1, "", "a merged file that breaks between its header and its reading"),
        "_write_tensors": Place(1, "base model"),  # `tensor_refusals` names all that are known
        "_stored": Place(1, "base model"),  # of the base; a training may still diverge beyond f16
    },
    "tasks/gguf/convertible.py": {
        "require_convertible": Place(1, "base model"),
        "config_refusals": Place(2, "base model"),
        "_number_refusals": Place(1, "base model"),
        "_rope_refusals": Place(3, "base model"),
        "vocabulary_refusals": Place(2, "base model"),
        "pre_tokenizer_name": Place(1, "base model"),
        "tensor_refusals": Place(1, "base model"),
    },
    "tasks/gguf/quantise.py": {
        "quantise_file": Place(2, "", "llama.cpp's refusal of a file made after training"),
        "_refused": Place(1, "", WORDS),
    },
    "tasks/gguf/verify.py": {},
    "tasks/weights/adapters.py": {
        "read_adapter": Place(4, "first adapter"),
        "read_initial": Place(2, "first adapter"),
        "merge_adapter": Place(1, "", AFTER_TRAINING),
        "load_adapter": Place(1, "", AFTER_TRAINING),
        "_config": Place(8, "first adapter"),
        "_check_names": Place(1, "first adapter"),
        "_wrong": Place(1, "", WORDS),
    },
    "tasks/release/hub.py": {
        "HubPublisher._compare": Place(1, "", "other bytes under the name of a version made after training")
    },
    "tasks/release/hub_access.py": {
        "hub_token": Place(1, "publishing"),
        "repository_name": Place(2, "publishing"),
        "require_rights": Place(1, "publishing"),
        "explained": Place(4, "publishing"),
        "_refused": Place(1, "publishing"),
    },
    "tasks/llm/base.py": {
        "read_pin": Place(1, "base model"),
        "find_wheel": Place(1, "", "what pip leaves behind"),
        "check_sha256": Place(1, "base model"),
        "_download": Place(
            1, "", "whether a registry gives the wheel is known by fetching it (a warning before)"
        ),
        "_located": Place(1, "base model"),
        "_convert_wheel": Place(1, "base model"),  # its hash is looked at
    },
    "tasks/llm/profiles.py": {"profile_of": Place(1, "base model")},
    "tasks/llm/chat.py": {
        "Tools.__init__": Place(3, "data source"),
        "load_tools": Place(1, "data source"),
        "chat_template": Place(1, "base model"),
        "conversation_refusals": Place(3, "base model"),
        "_rendered": Place(1, "base model"),
        "_served": Place(1, "base model"),
        "_require_end": Place(2, "base model"),
        "_bad_template": Place(1, "", WORDS),
        "_bad_tools": Place(1, "", WORDS),
    },
    "tasks/llm/adapters.py": {
        "_learning": Place(1, "first adapter"),
    },
    "tasks/llm/hardware.py": {"choose_kernels": Place(1, "first adapter")},
    "tasks/llm/merge.py": {"merge": Place(1, "", AFTER_TRAINING)},
    "tasks/inference/loading.py": {
        "load_tokenizer": Place(2, "base model"),
        "load_model": Place(2, "base model"),  # its config, its headers and the length of its files
        "_require_tied": Place(1, "base model"),
        "unreadable": Place(1, "", WORDS),
    },
}


def refusals(path: Path) -> Counter[str]:
    """Functions of a module to how often each makes an error of ours, or raises one that another makes."""
    found: Counter[str] = Counter()

    def is_refusal(node: ast.AST) -> bool:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return node.func.id in ERRORS
        made = node.exc if isinstance(node, ast.Raise) else None
        return (
            isinstance(made, ast.Call)
            and isinstance(made.func, ast.Name)
            and made.func.id not in ERRORS | {"SystemExit"}
        )

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}".lstrip(".")
            found[inner] += is_refusal(child)
            walk(child, inner)

    walk(ast.parse(path.read_text("utf-8")), "")
    return +found


def modules() -> Iterator[str]:
    for pattern in ("tasks/gguf/*.py", "tasks/release/hub*.py"):
        yield from (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(pattern)))
    yield from (
        f"tasks/llm/{name}.py" for name in ("base", "profiles", "chat", "adapters", "merge", "hardware")
    )
    yield from ("tasks/inference/loading.py", "tasks/weights/adapters.py")


@pytest.mark.parametrize("module", [name for name in modules() if not name.endswith("__init__.py")])
def test_every_refusal_is_known_before_or_cannot_be(module: str) -> None:
    known = REFUSALS.get(module, {})
    found = refusals(ROOT / module)
    assert dict(found) == {name: place.count for name, place in known.items()}, (
        f"{module} refuses otherwise than REFUSALS says: let the check before a run know of it, or say why not"
    )
    for name, place in known.items():
        assert bool(place.check) != bool(place.why_not), name
        assert not place.check or place.check in CHECKS, name
