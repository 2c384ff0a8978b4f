"""Chooses an implementation of an op, and says why.

    select("attention", dtype=q.dtype, device=q.device, head_dim=128, phase="training", packed=True)

`MALGIL_KERNELS=reference` or `=triton` overrides the choice for every op; `MALGIL_KERNELS_<OP>`
(`MALGIL_KERNELS_ATTENTION=sdpa:flash`) does for one, and is the stronger. The rules are data, in
`thresholds.py`. Each decision is logged once. Nothing is launched here.
"""

import importlib.util
import logging
import operator
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch

from malgil_kernels.thresholds import FACTS, RULES, Rule

P = ParamSpec("P")
R = TypeVar("R")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ALWAYS = frozenset({"reference", "triton"})
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "outside": lambda value, bounds: not bounds[0] <= value <= bounds[1],
}
log = logging.getLogger("malgil.kernels")
_decisions: dict[str, set[str]] = {}


class Choice(NamedTuple):
    """What runs ("triton", "reference", "sdpa:flash", "dequantise+gemm", …), and why."""

    implementation: str
    reason: str


class Hardware(NamedTuple):
    """What launchers size grids and blocks by."""

    capability: int  # 90 for sm_90
    multiprocessors: int


_assumed = Hardware(capability=90, multiprocessors=132)  # where there is no GPU: an H100's


def assume(hardware: Hardware) -> None:
    """Sets what tensors that lie on no GPU are planned for: the compile check's target."""
    global _assumed
    _assumed = hardware


def hardware(device: torch.device | str) -> Hardware:
    """Capability and multiprocessors of a CUDA device; of an H100 (or what was assumed) for any other."""
    device = torch.device(device)
    return _hardware(device) if device.type == "cuda" else _assumed


@lru_cache(maxsize=64)
def _hardware(device: torch.device) -> Hardware:
    found = torch.cuda.get_device_properties(device)
    return Hardware(found.major * 10 + found.minor, found.multi_processor_count)


def on_its_device(op: Callable[P, R]) -> Callable[P, R]:
    """Lets `op` launch on the GPU of its first argument.

    Triton launches on the current GPU, and a model that is spread over several has tensors on others.
    Autograd sets the current one for a backward itself.
    """

    @wraps(op)
    def launched(*args: P.args, **kwargs: P.kwargs) -> R:
        device = args[0].device  # type: ignore[attr-defined]
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            return op(*args, **kwargs)

    return launched


def multiprocessors(device: torch.device | str) -> int:
    """Streaming multiprocessors of `device`, by which a launcher counts its programs."""
    return hardware(device).multiprocessors


def capability(device: torch.device | str) -> int:
    """Compute capability of `device` as in sm_90: 90."""
    return hardware(device).capability


def select(op: str, *, dtype: torch.dtype, device: torch.device | str, **facts: int | str | bool) -> Choice:
    """The implementation of `op` for one call, and the reason.

    Args:
        op: name of the op's folder.
        dtype: of the activations.
        device: where they lie.
        facts: what else the op's rules ask for, as in `thresholds.FACTS`: rows, head_dim, phase, …

    Raises:
        ValueError: an environment variable names no implementation of the op; a fact is not the op's.
    """
    if op in FACTS and (unknown := facts.keys() - FACTS[op]):
        raise ValueError(
            f"facts {', '.join(sorted(unknown))} of {op}: must be among {', '.join(sorted(FACTS[op]))}. "
            "Next: correct the name, or add it to thresholds.FACTS"
        )
    kind = torch.device(device).type
    known = (("dtype", str(dtype).removeprefix("torch.")), ("capability", capability(device)))
    choice = _choose(op, dtype, kind, _wish(op), (*known, *sorted(facts.items())))
    _log(op, kind, dtype, choice)
    return choice


def decisions() -> dict[str, list[str]]:
    """The implementations that `select` has chosen in this process so far, by op."""
    return {op: sorted(chosen) for op, chosen in sorted(_decisions.items())}


@lru_cache(maxsize=1024)
def _log(op: str, kind: str, dtype: torch.dtype, choice: Choice) -> None:
    _decisions.setdefault(op, set()).add(choice.implementation)
    log.info("%s on %s %s: %s (%s)", op, kind, dtype, *choice)


def _wish(op: str) -> tuple[str, str]:
    """The variable that holds for this op, and its value; ("", "") where none is set."""
    rules = {rule.implementation for rule in RULES.get(op, ())}
    for name, accepted in ((f"MALGIL_KERNELS_{op.upper()}", ALWAYS | rules), ("MALGIL_KERNELS", ALWAYS)):
        value = os.environ.get(name, "")
        if value in accepted:
            return name, value
        if value:
            raise ValueError(
                f"{name}={value!r}: must be one of {', '.join(sorted(accepted))}. Next: correct or unset it"
            )
    return "", ""


@lru_cache(maxsize=4096)
def _choose(
    op: str,
    dtype: torch.dtype,
    kind: str,
    wish: tuple[str, str],
    facts: tuple[tuple[str, int | str | bool], ...],
) -> Choice:
    name, wanted = wish
    if wanted == "reference":
        return Choice("reference", f"{name}=reference")
    if importlib.util.find_spec("triton") is None:
        return Choice("reference", "triton is not installed: pip install 'malgil[kernels]'")
    if dtype not in DTYPES:
        return Choice("reference", f"{dtype} has no kernel")
    if not wanted and kind != "cuda":
        return Choice("reference", f"a kernel needs a CUDA device, not {kind}")
    rule = next((rule for rule in RULES.get(op, ()) if _holds(rule, dict(facts))), None)
    if wanted and not (rule and rule.limit):
        return Choice(wanted, f"{name}={wanted}")
    if rule is None:
        return Choice("triton", "CUDA device")
    reason = f"{rule.reason}; {rule.source}" if rule.source else rule.reason
    if wanted not in ("", rule.implementation):
        reason += f"; {name}={wanted} cannot be followed"
    return Choice(rule.implementation, reason)


def _holds(rule: Rule, facts: dict[str, int | str | bool]) -> bool:
    return all(
        fact in facts and COMPARISONS[comparison](facts[fact], value)
        for fact, (comparison, value) in rule.when.items()
    )
