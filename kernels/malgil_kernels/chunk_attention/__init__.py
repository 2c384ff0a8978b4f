"""Bidirectional attention in chunks: what the streaming recogniser's encoder computes over whole utterances."""

import torch

from malgil_kernels.attention import check_tensors, checked_scale
from malgil_kernels.attention.rule import Rule
from malgil_kernels.chunk_attention.reference import chunk_attention_reference
from malgil_kernels.dispatch import select

__all__ = ["chunk_attention"]


def chunk_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    *,
    chunk_frames: int,
    left_chunks: int,
    right_frames: int = 0,
    scale: float | None = None,
) -> torch.Tensor:
    """Each frame of chunk c attends to the chunks c − left_chunks to c, and to the frames just after them.

    The mask of the streaming encoder, which has no look-ahead in attention: with `right_frames` 0 real frames
    get what it computes. Padding gives 0, and its gradients are 0. The same input gives the same bits,
    gradients included. The kernels are those of `attention`, and so is the work: only chunks in reach are read.

    Args:
        q: (batch, frames, heads, dim), dim from 1 to 256; float32, float16 or bfloat16.
        k, v: (batch, frames, kv_heads, dim); kv_heads divides heads.
        lengths: (batch,) int32: real frames of each utterance; the others are padding at its end.
        chunk_frames: frames of a chunk, at least 1.
        left_chunks: how many chunks before its own a frame sees.
        right_frames: how many frames after its own chunk it sees.
        scale: of the scores; None: dim ** -0.5.

    Returns:
        (batch, frames, heads, dim) in q's dtype.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.
    """
    for name, number, least in (
        ("chunk_frames", chunk_frames, 1),
        ("left_chunks", left_chunks, 0),
        ("right_frames", right_frames, 0),
    ):
        if number < least:
            raise ValueError(f"{name} is {number}: must be at least {least}")
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4 or x.shape[:2] != q.shape[:2]:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}: must be (batch, frames, heads, dim), q's first two"
            )
    flat_q, flat_k, flat_v = (x.flatten(0, 1) for x in (q, k, v))
    check_tensors(flat_q, flat_k, flat_v)
    if lengths.dtype != torch.int32:
        raise TypeError(f"lengths is {lengths.dtype}: must be torch.int32. Next: lengths.to(torch.int32)")
    if lengths.shape != q.shape[:1] or lengths.device != q.device:
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)} on {lengths.device}: must be ({q.shape[0]},) on {q.device}"
        )
    scale = checked_scale(scale, None, q.shape[-1])
    rule = Rule(chunk=chunk_frames, left=left_chunks * chunk_frames, right=right_frames)
    if select("chunk_attention", dtype=q.dtype, device=q.device).implementation == "triton":
        from malgil_kernels.attention.triton_op import padded_attention_triton

        out, _ = padded_attention_triton(flat_q, flat_k, flat_v, lengths, q.shape[1], rule, scale)
        return out.view(q.shape)
    return chunk_attention_reference(q, k, v, lengths, rule, scale)
