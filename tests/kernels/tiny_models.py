"""Tiny models of every family with a profile, a batch for them, and the comparison of what they learn."""

import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto import AutoModelForCausalLM

from malgil_kernels.testing import relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB = 97
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYERS = ["sliding_attention", "full_attention"]
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "mistral": MistralConfig(**SHAPE, sliding_window=5),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE),
    "gemma": GemmaConfig(**SHAPE, hidden_activation="gelu_pytorch_tanh"),
    "gemma2": Gemma2Config(**SHAPE, sliding_window=5, layer_types=LAYERS, query_pre_attn_scalar=20),
    "gemma3_text": Gemma3TextConfig(**SHAPE, sliding_window=5, layer_types=LAYERS),
}
FAMILIES = sorted(CONFIGS)


def tiny(family, dtype=torch.float32):
    """A model with random weights, norms included: a norm of ones hides which variant it is."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation="eager").to(DEVICE, dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    return model.eval()


def batch():
    """Two rows, the second padded on the right by four."""
    ids = torch.randint(3, VOCAB, (2, 11), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    labels = torch.where(mask.bool(), ids, -100)
    labels[:, :3] = -100
    return ids, mask, labels


def gradients(model):
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def learned(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return gradients(model)


def assert_same(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    scale = max(float(w.abs().max()) for w in wanted.values())
    for name in wanted:
        # a weight that hardly matters has a gradient that is mostly rounding
        terms = wanted[name] if wanted[name].abs().max() > 1e-3 * scale else wanted[name] + 1e-3 * scale
        assert relative_error(found[name], wanted[name].double(), terms) <= tolerance, name
