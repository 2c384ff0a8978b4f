"""A chosen moment of a child, whatever the speed of the machine: right before a file is put in place.

A child that its test watches and kills may have ended before the test looks again. Here it sends the signal itself:
every Python process that starts with the environment looks at each rename, and at the chosen one kills its whole
process group, as a batch system or the kernel would, or stops.
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
def replace_later(source, target, **options):
    if os.path.basename(target) == {name!r}:
        {action}
    replace(source, target, **options)
os.replace = replace_later
"""
DIE = "os.killpg(0, signal.SIGKILL)"
STOP = "os.kill(os.getpid(), signal.SIGSTOP)"


def at_rename(name: str, action: str, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child whose processes do `action` before they put a file `name` in place.

    Args:
        name: file name; all that came before it is on the disk, and the file itself half-made.
        action: DIE or STOP.
        folder: where the folder `at-start` may be made for the child.
        environment: the child's otherwise.
    """
    hook = folder / "at-start"
    hook.mkdir(exist_ok=True)
    # Python imports it at its start
    (hook / "sitecustomize.py").write_text(START.format(name=name, action=action), encoding="utf-8")
    paths = [str(hook), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


def run_until(name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Runs `command` in the project's folder until it, or a child of it, would put a file `name` in place.

    Raises:
        AssertionError: the command ended without making such a file.
    """
    options = {"cwd": ROOT, "env": at_rename(name, DIE, folder, environment)}
    ended = run(command, **options, start_new_session=True, text=True)  # so that the group is its own
    assert ended.returncode == -signal.SIGKILL, f"{name} was never made: {ended.returncode}, {ended.stderr}"
