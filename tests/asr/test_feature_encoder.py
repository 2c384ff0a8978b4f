"""The feature encoder that trains frames first is the original one: outputs, gradients, and what it leaves."""

import pytest
import torch

from tasks.asr.training.feature_encoder import convolve, train_frames_first
from tasks.asr.training.freeze import encoder_of
from tests.asr.tiny_models import tiny_model

TOLERANCE = 1e-5  # relative to the largest value of a tensor: fp32 sums in another order


def close(found: torch.Tensor | None, expected: torch.Tensor | None) -> bool:
    assert found is not None and expected is not None
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "frames"),
    [
        (10, 5, 1, 203),
        (16, 10, 1, 160),
        (3, 2, 6, 50),
        (2, 2, 6, 51),
        (4, 4, 3, 4),
        (1, 1, 5, 7),
        (2, 3, 4, 20),
    ],
)
@pytest.mark.parametrize("biased", [True, False])
def test_a_convolution_frames_first_is_torchs(
    kernel: int, stride: int, channels: int, frames: int, biased: bool
) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(channels, 7, kernel, stride, bias=biased)
    # not contiguous, and not at the start of its storage
    ours = torch.randn(frames, 4, channels).transpose(0, 1)[1:].detach().requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    expected = conv(theirs.transpose(1, 2)).transpose(1, 2)
    found = convolve(ours, conv.weight, conv.bias, stride)
    assert found.shape == expected.shape and close(found, expected)
    towards = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [theirs, *conv.parameters()], towards)
    for mine, other in zip(
        torch.autograd.grad(found, [ours, *conv.parameters()], towards), wanted, strict=True
    ):
        assert close(mine, other)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "unispeech-sat", "data2vec-audio"])
def test_a_whole_model_learns_the_same(kind: str) -> None:
    audio = torch.randn(3, 3_000, generator=torch.Generator().manual_seed(1))
    gradients = []
    for frames_first in (False, True):
        model = tiny_model(kind).train()
        if frames_first:
            train_frames_first(model)
        model.freeze_feature_encoder()
        for weight in model.parameters():
            weight.requires_grad_(True)
        next(iter(encoder_of(model).feature_extractor.parameters())).requires_grad_(False)
        torch.manual_seed(2)
        logits = model(audio, attention_mask=torch.ones(3, 3_000, dtype=torch.long)).logits
        (logits**2).sum().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, expected in gradients[0].items():
        found = gradients[1][name]
        assert (found is None) == (expected is None), name
        if expected is not None and float(expected.abs().max()) > 1e-6:
            assert close(found, expected), name


def test_evaluation_and_other_norms_are_left_alone() -> None:
    audio = torch.randn(1, 3_000)
    model = tiny_model("wav2vec2")
    front = encoder_of(model).feature_extractor
    before = front.eval()(audio)
    undo = train_frames_first(model)
    assert torch.equal(front(audio), before)
    undo()
    assert torch.equal(front.train()(audio), before)
    assert "forward" not in vars(front)
    group = tiny_model("wav2vec2", "group")
    train_frames_first(group)()
    assert "forward" not in vars(encoder_of(group).feature_extractor)
