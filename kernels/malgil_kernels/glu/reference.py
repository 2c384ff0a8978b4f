"""Gated linear units in readable PyTorch: the truth for tests and the implementation on a CPU."""

import torch
import torch.nn.functional as F


def glu_reference(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """y = act(gate) · up, element by element; at least float32 inside, rounded once.

    Args:
        gate, up: equal shapes.
        activation: "silu" (SwiGLU), "gelu" (GeGLU with erf) or "gelu_tanh" (GeGLU with tanh).
    """
    inside = torch.promote_types(gate.dtype, torch.float32)
    wide = gate.to(inside)
    if activation == "silu":
        active = F.silu(wide)
    else:
        active = F.gelu(wide, approximate="tanh" if activation == "gelu_tanh" else "none")
    return (active * up.to(inside)).to(gate.dtype)
