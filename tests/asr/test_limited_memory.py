"""A batch that truly does not fit into memory is cut, and the training goes on to its end."""

import json
import os
import sys
from pathlib import Path

import pytest

from tasks.asr.checkpoints.checkpoint import Vocabulary, fresh_model, mini_config, save_checkpoint
from tests.children import run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def wide_encoder(tmp_path: Path) -> Path:
    """Few weights, but 3.3 MB of memory per second of audio and tensor in its first layer."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    vocabulary = Vocabulary.of_symbols(("a", "b"))
    config = mini_config(len(vocabulary.symbols))
    config.update(
        {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "conv_dim": [512, 16, 16, 32],
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        }
    )
    save_checkpoint(folder, fresh_model(config, seed=0), vocabulary, {"kind": "test"})
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its address space from /proc")
def test_a_batch_that_does_not_fit_is_cut_and_the_training_ends(
    prepared: Path, wide_encoder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.asr.limited_memory"]
    done = run(
        [*command, str(prepared), str(wide_encoder), str(tmp_path)],
        cwd=ROOT,
        # Every thread takes address space of its own. And a tensor gives its own back as soon as it is freed:
        # otherwise the allocator keeps it in pieces, and how large a batch still fits is chance.
        env={
            **os.environ,
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": "131072",
            "OMP_NUM_THREADS": "1",
            "MALGIL_THREADS": "1",
        },
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "out of memory at micro batches of" in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["steps"] == 3 and result["best_step"] == 3
    assert result["hours_heard"] * 3600 > 90  # three whole batches of 40 s, cut into smaller ones
    assert (tmp_path / "large/checkpoint/model.safetensors").is_file()
