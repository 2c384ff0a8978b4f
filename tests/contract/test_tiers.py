"""The tiers of the tests: what `make` runs is all there is, and the pages name a slow test as one."""

import itertools
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "kernels/README.md"]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]


def selections(target: str) -> list[str]:
    """The `-m` of each pytest that a target of the Makefile starts; pyproject.toml's where it gives none."""
    dry = ["make", "--dry-run", "--old-file=.venv/.installed", target]
    lines = subprocess.run(dry, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    runs = [shlex.split(SETTINGS["addopts"]) + shlex.split(line) for line in lines if "-m pytest" in line]
    marks = [[b for a, b in itertools.pairwise(run) if a == "-m" and b != "pytest"] for run in runs]
    return [each[-1] for each in marks]


def test_each_test_is_run_once_by_the_two_tiers_together() -> None:
    assert selections("test") == ["not slow"]
    assert selections("test-slow") == ["slow"]
    assert selections("test-all") == ["not slow", "slow"]
    assert "make test-all" in (ROOT / ".ci/run").read_text("utf-8").splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_the_tier_of_a_slow_file(page: Path) -> None:
    for before, name in re.findall(r"pytest ((?:-\S+ \S+ )*)(tests/[\w/]+\.py)", page.read_text("utf-8")):
        slow = "pytestmark = pytest.mark.slow" in (ROOT / name).read_text("utf-8")
        assert ("-m slow" in before) == slow, f"{name} would be deselected, or is not slow"
