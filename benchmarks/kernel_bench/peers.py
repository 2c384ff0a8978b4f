"""Peers that may or may not be installed, looked up once: a missing one is named, not skipped in silence."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch


def peer(module: str, name: str) -> Callable[..., Any]:
    """The function `name` of `module`, imported when first called: raises ImportError where it is missing."""

    def call(*args: Any, **options: Any) -> Any:
        return _attribute(module, name)(*args, **options)

    return call


@lru_cache(maxsize=64)
def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under torch.compile; on a CPU plain, because nothing is timed there."""
    return torch.compile(function, dynamic=False) if torch.cuda.is_available() else function


def normal(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, grad: bool = True
) -> torch.Tensor:
    """Random values on the generator's device: never zeros, on which a GPU is faster than in life."""
    x = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32).to(dtype)
    return x.requires_grad_(grad)


class _Made(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.data

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


def made(x: torch.Tensor) -> torch.Tensor:
    """x as a layer before would leave it, at no cost: no leaf, so that an op may write over it."""
    y: torch.Tensor = _Made.apply(x)
    return y
