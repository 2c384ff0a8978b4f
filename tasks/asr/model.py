"""Audio to text, through the checkpoint (torch) or the shipped ONNX file; one small interface for both.

    OnnxRecogniser(Path("build/asr/shipped")).transcribe([audio])   # float32, 16 kHz, (samples,)

The ONNX file carries what it needs to be used alone in its metadata; the text comes out in NFC.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from tasks.artifacts import read_json, sha256_file
from tasks.asr.augment import Audio, normalised
from tasks.asr.batching import buckets, pad, uses_mask
from tasks.asr.checkpoint import Checkpoint, Vocabulary, load_checkpoint, thread_count
from tasks.asr.decode import greedy
from tasks.errors import ArtifactError, DataError, ModelError

__all__ = ["ONNX_NAME", "OnnxRecogniser", "Recogniser", "TorchRecogniser", "load_checkpoint", "recognise"]

ONNX_NAME = "model.int8.onnx"
_BATCH_SECONDS = 60.0
_SHORTEST_SAMPLES = 800  # below 50 ms the feature encoder has no frame to give


class Recogniser(Protocol):
    """Whatever turns audio into text."""

    def transcribe(self, audio: Sequence[Audio]) -> list[str]:
        """One text per utterance; each is float32 at 16 kHz, mono, shape (samples,)."""


class TorchRecogniser:
    """A Hugging Face CTC folder on torch, in batches of similar length."""

    def __init__(self, folder: Path | Checkpoint, batch_seconds: float = _BATCH_SECONDS) -> None:
        self.checkpoint = folder if isinstance(folder, Checkpoint) else load_checkpoint(folder)
        self.batch_seconds = batch_seconds

    def transcribe(self, audio: Sequence[Audio]) -> list[str]:
        """See `Recogniser`. Raises `DataError` for audio of another shape or type."""
        return recognise(self.checkpoint, [check_audio(clip) for clip in audio], self.batch_seconds)


class OnnxRecogniser:
    """The shipped ONNX file on ONNX Runtime, utterance by utterance: nothing is padded.

    Raises `ArtifactError` when the file is not the one that `malgil.json` beside it names, and
    `ModelError` when ONNX Runtime cannot read it.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        import onnxruntime

        path = folder / ONNX_NAME
        self.sha256 = sha256_file(path)
        expected = read_json(folder / "malgil.json").get("sha256")
        if expected != self.sha256:
            raise ArtifactError(
                f"{path} has sha256 {self.sha256}",
                f"malgil.json names {expected}",
                "make it again: `dvc repro -f export_asr`",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or thread_count()
        options.inter_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(
                f"{path} cannot be opened ({error})",
                "must be a whole ONNX file",
                "make it again: `dvc repro -f export_asr`",
            ) from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        ids: dict[str, int] = json.loads(metadata["vocabulary"])
        self.vocabulary = Vocabulary(tuple(sorted(ids, key=lambda s: ids[s])), int(metadata["blank_id"]))
        self.normalise = metadata["do_normalize"] == "true"

    def logits(self, audio: Audio) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (frames, vocabulary) of one utterance."""
        inputs = normalised(audio) if self.normalise else audio
        (logits,) = self.session.run(["logits"], {"input_values": inputs[None]})
        return np.asarray(logits[0], dtype=np.float32)

    def transcribe(self, audio: Sequence[Audio]) -> list[str]:
        """See `Recogniser`. Raises `DataError` for audio of another shape or type."""
        return [greedy(self.logits(check_audio(clip)), self.vocabulary) for clip in audio]


def recognise(checkpoint: Checkpoint, audio: Sequence[Audio], batch_seconds: float) -> list[str]:
    """Greedy transcripts of float32 utterances, in their order; the model is left in the mode it had."""
    model = checkpoint.model
    masked = uses_mask(model)
    texts = [""] * len(audio)
    with torch.inference_mode():
        for group in buckets([len(clip) for clip in audio], batch_seconds, equal_only=not masked):
            inputs, mask = pad([normalised(audio[i]) if checkpoint.normalise else audio[i] for i in group])
            shown = mask.to(model.device) if masked else None
            logits = model(inputs.to(model.device), attention_mask=shown).logits.float().cpu().numpy()
            frames = model._get_feat_extract_output_lengths(mask.sum(-1)).tolist()
            for row, index in enumerate(group):
                texts[index] = greedy(logits[row, : int(frames[row])], checkpoint.vocabulary)
    return texts


def check_audio(audio: Audio) -> Audio:
    """The audio itself, padded with zeros to the shortest length that gives a frame.

    Raises `DataError` when it is empty, not one-dimensional, not float32 or not finite.
    """
    if audio.ndim != 1 or audio.dtype != np.float32 or not len(audio) or not np.isfinite(audio).all():
        raise DataError(
            f"audio of shape {audio.shape} and type {audio.dtype}",
            "must be float32, mono, 16 kHz, shape (samples,), finite and not empty",
            "read it with tasks.data.audio, which mixes down and resamples",
        )
    return np.pad(audio, (0, max(0, _SHORTEST_SAMPLES - len(audio))))
