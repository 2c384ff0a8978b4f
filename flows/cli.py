"""The command `malgil`.

    malgil run [--line asr|llm|all] [--quick] [-S section.key=value]...
    malgil check [--line asr|llm|all] [--quick] [-S section.key=value]... [--json]
    malgil doctor [--json]
    malgil up [--prefect-port N] [--mlflow-port N]
    malgil reap [--json]
    malgil pretrain
    malgil asr transcribe PATHS...
    malgil asr stream FILE|-
    malgil asr evaluate --model FOLDER|HUB_ID --data TABLE|FOLDER|HUB_ID
    malgil llm pretrain

Known errors become one message and an exit code (docs/reference/cli.md). What is slow to import is
imported by the command that needs it.
"""

import signal
import sys
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

from flows.asr_commands import asr
from flows.console import log_to_console
from flows.llm_commands import llm
from tasks.errors import MalgilError, explain_os_error

app = typer.Typer(
    name="malgil",
    help="Retrain a Korean speech recogniser and the language model that acts on what it hears.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(asr)
app.add_typer(llm)
INTERRUPTED, TERMINATED = 130, 143


class Line(StrEnum):
    """Which line to retrain."""

    asr = "asr"
    llm = "llm"
    all = "all"


@app.command()
def run(
    line: Annotated[Line, typer.Option(help="the recogniser, the language model, or both")] = Line.all,
    quick: Annotated[bool, typer.Option("--quick", help="small corpus, few steps")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("-S", metavar="SECTION.KEY=VALUE", help="a value for this run")
    ] = None,
) -> None:
    """Retrain, evaluate, decide and publish; fresh stages are not made again."""
    from flows.check import before_run
    from flows.environment import find_project, set_environment
    from flows.lock import hold_run_lock

    project = find_project()
    log_to_console()
    before_run(line.value, quick, overrides or [])  # if it cannot work, nothing is started or written
    set_environment(project)
    with hold_run_lock():
        from flows import server

        api = server.find_or_start()  # loads beside the imports of the next line
        from flows import retrain
        from flows.table import print_table

        for library in ("dvc.repo", "mlflow.tracking"):  # needed in a moment, while the server still starts
            import_module(library)
        try:
            api.wait()
            summary = retrain.retrain(line=line.value, quick=quick, overrides=overrides or [])
        except KeyboardInterrupt:  # typer would turn it into a bare "Aborted."
            _fail("stopped; start the same command again to go on", INTERRUPTED)
        print_table(summary)


@app.command()
def check(
    line: Annotated[Line, typer.Option(help="the recogniser, the language model, or both")] = Line.all,
    quick: Annotated[bool, typer.Option("--quick", help="small corpus, few steps")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("-S", metavar="SECTION.KEY=VALUE", help="a value for this run")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Say what a run would end with, before it begins: all faults at once, each with its remedy."""
    from flows.check import check_and_print

    raise typer.Exit(check_and_print(line.value, quick, overrides or [], json_wanted=as_json))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Check this machine and say what is missing and how to mend it."""
    from flows.doctor import examine

    if not examine(as_json=as_json):
        raise typer.Exit(1)


@app.command()
def up(
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Prefect API and UI")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="MLflow API and UI")] = 5000,
) -> None:
    """Start Prefect, MLflow, a worker and the deployments on this machine; Ctrl-C stops them."""
    from flows.up import serve

    log_to_console()
    serve(prefect_port=prefect_port, mlflow_port=mlflow_port)


@app.command()
def reap(
    as_json: Annotated[bool, typer.Option("--json", help="print what was found as JSON")] = False,
) -> None:
    """Close flow runs whose process is gone and free their slots; `malgil up` does it every 15 s."""
    from flows import server
    from flows.environment import find_project, set_environment

    set_environment(find_project())
    log_to_console()
    api = server.find_or_start()
    from flows.reaping import reaper
    from flows.reaping.table import print_report

    api.wait()
    print_report(reaper.reap(api.url), as_json=as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def pretrain(context: typer.Context) -> None:
    """Pre-train the encoder malgil-xlsr-mini (arguments go to `python -m tasks.asr.pretrain`)."""
    import subprocess

    raise typer.Exit(subprocess.call([sys.executable, "-m", "tasks.asr.pretrain", *context.args]))


def _terminate(*_: Any) -> None:
    raise SystemExit(TERMINATED)


def main() -> None:
    """Runs the command line and exits with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(standalone_mode=True)
    except MalgilError as error:
        _fail(f"{type(error).__name__}: {error}", error.exit_code)
    except OSError as error:
        known = explain_os_error(error)
        _fail(f"{type(known).__name__}: {known}", known.exit_code)


def _fail(message: str, code: int) -> NoReturn:
    from flows import process

    process.stop_all()
    print(f"malgil: {message}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
