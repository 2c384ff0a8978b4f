"""Audio to text through a checkpoint, on torch; `onnx_model` does it through the ONNX file.

    TorchRecogniser(Path("build/asr/checkpoint")).transcribe([audio])   # float32, 16 kHz, (samples,)

Where the recogniser has a language model (a file beside the checkpoint's weights), a beam search decodes
with it; else greedily. Text is in NFC.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tasks.asr.checkpoints.checkpoint import Checkpoint, load_checkpoint, local_folder
from tasks.asr.decoding import language_model
from tasks.asr.decoding.decode import BeamSearch
from tasks.asr.decoding.word_search import make_search
from tasks.asr.engines.onnx_model import (
    FP32_NAME,
    ONNX_NAME,
    OnnxRecogniser,
    Recogniser,
    Transcript,
    check_audio,
    decode,
)
from tasks.asr.training.augment import Audio, normalised
from tasks.asr.training.batching import buckets, pad, uses_mask

__all__ = [
    "FP32_NAME",
    "ONNX_NAME",
    "OnnxRecogniser",
    "Recogniser",
    "TorchRecogniser",
    "Transcript",
    "check_audio",
    "decode",
    "load_checkpoint",
    "recognise",
]

_BATCH_SECONDS = 60.0


class TorchRecogniser:
    """A Hugging Face CTC folder (or, as a string, a Hub id) on torch, in batches of similar length."""

    def __init__(self, folder: str | Path, batch_seconds: float = _BATCH_SECONDS) -> None:
        self.checkpoint = load_checkpoint(folder)
        arpa = language_model.read(local_folder(folder))
        self.search = make_search(arpa, self.checkpoint.vocabulary) if arpa else None
        self.batch_seconds = batch_seconds

    def transcripts(self, audio: Sequence[Audio]) -> list[Transcript]:
        """See `Recogniser`. Raises `DataError` for audio of another shape or type."""
        clips = [check_audio(clip) for clip in audio]
        return recognise(self.checkpoint, clips, self.batch_seconds, self.search)

    def transcribe(self, audio: Sequence[Audio]) -> list[str]:
        """See `Recogniser`."""
        return [transcript.text for transcript in self.transcripts(audio)]


def recognise(
    checkpoint: Checkpoint,
    audio: Sequence[Audio],
    batch_seconds: float,
    search: BeamSearch | None = None,
) -> list[Transcript]:
    """Transcripts of float32 utterances, in their order; the model is left in the mode it had."""
    model = checkpoint.model
    masked = uses_mask(model)
    texts = [Transcript("", "")] * len(audio)
    with torch.inference_mode():
        for group in buckets([len(clip) for clip in audio], batch_seconds, equal_only=not masked):
            inputs, mask = pad([normalised(audio[i]) if checkpoint.normalise else audio[i] for i in group])
            shown = mask.to(model.device) if masked else None
            logits = model(inputs.to(model.device), attention_mask=shown).logits.float().cpu().numpy()
            frames = model._get_feat_extract_output_lengths(mask.sum(-1)).tolist()
            for row, index in enumerate(group):
                own = logits[row, : int(frames[row])]
                texts[index] = decode(own, checkpoint.vocabulary, search)
    return texts
