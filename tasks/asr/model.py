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
from tasks.asr import language_model
from tasks.asr.augment import Audio, normalised
from tasks.asr.batching import buckets, pad, uses_mask
from tasks.asr.checkpoint import Checkpoint, Vocabulary, load_checkpoint, thread_count
from tasks.asr.decode import BeamSearch, SearchOptions, greedy
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
        arpa = language_model.read(folder)
        self.search = BeamSearch(arpa, self.checkpoint.vocabulary) if arpa else None
        self.batch_seconds = batch_seconds

    def transcripts(self, audio: Sequence[Audio]) -> list[Transcript]:
        """See `Recogniser`. Raises `DataError` for audio of another shape or type."""
        clips = [check_audio(clip) for clip in audio]
        return recognise(self.checkpoint, clips, self.batch_seconds, self.search)

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
        arpa = language_model.unpack(base64.b64decode(packed), str(path)) if packed else ""
        options = SearchOptions(**json.loads(metadata.get("search", "{}")))
        self.search = BeamSearch(arpa, self.vocabulary, options) if arpa else None

    def logits(self, audio: Audio) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (frames, vocabulary) of one utterance."""
        inputs = normalised(audio) if self.normalise else audio
        (logits,) = self.session.run(["logits"], {"input_values": inputs[None]})
        return np.asarray(logits[0], dtype=np.float32)

    def transcripts(self, audio: Sequence[Audio]) -> list[Transcript]:
        """See `Recogniser`. Raises `DataError` for audio of another shape or type."""
        return [decode(self.logits(check_audio(c)), self.vocabulary, self.search) for c in audio]

    def transcribe(self, audio: Sequence[Audio]) -> list[str]:
        """See `Recogniser`."""
        return [transcript.text for transcript in self.transcripts(audio)]


def decode(logits: np.ndarray[Any, Any], vocabulary: Vocabulary, search: BeamSearch | None) -> Transcript:
    """The transcript of one utterance from logits (frames, vocabulary); both texts are greedy without a
    search.
    """
    plain = greedy(logits, vocabulary)
    return Transcript(search.text(logits) if search else plain, plain)


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
