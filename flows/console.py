"""The console's log: our own lines on standard error, libraries' only from warnings up."""

import logging
import os


def log_to_console() -> None:
    """The flow's own lines on standard error; Prefect's and other libraries' only from warnings up."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for logger in map(logging.getLogger, ("malgil", "tasks")):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
