"""The geometry of XLSR-large (317 million random weights), trained and transcribing: prints its peak memory.

    python -m tests.asr.full_size train FOLDER         two steps of all weights, then writes the checkpoint
    python -m tests.asr.full_size transcribe FOLDER    loads it and transcribes

Children of test_full_size.py: the peak of a process is its own alone.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from tasks.asr.checkpoints.checkpoint import Vocabulary, describe, save_checkpoint
from tasks.asr.engines.torch_model import TorchRecogniser
from tasks.asr.threads import use_threads
from tasks.asr.training.augment import Example
from tasks.asr.training.batching import AudioStore, ctc_loss, make_batch, uses_mask

SECONDS = 2.5
VOCABULARY = Vocabulary.of_symbols(tuple(chr(0xAC00 + 9 * index) for index in range(1_200)))
CONFIG = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
}


def audio() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise: what is measured is memory."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, int(SECONDS * 16_000)).astype(np.float32)


def train(folder: Path) -> dict[str, Any]:
    """Two steps of AdamW over all weights in fp32, with gradient checkpointing."""
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(VOCABULARY.symbols), pad_token_id=0, **CONFIG))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    flat = (audio() * 32_767).astype(np.int16)
    store = AudioStore(flat, np.array([0]), np.array([len(flat)]))
    example = Example(parts=(0,), silences=(0, 0), samples=len(flat))
    batch = make_batch((example,), store, lambda _: [2, 3, 4, 5], True, uses_mask(model))
    first = {name: weight.detach().flatten()[:50].clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    losses = []
    for _ in range(2):
        loss = ctc_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    peak = peak_gib()
    same = [
        n for n, weight in model.named_parameters() if torch.equal(weight.detach().flatten()[:50], first[n])
    ]
    save_checkpoint(folder, model, VOCABULARY, {"kind": "test"})
    return {
        "peak_gib": peak,
        "losses": losses,
        "unchanged": same,
        "parameters": describe(model)["parameters"],
    }


def transcribe(folder: Path) -> dict[str, Any]:
    """The road that `malgil asr transcribe --backend torch` takes."""
    recogniser = TorchRecogniser(folder)
    texts = recogniser.transcribe([audio(), audio()[:20_000]])
    return {"texts": texts, "peak_gib": peak_gib()}


def peak_gib() -> float:
    """Most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    use_threads()
    done = {"train": train, "transcribe": transcribe}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps(done))
