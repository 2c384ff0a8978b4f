"""A training in several processes: who this one is, what they agree on, and how they are started.

Started by torchrun (`torchrun --nproc_per_node 2 -m tasks.asr.train`), or by `launch`, which does what
torchrun does. Gradients are summed by hand after the last micro batch of an update rather than by
DistributedDataParallel: frozen layers, dropped layers and a repeated update then need no care. gloo on
CPU, NCCL on CUDA.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tasks import errors
from tasks.errors import ArtifactError, MalgilError

_NOISY = (
    "torch.multiprocessing.spawn",
    "torch.distributed.elastic.agent.server.api",
    "torch.distributed.elastic.multiprocessing.api",
    "torch.distributed.elastic.multiprocessing.errors.error_handler",
)


@dataclass(frozen=True)
class World:
    """This process among `size`; rank 0 leads: it alone evaluates and writes."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this process evaluates and writes."""
        return self.rank == 0

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [float(value) for value in tensor.tolist()]

    def told(self, value: Any) -> Any:
        """`value` of rank 0, in every process; small and picklable."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device(self.device))
        return box[0]

    def sum_gradients(self, weights: Sequence[torch.nn.Parameter], extra: Sequence[float]) -> list[float]:
        """Adds up the gradients of all processes in place, and the `extra` numbers; returns these sums.

        A weight without a gradient anywhere keeps none, so that the optimizer passes over it as it would
        in one process.
        """
        if self.size == 1:
            return list(extra)
        learning = [weight for weight in weights if weight.requires_grad]
        pieces = [
            (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten().float()
            for weight in learning
        ]
        has = torch.tensor([float(weight.grad is not None) for weight in learning], device=self.device)
        numbers = torch.tensor(list(extra), dtype=torch.float32, device=self.device)
        flat = torch.cat([*pieces, has, numbers])
        dist.all_reduce(flat)
        sizes = [*(p.numel() for p in pieces), len(learning), len(numbers)]
        *grads, has, numbers = torch.split(flat, sizes)
        for weight, grad, count in zip(learning, grads, has.tolist(), strict=True):
            weight.grad = grad.view_as(weight).to(weight.dtype) if count else None
        return [float(value) for value in numbers.tolist()]


@contextmanager
def join() -> Iterator[World]:
    """The world that torchrun's environment names, joined; one process alone without it.

    Processes other than rank 0 say nothing below a warning.
    """
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    if size == 1:
        yield World(device="cuda" if torch.cuda.is_available() else "cpu")
        return
    if device != "cpu":
        torch.cuda.set_device(local)
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    logger = logging.getLogger("malgil")
    level = logger.level
    try:
        if dist.get_rank() > 0:
            logger.setLevel(logging.WARNING)
        yield World(dist.get_rank(), size, device)
    finally:
        logger.setLevel(level)
        dist.destroy_process_group()


def launched() -> bool:
    """Whether this process is one of several that torchrun or `launch` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(count: int, body: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `body(*arguments)` in `count` processes on this machine, as torchrun does; returns rank 0's value.

    They end with this process. Raises the `MalgilError` that one of them raised, or `ArtifactError` when one
    died of something else.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for library in _NOISY:  # the whole traceback, in lines of 200 characters; we say what matters of it
        logging.getLogger(library).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="malgil-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            run_id="malgil",
            max_restarts=0,
        )
        try:
            value = elastic_launch(config, _rank)(folder, body, arguments)[0]
            _raise_noted(folder)
            return value
        except ChildFailedError as error:
            _raise_noted(folder)
            rank, failure = error.get_first_failure()
            raise ArtifactError(
                f"process {rank} of {count} ended with exit code {failure.exitcode}",
                f"all must live to the end ({str(failure.message).strip().splitlines()[-1:]})",
                "start the same command again: it continues from the last checkpoint",
            ) from error


def _rank(folder: str, body: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """One process of `launch`: an error meant for the user is noted for the parent, which says it once.

    The process itself ends in order: they mostly all meet the same error, and one that is terminated while it
    ends may stay behind.
    """
    from tasks.stage import set_logging

    set_logging()
    try:
        return body(*arguments)
    except MalgilError as error:
        note = {"kind": type(error).__name__, "args": error.args, "state": vars(error)}
        path = Path(folder) / f"{os.environ['RANK']}.json"
        path.write_text(json.dumps(note, ensure_ascii=False), encoding="utf-8")
        return None


def _raise_noted(folder: str) -> None:
    for path in sorted(Path(folder).glob("*.json")):
        note = json.loads(path.read_text(encoding="utf-8"))
        kind: type[MalgilError] = getattr(errors, note["kind"], ArtifactError)
        error = kind.__new__(kind, *note["args"])
        error.args = tuple(note["args"])
        vars(error).update(note["state"])
        raise error
