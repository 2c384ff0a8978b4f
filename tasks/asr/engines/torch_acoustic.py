"""A checkpoint's logits on torch, for recordings of any length: see `acoustic`. No command."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from tasks.asr.checkpoints.digest import weights_sha256
from tasks.asr.engines.acoustic import POOL_S, Audio, Logits, Workers
from tasks.asr.engines.channels_last import for_inference, multiply_out
from tasks.asr.engines.packed import PackedModel, why_not_packed
from tasks.asr.engines.torch_model import TorchRecogniser
from tasks.asr.recordings.windows import measure_grid
from tasks.asr.training.batching import buckets, pad, rounded_up, uses_mask
from tasks.data.audio import SAMPLE_RATE_HZ

log = logging.getLogger("malgil.asr.torch_acoustic")
_PADDED_POOL_S = 160.0  # enough that a sorted batch pads little
_PACK_S = 10.0  # enough frames to fill the matrix products; more would only leave other workers without


class TorchAcoustic:
    """A Hugging Face CTC folder: recordings packed without padding, or where its type cannot be packed, in
    padded batches with masks; either of at most `batch_seconds`.
    """

    def __init__(self, folder: Path, batch_seconds: float, use_search: bool = True) -> None:
        # One core per batch; the workers are what runs side by side. Set before anything is computed:
        # sums depend on the threads that take part, and what is said must not.
        torch.set_num_threads(1)
        recogniser = TorchRecogniser(folder)
        self.model = recogniser.checkpoint.model.eval()
        self.vocabulary = recogniser.checkpoint.vocabulary
        self.normalise = recogniser.checkpoint.normalise
        self.search = recogniser.search if use_search else None
        self.sha256 = weights_sha256(folder)
        self.batch_seconds = batch_seconds
        self.workers = Workers(lambda: torch.set_num_threads(1))  # one batch, one core
        self.pool_seconds = POOL_S
        self.grid = measure_grid(lambda samples: int(self._frames(torch.tensor([samples]))[0]))
        obstacle = why_not_packed(self.model)
        if obstacle is None:
            multiply_out(self.model)
            self.packed: PackedModel | None = PackedModel(self.model, self.grid)
        else:
            log.info("recordings are padded to batches, which is slower than packed: %s", obstacle)
            self.packed, self.model = None, for_inference(self.model)
            self.pool_seconds = max(_PADDED_POOL_S, 4 * self.workers.count * batch_seconds)

    def _frames(self, samples: torch.Tensor) -> torch.Tensor:
        frames: torch.Tensor = self.model._get_feat_extract_output_lengths(samples)
        return frames

    def logits(self, audio: Sequence[Audio]) -> list[Logits]:
        """See `Acoustic`."""
        packed = self.packed
        if packed is None:
            return self._padded(audio)
        most = min(self.batch_seconds, _PACK_S)
        return self.workers.map(
            lambda group: packed.logits([audio[index] for index in group]), packs(audio, most)
        )

    def _padded(self, audio: Sequence[Audio]) -> list[Logits]:
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


def packs(audio: Sequence[Audio], most_s: float) -> list[list[int]]:
    """Indices of clips in groups of at most `most_s` seconds, of similar lengths; a longer one is alone.

    The groups with the least audio come first, as `Workers` wants them: one that is left over for the end
    leaves the other workers without.
    """
    groups: list[list[int]] = []
    held = 0
    for index in sorted(range(len(audio)), key=lambda index: len(audio[index])):
        held += len(audio[index])
        if groups and held <= most_s * SAMPLE_RATE_HZ:
            groups[-1].append(index)
        else:
            groups.append([index])
            held = len(audio[index])
    return sorted(groups, key=lambda group: sum(len(audio[index]) for index in group))
