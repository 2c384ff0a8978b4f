"""Import directions: flows → tasks → kernels, rooms only to their left, Prefect in flows alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Left to right on the road. A room imports the root modules of tasks/ and rooms before it.
ROOMS = ("audio", "weights", "data", "asr", "inference", "llm", "gguf", "release", "report", "preflight")
ROOT_FOLDERS = {"settings"}  # a root module in several files
# Modules that stand elsewhere than their room.
PLACES = {
    "tasks.inference.road": "report",  # the one stage that drives both lines' shipped files
    "tasks.llm.chat": "data",  # pure text: what a prompt, a tool and a call look like
    "tasks.llm.constrain": "data",  # pure text: which calls a command can mean; engines decode by it
}
MODULES = sorted(
    path for folder in ("flows", "tasks", "kernels/malgil_kernels") for path in (ROOT / folder).rglob("*.py")
)


def imported(path: Path) -> Iterator[str]:
    """Full names of the modules (or of names in them) that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    relative = path.relative_to(ROOT / "kernels" if "malgil_kernels" in path.parts else ROOT)
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    name = name_of(path)
    for other in imported(path):
        top = other.split(".")[0]
        if not name.startswith("flows"):
            assert top not in ("flows", "prefect"), f"{name} imports {other}: flows and Prefect are above it"
        if name.startswith("malgil_kernels"):
            assert top != "tasks", f"{name} imports {other}: kernels know nothing of the pipeline"
        assert top != "tests", f"{name} imports {other}"
        if name.startswith("tasks.") and top == "tasks":
            assert_to_the_left(name, other)


def assert_to_the_left(name: str, other: str) -> None:
    room, its_room = room_of(name), room_of(other)
    if its_room is None or room == its_room:
        return
    assert room is not None, f"root module {name} imports the room of {other}"
    assert ROOMS.index(its_room) < ROOMS.index(room), f"{name} imports {other}, a room to its right"


def room_of(name: str) -> str | None:
    parts = name.split(".")
    for module in (name, ".".join(parts[:3])):  # a module, or a name in it
        if module in PLACES:
            return PLACES[module]
    in_room = len(parts) > 1 and parts[1] not in ROOT_FOLDERS and (ROOT / "tasks" / parts[1]).is_dir()
    return parts[1] if in_room else None


def test_every_room_has_its_place() -> None:
    rooms = {path.parent.name for path in (ROOT / "tasks").glob("*/*.py")}
    rooms -= ROOT_FOLDERS
    assert rooms <= set(ROOMS), f"say where {rooms - set(ROOMS)} stands on the road"
