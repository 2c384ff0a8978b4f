"""The Prefect API that a flow talks to: the one that is configured or running, else one of our own.

    python -m flows.server PORT        the embedded server; it ends with the process that started it

The embedded server is the same application that Prefect starts for a flow without an API
(`create_app(ephemeral=True)`, on SQLite below PREFECT_HOME). Starting it here lets it load beside our own
imports, which halves the wait, and ties its life to ours, so that a killed run leaves no server behind.
"""

import atexit
import errno
import json
import os
import shutil
import socket
import sys
import time
import urllib.request
from pathlib import Path

from flows import process
from tasks.errors import ConflictError, MalgilError

UP = Path("store/up.json")  # written by `malgil up`: addresses and pid
LOG = Path("build/logs/prefect-server.log")
START_S = 300.0
DATABASE_BYTES = 2_000_000  # about what Prefect's new database takes
HOST = "127.0.0.1"
POOL = "malgil"  # the work pool of `malgil up` and of prefect.yaml


class Api:
    """A Prefect API: `url`, and how to wait until it answers."""

    def __init__(self, url: str, child: process.Child | None = None) -> None:
        self.url = url
        self._child = child

    def wait(self) -> None:
        """Returns when the API answers.

        Raises:
            MalgilError: it does not within five minutes (a configured one: five seconds), or it died.
            OSError: it died on a full disk.
        """
        deadline = time.monotonic() + (START_S if self._child else 5.0)
        while not is_healthy(self.url):
            if self._child is not None and self._child.poll() is not None:
                if shutil.disk_usage(LOG.parent).free < DATABASE_BYTES:  # it could not even say so in its log
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(LOG.parent))
                raise MalgilError(
                    "the embedded Prefect server ended while starting",
                    "\n".join(["its last lines:", *process.tail(LOG)]),
                    f"read {LOG}; `malgil doctor` checks the installation",
                )
            if time.monotonic() > deadline and self._child is not None:
                raise MalgilError(
                    f"the embedded Prefect server does not answer after {START_S:.0f} s",
                    "\n".join(["its last lines:", *process.tail(LOG)]),
                    f"read {LOG}; is the machine very busy, or the disk full?",
                )
            if time.monotonic() > deadline:
                raise MalgilError(
                    f"no Prefect server answers at {self.url}",
                    "a flow needs one",
                    "correct or unset PREFECT_API_URL (without it Malgil starts its own server)",
                )
            time.sleep(0.1)


def find_or_start() -> Api:
    """The API of PREFECT_API_URL, of a running `malgil up`, or of an embedded server; sets PREFECT_API_URL.

    Returns before an embedded server answers: import what is slow, then call `wait`.
    """
    url = os.environ.get("PREFECT_API_URL") or running_up()
    child = None
    if not url:
        port = free_port()
        url = f"http://{HOST}:{port}/api"
        command = [sys.executable, "-m", "flows.server", str(port)]
        child = process.start(command, log=LOG, environment={**os.environ, "PREFECT_UI_ENABLED": "false"})
        # Registered before Prefect is imported, so it runs after Prefect has sent its last states and logs.
        atexit.register(process.stop, child)
    os.environ["PREFECT_API_URL"] = url
    api = Api(url, child)
    if child is None:
        api.wait()
    return api


def running_up() -> str | None:
    """The Prefect API of a `malgil up` that runs in this project and answers; None if there is none."""
    try:
        url = str(json.loads(UP.read_text("utf-8"))["prefect_api"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if is_healthy(url) else None


def is_healthy(url: str) -> bool:
    """Whether a Prefect API answers at `url` (…/api)."""
    return answers(f"{url}/health")


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 200 within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on a TCP port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def require_port(port: int, what: str, option: str) -> None:
    """Raises ConflictError if `port` is in use; `option` names the way to choose another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConflictError(
                f"port {port} ({what}) is in use or not allowed ({error.strerror})",
                "each server needs a port of its own",
                f"end the program that holds it (`ss -ltnp` lists it) or choose another: {option} PORT",
            ) from error


def main() -> None:
    """Serves the Prefect API on the port of the first argument."""
    import uvicorn
    from prefect.server.api.server import create_app

    application = create_app(ephemeral=True, final=True)
    uvicorn.run(application, host=HOST, port=int(sys.argv[1]), log_level="error", lifespan="on")


if __name__ == "__main__":
    main()
