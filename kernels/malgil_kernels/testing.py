"""What the tests and benchmarks of all ops share: tolerance, awkward sizes, poison, and the comparison.

A result is judged by its largest difference from the float64 reference, divided by the reference's largest
magnitude. float32 leaves room for the order of summation, the 16-bit types for the rounding of the result.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
AWKWARD_SIZES = (1, 63, 100, 1000)
GUARD_BYTES = (
    4096  # before and after each poisoned allocation; a multiple of any alignment that a kernel uses
)

Output = torch.Tensor | tuple[torch.Tensor, ...]


def relative_error(result: torch.Tensor, truth: torch.Tensor, terms: torch.Tensor | None = None) -> float:
    """Largest |result − truth| over the largest |truth|; inf if the result has a NaN.

    Args:
        result: what the kernel gave, any dtype.
        truth: the reference's, float64.
        terms: where `truth` is a difference of nearly equal terms, one of them: its magnitude, not that
            of the difference, bounds the rounding.
    """
    if result.shape != truth.shape:
        raise ValueError(f"shapes {tuple(result.shape)} and {tuple(truth.shape)} differ")
    if truth.numel() == 0:
        return 0.0
    difference = (result.detach().double() - truth.detach().double()).abs().max()
    if torch.isnan(difference):
        return float("inf")
    scale = (truth if terms is None else terms).detach().double().abs().max()
    return float(difference / scale.clamp_min(1e-30))


@contextmanager
def poisoned() -> Iterator[None]:
    """Inside, torch.empty, empty_like and Tensor.new_empty return memory in which every mistake shows.

    Floats are NaN and integers near their largest value, so that what a kernel leaves unwritten cannot pass
    for a result. Each allocation has a guard zone before and after it.

    Raises:
        AssertionError: on leaving, a guard zone was written: a store outside of its tensor.
    """
    plain_like = torch.empty_like
    guards: list[tuple[torch.Tensor, int, tuple[int, ...]]] = []

    def allocate(
        *size: Any, dtype: torch.dtype | None = None, device: Any = None, **options: Any
    ) -> torch.Tensor:
        shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        dtype, requires_grad = dtype or torch.get_default_dtype(), options.pop("requires_grad", False)
        options.pop("memory_format", None)
        count = math.prod(shape) * dtype.itemsize
        byte = 0xFF if dtype.is_floating_point else 0x7F if dtype != torch.bool else 1
        memory = torch.full((count + 2 * GUARD_BYTES,), byte, dtype=torch.uint8, device=device)
        guards.append((memory, byte, shape))
        inside = memory[GUARD_BYTES : GUARD_BYTES + count].view(dtype).view(shape)
        return inside.requires_grad_(requires_grad)

    def allocate_like(x: torch.Tensor, **options: Any) -> torch.Tensor:
        dtype, device = options.pop("dtype", None) or x.dtype, options.pop("device", None) or x.device
        wanted = plain_like(x, dtype=dtype, device="meta", **options).stride()
        order = sorted(range(x.ndim), key=lambda i: wanted[i], reverse=True)
        dense = allocate([x.shape[i] for i in order], dtype=dtype, device=device)
        return dense.permute([order.index(i) for i in range(x.ndim)])

    def allocate_new(x: torch.Tensor, *size: Any, **options: Any) -> torch.Tensor:
        dtype, device = options.pop("dtype", None) or x.dtype, options.pop("device", None) or x.device
        return allocate(*size, dtype=dtype, device=device, **options)

    with (
        mock.patch.object(torch, "empty", allocate),
        mock.patch.object(torch, "empty_like", allocate_like),
        mock.patch.object(torch.Tensor, "new_empty", allocate_new),
    ):
        yield
    for memory, byte, shape in guards:
        for side, zone in (("before", memory[:GUARD_BYTES]), ("after", memory[-GUARD_BYTES:])):
            assert bool((zone == byte).all()), f"something was written {side} the memory of a {shape} tensor"


def check_op(
    op: Callable[..., Output],
    reference: Callable[..., Output],
    *inputs: torch.Tensor,
    terms: Mapping[int, torch.Tensor] | None = None,
) -> dict[str, float]:
    """Compares forward and every gradient of `op` with `reference` in float64, under poison.

    The tolerance is that of the coarsest floating dtype among the inputs. Output gradients are random and not
    contiguous (inner stride 1), as attention and slicing give them.

    Args:
        op: the kernel's function; takes `inputs` as they are, strides included.
        reference: the same of float64 inputs (integers stay as they are).
        inputs: those with requires_grad have their gradients compared.
        terms: for the gradient of input i, the magnitude that bounds its rounding (see `relative_error`).

    Returns:
        The relative error of each result: "output 0", "gradient of input 0", …

    Raises:
        AssertionError: a result is out of tolerance, has another dtype than the reference would give it, or
            memory beside a result was written.
    """
    tolerance = max(TOLERANCE[x.dtype] for x in inputs if x.is_floating_point())
    wide = [
        x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x for x in inputs
    ]
    wanted = as_tuple(reference(*wide))
    generator = torch.Generator().manual_seed(5)
    with poisoned():
        got = as_tuple(op(*inputs))
        dys = [padded_randn(y, generator) for y in got if y.requires_grad]
        differentiable = [(i, x) for i, x in enumerate(inputs) if x.requires_grad]
        found = (
            torch.autograd.grad(
                [y for y in got if y.requires_grad], [x for _, x in differentiable], dys, allow_unused=True
            )
            if dys
            else ()
        )
    true = (
        torch.autograd.grad(
            [y for y in wanted if y.requires_grad],
            [wide[i] for i, _ in differentiable],
            [dy.double() for dy in dys],
            allow_unused=True,
        )
        if dys
        else ()
    )
    errors = {f"output {i}": relative_error(y, t) for i, (y, t) in enumerate(zip(got, wanted, strict=True))}
    for (i, x), dx, t in zip(differentiable, found, true, strict=True):
        name = f"gradient of input {i}"
        assert (dx is None) == (t is None), (
            f"{name}: {dx if dx is None else 'given'}, the reference disagrees"
        )
        if dx is not None and t is not None:
            assert dx.dtype == x.dtype, f"{name} is {dx.dtype}: must be {x.dtype}"
            errors[name] = relative_error(dx, t, (terms or {}).get(i))
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    assert not wrong, f"relative errors {wrong} are over {tolerance}"
    return errors


def as_tuple(output: Output) -> tuple[torch.Tensor, ...]:
    """One tensor or several as a tuple."""
    return (output,) if isinstance(output, torch.Tensor) else tuple(output)


def padded_randn(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random values in the shape of `like`, rows 8 elements further apart than they are long."""
    if like.ndim == 0:
        return torch.randn((), generator=generator).to(like)
    wide = torch.randn(*like.shape[:-1], like.shape[-1] + 8, generator=generator)
    return wide.to(like)[..., :-8]
