"""Becomes a Prefect worker whose name is its process, so that a run it took can be told from a run it lost.

    python -m flows.reaping.worker [OPTION OF `prefect worker start`]...

`exec` keeps pid and start time, so the name holds for the worker too, in the eyes of any machine.
"""

import os
import sys

from flows.reaping.processes import this_process


def main() -> None:
    """Replaces this process by the worker."""
    command = ["-m", "prefect", "worker", "start", "--name", str(this_process())]
    os.execv(sys.executable, [sys.executable, *command, *sys.argv[1:]])


if __name__ == "__main__":
    main()
