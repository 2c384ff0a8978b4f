"""The door of a stage: `python -m tasks.<room>.<stage>`.

Paths come from the command line with the pipeline's own as defaults, values from params.yaml, and every
known error becomes one message and an exit code. A stage's body stays a plain function:

    body(params_section, **inputs, **outputs)

which DVC, Prefect (through `dvc repro`) and a reader's Python session call alike.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import MalgilError, explain_os_error
from tasks.params import load, setting_of
from tasks.params import section as section_of


def run_stage(
    module: str,
    section: str | None,
    body: Callable[..., Any],
    *,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    borrowed: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the command line, runs `body` and returns the exit code.

    Args:
        module: the stage's module name, for the usage line.
        section: the section of params.yaml passed as the first argument; None passes none.
        body: the stage's function; takes the section, then every path by keyword.
        inputs: input paths and their defaults; each must exist.
        outputs: output paths and their defaults.
        borrowed: settings of other sections, passed by keyword: {"normaliser": "prepare.normaliser"}.
        argv: the command line, `sys.argv[1:]` by default.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=body.__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings file (YAML)")
    for name, default in {**inputs, **outputs}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=Path, default=default)
    arguments = parser.parse_args(argv)
    set_logging()
    try:
        params = load(arguments.params) if section is not None or borrowed else None
        settings = [] if params is None or section is None else [section_of(params, section)]
        lent = {name: setting_of(params, path) for name, path in (borrowed or {}).items() if params}
        paths = {name: getattr(arguments, name) for name in (*inputs, *outputs)}
        for name in inputs:
            if not paths[name].exists():
                raise explain_os_error(FileNotFoundError(2, "missing", str(paths[name])))
        body(*settings, **paths, **lent)
    except MalgilError as error:
        return _fail(module, error)
    except OSError as error:
        return _fail(module, explain_os_error(error))
    return 0


def set_logging() -> None:
    """Log lines on standard error; level from MALGIL_LOG (INFO by default)."""
    logging.basicConfig(
        level=os.environ.get("MALGIL_LOG", "INFO"),
        format="%(asctime)s %(name)s %(message)s",
        datefmt="%H:%M:%S",
    )
    for noisy in (
        "httpx",
        "httpcore",
        "huggingface_hub",
        "filelock",
        "fsspec",
        "urllib3",
        "great_expectations",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _fail(module: str, error: MalgilError) -> int:
    print(f"{module}: {type(error).__name__}: {error}", file=sys.stderr)
    return error.exit_code
