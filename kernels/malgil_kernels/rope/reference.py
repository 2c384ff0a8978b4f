"""Rotary position embedding in readable PyTorch: the truth for tests and the implementation on a CPU."""

import torch


def rope_reference(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """Each pair (a, b) of a head becomes (a·cos − b·sin, b·cos + a·sin); at least float32 inside.

    Args:
        x: (batch, seq, heads, dim).
        cos, sin: (batch or 1, seq, half), one row per token; the first 2·half of `dim` are rotated.
        interleaved: pairs are (0, 1), (2, 3), …; otherwise (0, half), (1, half + 1), …
    """
    inside = torch.promote_types(x.dtype, torch.float32)
    half = cos.shape[-1]
    rotated, rest = x[..., : 2 * half].to(inside), x[..., 2 * half :]
    c, s = cos.to(inside).unsqueeze(2), sin.to(inside).unsqueeze(2)  # (batch or 1, seq, 1, half)
    if interleaved:
        a, b = rotated[..., 0::2], rotated[..., 1::2]
        turned = torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)
    else:
        a, b = rotated[..., :half], rotated[..., half:]
        turned = torch.cat((a * c - b * s, b * c + a * s), dim=-1)
    return torch.cat((turned.to(x.dtype), rest), dim=-1)
