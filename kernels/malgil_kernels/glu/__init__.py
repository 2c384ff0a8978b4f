"""Gated linear units: SwiGLU (Llama, Qwen), GeGLU with erf, GeGLU with tanh (Gemma). The projections around
them are not part of the op."""

import torch

from malgil_kernels.dispatch import select
from malgil_kernels.glu.reference import glu_reference

__all__ = ["ACTIVATIONS", "glu", "glu_halves"]

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


def glu(
    gate: torch.Tensor, up: torch.Tensor, activation: str = "silu", *, gradient_in_place: bool = False
) -> torch.Tensor:
    """y = act(gate) · up, element by element.

    Args:
        gate, up: (..., width) each, any strides; one that is not rows of inner stride 1 is copied first.
        activation: "silu" (SwiGLU), "gelu" (GeGLU, erf) or "gelu_tanh" (GeGLU, tanh; transformers'
            `gelu_pytorch_tanh`).
        gradient_in_place: the kernel's backward writes the gradients over gate and up instead of into two new
            tensors. For inputs that nothing else reads afterwards, as the outputs of two projections are. A
            second backward, or one of another function that saved them, raises. The reference ignores it.

    Returns:
        (..., width) in gate's dtype, computed in float32 at least and rounded once.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, `activation` is unknown, or gradients would
            overwrite a leaf.

    The backward recomputes act(gate). Deterministic.
    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if up.shape != gate.shape or up.dtype != gate.dtype or up.device != gate.device:
        raise ValueError(
            f"up is {up.dtype} {tuple(up.shape)} on {up.device}: must be as gate, {gate.dtype} "
            f"{tuple(gate.shape)} on {gate.device}"
        )
    _check(gate, activation)
    if gradient_in_place:
        _check_overwritable("gate", gate)
        _check_overwritable("up", up)
    if select("glu", dtype=gate.dtype, device=gate.device).implementation == "triton":
        from malgil_kernels.glu.triton_op import glu_triton

        return glu_triton(gate, up, activation, gradient_in_place)
    return glu_reference(gate, up, activation)


def glu_halves(
    gate_up: torch.Tensor, activation: str = "silu", *, gradient_in_place: bool = False
) -> torch.Tensor:
    """`glu` of the two halves of one tensor, as a fused gate/up projection leaves them; one gradient tensor.

    Args:
        gate_up: (..., 2·width), gate first.
        activation: as in `glu`.
        gradient_in_place: as in `glu`.

    Returns:
        (..., width).

    Raises:
        ValueError: as `glu`; the last size is odd.
    """
    _check(gate_up, activation)
    if gate_up.shape[-1] % 2:
        raise ValueError(f"gate_up has shape {tuple(gate_up.shape)}: its last size must be even")
    if gradient_in_place:
        _check_overwritable("gate_up", gate_up)
    if select("glu", dtype=gate_up.dtype, device=gate_up.device).implementation == "triton":
        from malgil_kernels.glu.triton_op import glu_halves_triton

        return glu_halves_triton(gate_up, activation, gradient_in_place)
    gate, up = gate_up.chunk(2, dim=-1)
    return glu_reference(gate, up, activation)


def _check(x: torch.Tensor, activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}: must be one of {', '.join(ACTIVATIONS)}")
    if x.ndim == 0 or not x.dtype.is_floating_point:
        raise ValueError(f"gate is {x.dtype} {tuple(x.shape)}: must be floating-point with at least one dim")


def _check_overwritable(name: str, x: torch.Tensor) -> None:
    base = x if x._base is None else x._base
    if x.requires_grad and base.is_leaf:
        raise ValueError(
            f"{name} is a leaf that requires grad, or a view of one: gradient_in_place would overwrite it. "
            "Next: leave gradient_in_place off"
        )
    if any(step == 0 and size > 1 for step, size in zip(x.stride(), x.shape, strict=True)):
        raise ValueError(
            f"{name} has strides {x.stride()}: elements share memory. Next: leave gradient_in_place off"
        )
