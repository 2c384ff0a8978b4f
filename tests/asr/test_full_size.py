"""The geometry of XLSR-large trains and transcribes within a stated memory: a laptop's."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.children import run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# Weights, gradients and AdamW's two moments are 4 x 317 million x 4 bytes = 4.7 GiB; the rest is one utterance.
TRAINING_GIB = 6.5
TRANSCRIBING_GIB = 2.3  # weights are 1.2 GiB


def child(what: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.asr.full_size", what, str(folder)]
    done = run(command, cwd=ROOT, env=os.environ, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where the 1.3 GB lie between the two tests."""
    path = tmp_path_factory.mktemp("full-size")
    yield path
    (path / "model.safetensors").unlink(missing_ok=True)


def test_all_317_million_weights_train_and_transcribe(folder: Path) -> None:
    trained = child("train", folder)
    assert 310e6 < trained["parameters"] < 325e6
    assert all(math.isfinite(loss) for loss in trained["losses"])
    assert trained["losses"][1] < trained["losses"][0]
    assert [name for name in trained["unchanged"] if "masked_spec_embed" not in name] == []
    assert trained["peak_gib"] < TRAINING_GIB
    heard = child("transcribe", folder)
    assert len(heard["texts"]) == 2
    assert heard["peak_gib"] < TRANSCRIBING_GIB
