"""What the documentation points at exists, and what the code points at in it."""

import re
from pathlib import Path

import pytest

from flows.environment import QUIET

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "kernels/README.md"]
CODE = [path for room in ("flows", "tasks", "kernels", "benchmarks") for path in (ROOT / room).rglob("*.py")]
SETTINGS = [ROOT / name for name in ("params.yaml", "dvc.yaml", "prefect.yaml", "pyproject.toml", "Makefile")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_that_the_code_names_exists() -> None:
    named = {
        (path.name, page)
        for path in (*CODE, *SETTINGS)
        for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|json|png)", path.read_text("utf-8"))
    }
    assert len(named) > 2
    assert {(name, page) for name, page in named if not (ROOT / page).is_file()} == set()


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text("utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page != "README.md" and page not in index] == []


def test_every_variable_of_ours_is_documented() -> None:
    page = (ROOT / "docs/reference/environment.md").read_text("utf-8")
    ours = {name for path in CODE for name in re.findall(r"\bMALGIL_[A-Z]+\b", path.read_text("utf-8"))}
    assert len(ours) >= 5
    assert {name for name in ours | set(QUIET) if f"`{name}`" not in page} == set()
