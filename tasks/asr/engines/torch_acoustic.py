"""A checkpoint's logits on torch, for recordings of any length: see `acoustic`. No command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tasks.artifacts import sha256_file
from tasks.asr.engines.acoustic import POOL_S, Audio, Logits, Workers
from tasks.asr.engines.channels_last import for_inference
from tasks.asr.engines.torch_model import TorchRecogniser
from tasks.asr.recordings.windows import measure_grid
from tasks.asr.training.batching import buckets, pad, rounded_up, uses_mask


class TorchAcoustic:
    """A Hugging Face CTC folder, in padded batches of `batch_seconds` with masks."""

    def __init__(self, folder: Path, batch_seconds: float, use_search: bool = True) -> None:
        # One core per batch; the workers are what runs side by side. Set before anything is computed:
        # sums depend on the threads that take part, and what is said must not.
        torch.set_num_threads(1)
        recogniser = TorchRecogniser(folder)
        self.model = for_inference(recogniser.checkpoint.model)
        self.vocabulary = recogniser.checkpoint.vocabulary
        self.normalise = recogniser.checkpoint.normalise
        self.search = recogniser.search if use_search else None
        self.sha256 = sha256_file(folder / "model.safetensors")
        self.batch_seconds = batch_seconds
        self.workers = Workers(lambda: torch.set_num_threads(1))  # one batch, one core
        self.pool_seconds = max(POOL_S, 4 * self.workers.count * batch_seconds)
        self.grid = measure_grid(lambda samples: int(self._frames(torch.tensor([samples]))[0]))

    def _frames(self, samples: torch.Tensor) -> torch.Tensor:
        frames: torch.Tensor = self.model._get_feat_extract_output_lengths(samples)
        return frames

    def logits(self, audio: Sequence[Audio]) -> list[Logits]:
        """See `Acoustic`."""
        masked = uses_mask(self.model)

        def compute(group: list[int]) -> list[Logits]:
            clips = [audio[index] for index in group]
            longest = max(len(clip) for clip in clips)
            # alone, or all of one length: nothing is padded, and without a mask attention is faster
            shown = masked and any(len(clip) < longest for clip in clips)
            inputs, mask = pad(clips, rounded_up(longest) if shown else longest)
            with torch.inference_mode():
                rows = self.model(inputs, attention_mask=mask if shown else None).logits.float().numpy()
            frames = self._frames(mask.sum(-1)).tolist()
            return [row[: int(count)] for row, count in zip(rows, frames, strict=True)]

        lengths = [len(clip) for clip in audio]
        return self.workers.map(compute, buckets(lengths, self.batch_seconds, equal_only=not masked))
