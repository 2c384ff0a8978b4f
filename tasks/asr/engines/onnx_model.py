"""Audio to text through the exported ONNX file, without torch: starting takes as long as ONNX Runtime does.

    OnnxRecogniser(Path("build/asr/shipped")).transcribe([audio])   # float32, 16 kHz, (samples,)

The file carries what it needs to be used alone: vocabulary, blank, normalisation, language model. Also
here: what both back ends share, which is audio that is checked, and logits turned into text.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from tasks.artifacts import read_json, sha256_file
from tasks.asr.checkpoints.vocabulary import Names, Vocabulary
from tasks.asr.decoding import language_model
from tasks.asr.decoding.decode import BeamSearch, greedy
from tasks.asr.decoding.word_search import make_search
from tasks.asr.threads import thread_count
from tasks.asr.training.augment import Audio, normalised
from tasks.cpu import sums_in_32_bits
from tasks.errors import ArtifactError, DataError, ModelError
from tasks.weights.onnx_header import AGAIN, check_onnx

Precision = Literal["int8", "fp32"]
ONNX_NAME = "model.int8.onnx"  # what is measured, gated and served
FP32_NAME = "model.fp32.onnx"
FILES: dict[Precision, str] = {"int8": ONNX_NAME, "fp32": FP32_NAME}
_METADATA = ("blank_id", "do_normalize", "vocabulary")
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


class OnnxRecogniser:
    """An exported ONNX file on ONNX Runtime, utterance by utterance: nothing is padded.

    Args:
        folder: what `tasks.asr.export` wrote.
        threads: of ONNX Runtime; `thread_count()` if None.
        precision: the file that ships (int8), or the exact one beside it.

    Raises:
        ArtifactError: the file is not the one that `malgil.json` beside it names.
        ModelError: it is not there, not whole (weights, inputs, outputs and metadata that are missing or
            others are named), or ONNX Runtime cannot read it.
    """

    def __init__(self, folder: Path, threads: int | None = None, precision: Precision = "int8") -> None:
        import onnxruntime

        self.path = path = folder / FILES[precision]
        if not path.is_file():
            raise ModelError(
                f"{folder} has no {path.name}",
                f"the {precision} recogniser is that file",
                "export it: `dvc repro export_asr`; versions from before it was made have int8 alone",
            )
        self.sha256 = sha256_file(path)
        said = read_json(folder / "malgil.json")
        key = "sha256" if precision == "int8" else "sha256_fp32"
        expected = said.get(key) if isinstance(said, dict) else None
        if expected != self.sha256:
            raise ArtifactError(
                f"{path} has sha256 {self.sha256}",
                f"malgil.json names {expected}",
                "make it again: `dvc repro -f export_asr`",
            )
        about = check_onnx(path, ["input_values"], ["logits"], _METADATA)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or thread_count()
        options.inter_op_num_threads = 1
        # the fused operator adds up one number at a time: six times as slow as the two that it replaces
        options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
        if not sums_in_32_bits():
            # files with weights of 8 bits, as published before: without it their products saturate here
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(
                f"{path} cannot be opened ({' '.join(str(error).split())[:300]})",
                "must be a whole ONNX file",
                AGAIN,
            ) from error
        try:
            self._describe(about.metadata, path)
        except (ValueError, TypeError, KeyError, AttributeError, OSError, EOFError, zlib.error) as error:
            raise ModelError(
                f"{path} cannot be used: its metadata are torn ({type(error).__name__}: {str(error)[:200]})",
                "they hold the vocabulary, the blank, the normalisation and the language model",
                AGAIN,
            ) from error
        self._check_outputs(path)

    def _describe(self, metadata: Mapping[str, str], path: Path) -> None:
        """Takes what is needed to use the file from its metadata."""
        ids: dict[str, int] = json.loads(metadata["vocabulary"])
        names = Names(**json.loads(metadata.get("symbol_names", "{}")))
        symbols = tuple(sorted(ids, key=lambda symbol: ids[symbol]))
        blank_id = int(metadata["blank_id"])
        if [ids[symbol] for symbol in symbols] != list(range(len(symbols))) or not 0 <= blank_id < len(
            symbols
        ):
            raise ValueError(f"{len(symbols)} symbols are not numbered from 0, or {blank_id} is none of them")
        self.vocabulary = Vocabulary(symbols, blank_id, names)
        if metadata["do_normalize"] not in ("true", "false"):
            raise ValueError(f"do_normalize is {metadata['do_normalize']!r}")
        self.normalise = metadata["do_normalize"] == "true"
        packed = metadata.get("language_model", "")
        arpa = language_model.unpack(base64.b64decode(packed), str(path)) if packed else ""
        found = json.loads(metadata.get("search", "{}"))
        self.search = make_search(arpa, self.vocabulary, found) if arpa else None

    def _check_outputs(self, path: Path) -> None:
        """Refuses a graph that takes or gives something else than audio and logits of this vocabulary."""
        (given,), (taken,) = self.session.get_outputs(), self.session.get_inputs()
        width = given.shape[-1] if given.shape else None
        fits = not isinstance(width, int) or width >= len(self.vocabulary.symbols)
        if (taken.type, given.type) != ("tensor(float)", "tensor(float)") or not fits:
            raise ModelError(
                f"{path} takes {taken.type} and gives {given.type} of shape {given.shape}",
                f"it must take audio (float) and give logits of {len(self.vocabulary.symbols)} symbols",
                AGAIN,
            )

    def logits(self, audio: Audio) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (frames, vocabulary) of one utterance."""
        return self.run(normalised(audio) if self.normalise else audio)

    def run(self, inputs: Audio) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (frames, vocabulary) of one utterance that is normalised where the file asks for it.

        Raises:
            ModelError: the graph cannot be computed, or gives something else.
        """
        try:
            (logits,) = self.session.run(["logits"], {"input_values": inputs[None]})
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{self.path} cannot be computed ({said})", "must be the graph that export_asr wrote", AGAIN
            ) from error
        if logits.ndim != 3 or logits.shape[-1] < len(self.vocabulary.symbols):
            raise ModelError(
                f"{self.path} gives logits of shape {logits.shape}",
                f"they are (1, frames, {len(self.vocabulary.symbols)})",
                AGAIN,
            )
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
