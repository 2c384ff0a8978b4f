"""The fused layer computes what PEFT's own does."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from tasks.inference.loading import load_model
from tasks.llm.lora import FusedLoraLinear, add_lora
from tasks.llm.profiles import LLAMA


def test_outputs_and_gradients_equal_pefts(base: Path) -> None:
    ours = add_lora(load_model(base), rank=4, alpha=8, dropout=0.0, seed=1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(LLAMA.lora_targets), task_type="CAUSAL_LM")
    theirs = get_peft_model(load_model(base), config)
    fused = [module for module in ours.modules() if isinstance(module, FusedLoraLinear)]
    assert len(fused) == 2 * len(LLAMA.lora_targets)
    torch.manual_seed(5)
    for (name, one), (other_name, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == other_name and one.requires_grad == ("lora_" in name)
        if one.requires_grad:
            value = torch.randn_like(one) * 0.1
            one.data.copy_(value)
            other.data.copy_(value)
    ids = torch.arange(3, 40)[None]
    logits = [model(input_ids=ids).logits for model in (ours, theirs)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    for one in logits:
        one.square().mean().backward()
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(
                one.grad, other.grad, rtol=1e-3, atol=1e-4, msg=lambda t, n=name: f"{n}: {t}"
            )


def test_dropout_falls_back_to_pefts_layer(base: Path) -> None:
    model = add_lora(load_model(base), rank=4, alpha=8, dropout=0.5, seed=1).train()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    ids = torch.arange(3, 40)[None]
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
