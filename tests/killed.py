"""SIGKILL at a chosen moment of a child, whatever the speed of the machine: right before a file is put in place.

A child that its test watches and kills may have ended before the test looks again. This one is ended by itself:
every Python process that starts with the environment looks at each rename, and at the chosen one kills its
whole process group, as a batch system or the kernel would.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.children import run

ROOT = Path(__file__).parents[1]
START = """
import os, signal
replace = os.replace
def replace_or_die(source, target, **options):
    if os.path.basename(target) == {name!r}:
        os.killpg(0, signal.SIGKILL)
    replace(source, target, **options)
os.replace = replace_or_die
"""


def run_until(name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Runs `command` until it, or a child of it, would put the file `name` in place of its temporary one.

    Args:
        name: file name; all that came before it is on the disk, and the file itself half-made.
        command: a Python program, started in the project's folder.
        folder: an empty one for what the child needs.
        environment: the child's.

    Raises:
        AssertionError: the command ended without making such a file.
    """
    hook = folder / "at-start"
    hook.mkdir()
    # Python imports it at its start
    (hook / "sitecustomize.py").write_text(START.format(name=name), encoding="utf-8")
    paths = [str(hook), *filter(None, [environment.get("PYTHONPATH")])]
    child = run(
        command,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # so that the group is the command's own
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, f"{name} was never made: {child.returncode}, {child.stderr}"
