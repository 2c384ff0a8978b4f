"""Names that would shadow a library, and the shape of the rooms."""

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for room in ("flows", "tasks", "kernels", "tests") for p in (ROOT / room).rglob("*.py"))
OURS = [path for path in SOURCES if "tests" not in path.relative_to(ROOT).parts]


@pytest.mark.parametrize("folder", (".", "benchmarks"))
def test_transformers_does_not_mistake_our_kernels_for_hugging_faces(folder: str) -> None:
    """Its probe imports a top-level `kernels` if it finds one; ours must look absent, from wherever it runs."""
    code = (
        "import sys, transformers.integrations.hub_kernels;"
        "from transformers.utils.import_utils import is_kernels_available as f; assert not f();"
        "assert getattr(sys.modules.get('kernels'), '__file__', None) is None"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / folder, check=True)
    assert not (ROOT / "kernels/__init__.py").exists()


def test_no_package_files_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_flows_has_no_module_named_like_a_library() -> None:
    """Prefect puts the folder of a flow first on the path."""
    libraries = set(sys.stdlib_module_names) | set(metadata.packages_distributions())
    ours = {path.stem for path in (ROOT / "flows").glob("*.py")} - {"__init__"}
    assert not ours & (libraries - {"flows", "tasks", "malgil_kernels"})


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_says_what_it_is_and_stays_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text)), "no module docstring"
    assert len(text.splitlines()) <= 400, "over 400 lines: split it"
    assert path.stem not in ("utils", "helpers", "common"), "name the subject"
