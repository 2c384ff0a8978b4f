"""Audio to text, through the checkpoint (torch) or the shipped ONNX file; one small interface for both.

    OnnxRecogniser(Path("build/asr/shipped")).transcribe([audio])   # float32, 16 kHz, (samples,)

Where the recogniser has a language model (a file beside the checkpoint's weights, metadata of the ONNX
file), a beam search decodes with it; else greedily. The ONNX file carries what it needs to be used alone.
Text is in NFC.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from tasks.artifacts import read_json, sha256_file
from tasks.asr.augment import Audio, normalised
from tasks.asr.batching import buckets, pad, uses_mask
from tasks.asr.checkpoint import SPACE, Checkpoint, Vocabulary, load_checkpoint, thread_count
from tasks.asr.decode import greedy
from tasks.asr.language_model import LanguageModel, beam_labels
from tasks.errors import ArtifactError, DataError, ModelError

__all__ = ["ONNX_NAME", "OnnxRecogniser", "Recogniser", "TorchRecogniser", "load_checkpoint", "recognise"]

ONNX_NAME = "model.int8.onnx"
_BATCH_SECONDS = 60.0
_SHORTEST_SAMPLES = 800  # below 50 ms the feature encoder has no frame to give


class Transcript(NamedTuple):
    """What an utterance says: the final `text`, and the `greedy` one that no language model has touched."""

    text: str
    greedy: str


class Recogniser(Protocol):
    """Whatever turns audio into text."""

    def transcripts(self, audio: Sequence[Audio]) -> list[Transcript]:
        """One transcript per utterance; each is float32 at 16 kHz, mono, shape (samples,)."""

    def transcribe(self, audio: Sequence[Audio]) -> list[str]:
        """The final text alone."""


class TorchRecogniser:
    """A Hugging Face CTC folder on torch, in batches of similar length."""

    def __init__(self, folder: Path, batch_seconds: float = _BATCH_SECONDS) -> None:
        self.checkpoint = load_checkpoint(folder)
        self.language_model = LanguageModel.load(folder)
        self.batch_seconds = batch_seconds

    def transcripts(self, audio: Sequence[Audio]) -> list[Transcript]:
        """See `Recogniser`. Raises `DataError` for audio of another shape or type."""
        clips = [check_audio(clip) for clip in audio]
        return recognise(self.checkpoint, clips, self.batch_seconds, self.language_model)

    def transcribe(self, audio: Sequence[Audio]) -> list[str]:
        """See `Recogniser`."""
        return [transcript.text for transcript in self.transcripts(audio)]


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
        packed = metadata.get("language_model", "")
        self.language_model = (
            LanguageModel.from_bytes(base64.b64decode(packed), str(path)) if packed else None
        )

    def logits(self, audio: Audio) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (frames, vocabulary) of one utterance."""
        inputs = normalised(audio) if self.normalise else audio
        (logits,) = self.session.run(["logits"], {"input_values": inputs[None]})
        return np.asarray(logits[0], dtype=np.float32)

    def transcripts(self, audio: Sequence[Audio]) -> list[Transcript]:
        """See `Recogniser`. Raises `DataError` for audio of another shape or type."""
        return [decode(self.logits(check_audio(c)), self.vocabulary, self.language_model) for c in audio]

    def transcribe(self, audio: Sequence[Audio]) -> list[str]:
        """See `Recogniser`."""
        return [transcript.text for transcript in self.transcripts(audio)]


def decode(
    logits: np.ndarray[Any, Any], vocabulary: Vocabulary, language_model: LanguageModel | None
) -> Transcript:
    """The transcript of one utterance from logits (frames, vocabulary); both texts are greedy without a
    model.
    """
    plain = greedy(logits, vocabulary)
    if language_model is None:
        return Transcript(plain, plain)
    space = vocabulary.ids.get(SPACE, vocabulary.blank_id)
    labels = beam_labels(logits, language_model, vocabulary.blank_id, space)
    return Transcript(vocabulary.decode(labels), plain)


def recognise(
    checkpoint: Checkpoint,
    audio: Sequence[Audio],
    batch_seconds: float,
    language_model: LanguageModel | None = None,
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
                texts[index] = decode(own, checkpoint.vocabulary, language_model)
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
