"""Weights are whole or refused: what a model needs against what a file holds, tensor by tensor.

Every load of weights asks one of the functions here, so that the messages are alike: missing, unexpected and
wrongly shaped tensors are named, up to ten of each, with their count. Nothing is left to a library that fills
what is missing with random numbers. No command.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tasks.errors import ModelError

Shape = tuple[int, ...]
NAMED = 10  # of each kind; the rest is counted
Accepts = Callable[[str], bool]


def require_whole(
    expected: Mapping[str, Sequence[int]],
    found: Mapping[str, Sequence[int]],
    *,
    where: object,
    next_step: str,
    optional: Accepts | None = None,
    known: Accepts | None = None,
) -> None:
    """Compares the tensors that a model needs with those of a file, by name and shape.

    Args:
        expected: shapes of what the model needs, by name.
        found: shapes of what the file holds, by name.
        where: the file or folder, for the message.
        next_step: what to do when they differ.
        optional: whether a name may be missing.
        known: whether a name may be there although the model has no use for it.

    Raises:
        ModelError: tensors are missing, unexpected, or of another shape.
    """
    shapes = [
        (name, tuple(found[name]), tuple(shape))
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    _refuse(
        (name for name in expected if name not in found and not (optional and optional(name))),
        (name for name in found if name not in expected and not (known and known(name))),
        shapes,
        where,
        next_step,
    )


def require_loaded(
    report: Mapping[str, Any],
    *,
    where: object,
    next_step: str,
    optional: Accepts | None = None,
    known: Accepts | None = None,
) -> None:
    """The same from the report that transformers gives of a load (`output_loading_info`), with sizes that do
    not fit ignored there (`ignore_mismatched_sizes`), so that they can be named here.

    Raises:
        ModelError: see `require_whole`; or transformers reports another error.
    """
    _refuse(
        (name for name in report["missing_keys"] if not (optional and optional(name))),
        (name for name in report["unexpected_keys"] if not (known and known(name))),
        [
            (name, tuple(found), tuple(wanted))
            for name, found, wanted in report["mismatched_keys"]
            if not (optional and optional(name))
        ],
        where,
        next_step,
    )
    if report.get("error_msgs"):
        raise ModelError(
            f"{where} does not fit the model ({'; '.join(map(str, report['error_msgs']))[:300]})",
            "every tensor of the model must be in the file, in its shape, and no other",
            next_step,
        )


def require_finite(weights: Mapping[str, Any], *, where: object, next_step: str) -> None:
    """Raises `ModelError` with the names of tensors (torch) that hold NaN or infinite numbers."""
    wrong = [
        name for name, weight in weights.items() if weight.is_floating_point() and not weight.isfinite().all()
    ]
    if wrong:
        raise ModelError(
            f"{where}: {listed(wrong, 'tensor holds', 'tensors hold')} NaN or infinite values",
            "weights are finite",
            next_step,
        )


def listed(names: Iterable[str], one: str, many: str) -> str:
    """ "12 tensors are missing (a, b, ...)": a count, what they are, and the first ten names in order."""
    ordered = sorted(names)
    more = ", …" if len(ordered) > NAMED else ""
    return f"{len(ordered)} {one if len(ordered) == 1 else many} ({', '.join(ordered[:NAMED])}{more})"


def size(shape: Sequence[int]) -> str:
    """A shape as it is read: 8×64; a scalar is 1."""
    return "×".join(map(str, shape)) or "1"


def _refuse(
    missing: Iterable[str],
    unexpected: Iterable[str],
    shapes: Sequence[tuple[str, Shape, Shape]],
    where: object,
    next_step: str,
) -> None:
    missing, unexpected = list(missing), list(unexpected)
    found = []
    if missing:
        found.append(listed(missing, "tensor is missing", "tensors are missing"))
    if unexpected:
        found.append(listed(unexpected, "is unexpected", "are unexpected"))
    if shapes:
        described = [f"{name} is {size(has)} instead of {size(wanted)}" for name, has, wanted in shapes]
        found.append(listed(described, "is of another shape", "are of another shape"))
    if found:
        raise ModelError(
            f"{where} does not fit the model: {'; '.join(found)}",
            "every tensor of the model must be in the file, in its shape, and no other",
            next_step,
        )
