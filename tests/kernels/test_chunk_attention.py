"""Chunked attention: the streaming encoder's own mask, the float64 reference, and the kernels."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from transformers.masking_utils import bidirectional_mask_function

from malgil_kernels.attention.rule import Rule
from malgil_kernels.chunk_attention import chunk_attention
from malgil_kernels.chunk_attention.reference import chunk_attention_reference, chunk_mask
from malgil_kernels.testing import check_op
from tasks.asr.streaming.attention import CONFIG_KEY, _chunk_mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("chunk", "left"), [(1, 0), (4, 2), (7, 1), (50, 3)])
def test_the_mask_is_the_streaming_encoders(chunk, left):
    lengths, frames = torch.tensor([30, 17, 1]), 30
    padding = torch.arange(frames)[None, :] < lengths[:, None]
    encoder = _chunk_mask(
        config=SimpleNamespace(**{CONFIG_KEY: {"chunk_frames": chunk, "left_chunks": left}}),
        mask_function=bidirectional_mask_function,
        batch_size=3,
        q_length=frames,
        kv_length=frames,
        attention_mask=padding,
        device="cpu",
    )[:, 0]
    ours = chunk_mask(frames, lengths, Rule(chunk=chunk, left=left * chunk, right=0))
    for theirs, mine, length in zip(encoder, ours, lengths.tolist(), strict=True):
        assert torch.equal(theirs[:length], mine[:length])
        assert not mine[length:].any()  # theirs lets a frame of padding see itself, which nobody reads


@pytest.mark.parametrize(
    ("dtype", "right"), [(torch.float32, 0), (torch.float16, 3), (torch.bfloat16, 0)], ids=str
)
def test_forward_and_every_gradient(dtype, right, monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")
    generator = torch.Generator().manual_seed(3)
    # heads before frames in memory, as an encoder's transposed projections lie
    q, k, v = (
        torch.randn(3, 2, 45, 16, generator=generator).to(dtype).to(DEVICE).transpose(1, 2).requires_grad_()
        for _ in range(3)
    )
    lengths = torch.tensor([45, 20, 0], dtype=torch.int32, device=DEVICE)
    rule = Rule(chunk=8, left=16, right=right)
    check_op(
        lambda *x: chunk_attention(*x, lengths, chunk_frames=8, left_chunks=2, right_frames=right),
        lambda *x: chunk_attention_reference(*x, lengths, rule, 0.25),
        q,
        k,
        v,
    )


@pytest.mark.parametrize("shape", [(0, 5, 2, 16), (2, 0, 2, 16)])
def test_nothing_in_nothing_out(shape, monkeypatch):
    monkeypatch.setenv("MALGIL_KERNELS", "triton")
    x = torch.zeros(shape, device=DEVICE)
    lengths = torch.zeros(shape[0], dtype=torch.int32, device=DEVICE)
    assert chunk_attention(x, x, x, lengths, chunk_frames=4, left_chunks=1).shape == shape


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chunk_frames": 0}, "chunk_frames is 0"),
        ({"left_chunks": -1}, "left_chunks is -1"),
        ({"right_frames": -1}, "right_frames is -1"),
        ({"k": torch.zeros(2, 5, 2, 16)}, "k has shape"),
        ({"v": torch.zeros(2, 4, 2, 8)}, "v has shape"),
        ({"lengths": torch.zeros(2)}, "lengths is torch.float32"),
        ({"lengths": torch.zeros(3, dtype=torch.int32)}, "lengths has shape"),
    ],
)
def test_a_wrong_argument_is_named(change, named):
    right = {name: torch.zeros(2, 4, 2, 16) for name in "qkv"}
    right |= {"lengths": torch.zeros(2, dtype=torch.int32), "chunk_frames": 2, "left_chunks": 1}
    with pytest.raises((ValueError, TypeError), match=named):
        chunk_attention(**(right | change))
