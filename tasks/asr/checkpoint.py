"""The recogniser as a folder in the Hugging Face Wav2Vec2 layout: vocabulary, shapes, loading and saving.

Any wav2vec2-style CTC folder or Hub id loads (`AutoModelForCTC`), not only the project's own. Weights are
read from safetensors alone, and code from a checkpoint is never run.
"""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC, Wav2Vec2Config, Wav2Vec2ForCTC
from transformers.utils.logging import disable_progress_bar

from tasks.artifacts import read_json, sha256_file, write_json
from tasks.asr.streaming.shape import level_input, shape_of
from tasks.data.espeak import SAMPLE_RATE_HZ
from tasks.errors import ArtifactError, DataError, ModelError

log = logging.getLogger("malgil.asr.checkpoint")
disable_progress_bar()  # type: ignore[no-untyped-call]  # a small model loads at once, and bars fill the logs of a stage
BLANK, SPACE, UNKNOWN = "[PAD]", "|", "[UNK]"
SPECIAL = frozenset({BLANK, UNKNOWN, "<s>", "</s>", "<pad>", "<unk>"})  # symbols that stand for no character
# Every modern Hangul jamo in canonical decomposition (NFD): 19 initials, 21 vowels, 27 finals.
JAMO = tuple(
    chr(code)
    for first, count in ((0x1100, 19), (0x1161, 21), (0x11A8, 27))
    for code in range(first, first + count)
)


@dataclass(frozen=True)
class Vocabulary:
    """Symbols in label order; index 0 is the CTC blank in the project's own models."""

    symbols: tuple[str, ...]
    blank_id: int = 0

    @classmethod
    def of_jamo(cls) -> Vocabulary:
        """The Korean head: blank, space, 67 jamo, unknown."""
        return cls((BLANK, SPACE, *JAMO, UNKNOWN))

    @classmethod
    def of_symbols(cls, symbols: tuple[str, ...]) -> Vocabulary:
        """Blank, space, the symbols in order, unknown."""
        return cls((BLANK, SPACE, *symbols, UNKNOWN))

    @property
    def ids(self) -> dict[str, int]:
        """Symbol to label id."""
        return {symbol: index for index, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> list[int]:
        """Label ids of normalised text: decomposed where the vocabulary holds jamo, spaces as the space
        symbol.

        Raises `DataError` naming every character that is not in the vocabulary.
        """
        ids = self.ids
        form: Literal["NFD", "NFC"] = "NFD" if "ᄀ" in ids else "NFC"
        symbols = [SPACE if c == " " else c for c in unicodedata.normalize(form, text)]
        missing = sorted({symbol for symbol in symbols if symbol not in ids})
        if missing:
            raise DataError(
                f"transcript {text!r} has {' '.join(repr(symbol) for symbol in missing)}",
                "its characters must be in the recogniser's vocabulary",
                "normalise the transcript (digits and Latin letters spelled out in Hangul) or remove the row",
            )
        return [ids[symbol] for symbol in symbols]

    def decode(self, labels: list[int]) -> str:
        """Text of collapsed label ids, composed to NFC, spaces single."""
        symbols = [self.symbols[label] for label in labels]
        text = "".join(" " if s == SPACE else s for s in symbols if s not in SPECIAL)
        return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass(frozen=True)
class Checkpoint:
    """A loaded recogniser: model in evaluation mode, its vocabulary, and whether inputs are normalised."""

    model: Any
    vocabulary: Vocabulary
    normalise: bool
    about: dict[str, Any]


def mini_config(vocabulary_size: int) -> Wav2Vec2Config:
    """The shape of malgil-xlsr-mini: 2.1 M parameters, one frame per 20 ms, layer norm in the feature
    encoder.
    """
    return Wav2Vec2Config(
        vocab_size=vocabulary_size,
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=768,
        conv_dim=(32, 64, 128, 192),
        conv_kernel=(16, 8, 4, 4),
        conv_stride=(10, 4, 4, 2),
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=16,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=False,
        pad_token_id=0,
        ctc_zero_infinity=True,
    )


def fresh_model(config: Wav2Vec2Config, seed: int) -> Any:
    """A model with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    return Wav2Vec2ForCTC(config)


def load_encoder(encoder: str, vocabulary: Vocabulary, seed: int, from_scratch: bool = False) -> Any:
    """The encoder of a folder or Hub id under a new CTC head, for fine-tuning.

    `from_scratch` takes only its shape. Raises `ModelError` (nothing usable there, or not safetensors) and
    `ArtifactError` (the weights are not those that PROVENANCE.json names).
    """
    check_provenance(Path(encoder))
    overrides = {
        "vocab_size": len(vocabulary.symbols),
        "pad_token_id": vocabulary.blank_id,
        "ctc_zero_infinity": True,
    }
    torch.manual_seed(seed)
    try:
        config = AutoConfig.from_pretrained(encoder, trust_remote_code=False, **overrides)
        if from_scratch:
            return AutoModelForCTC.from_config(config)  # type: ignore[no-untyped-call]
        model = AutoModelForCTC.from_pretrained(
            encoder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:
        raise ModelError(
            f"encoder {encoder!r} cannot be loaded ({_first_line(error)})",
            "must be a folder or Hub id of a wav2vec2-style model with safetensors weights",
            "correct train_asr.encoder in params.yaml; for a Hub id check the network and the name",
        ) from error
    # A head of the same size (another jamo or IPA model) would be kept: the new head always starts fresh.
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.lm_head.weight, std=config.initializer_range)
    torch.nn.init.zeros_(model.lm_head.bias)
    return model


def normalises(encoder: str) -> bool:
    """Whether the encoder expects inputs of zero mean and unit variance (its preprocessor_config.json;
    else yes).
    """
    path = Path(encoder) / "preprocessor_config.json"
    if path.is_file():
        return bool(read_json(path).get("do_normalize", True))
    if Path(encoder).is_dir():
        return True
    try:
        extractor = AutoFeatureExtractor.from_pretrained(encoder, trust_remote_code=False)  # type: ignore
    except Exception as error:  # noqa: BLE001  no preprocessor there, or no network: both mean "not said"
        log.info("%s says nothing about its inputs (%s): they are normalised", encoder, _first_line(error))
        return True
    return bool(getattr(extractor, "do_normalize", True))


def check_provenance(folder: Path) -> None:
    """Compares the weights with the hash in the folder's PROVENANCE.json, where there is one."""
    provenance = folder / "PROVENANCE.json"
    if not provenance.is_file():
        return
    expected = read_json(provenance).get("sha256")
    found = sha256_file(folder / "model.safetensors")
    if expected != found:
        raise ArtifactError(
            f"{folder / 'model.safetensors'} has sha256 {found}",
            f"PROVENANCE.json names {expected}",
            f"restore it (`git checkout -- {folder}`) or make it again (`python -m tasks.asr.pretrain`)",
        )


def save_checkpoint(
    folder: Path, model: Any, vocabulary: Vocabulary, about: dict[str, Any], normalise: bool = True
) -> None:
    """Writes weights (safetensors), config, vocabulary, preprocessor and `malgil.json` into an existing
    folder.
    """
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written as 0600, which another user's server could not read
    write_vocabulary(folder, vocabulary, normalise)
    write_json(folder / "malgil.json", about)


def write_vocabulary(folder: Path, vocabulary: Vocabulary, normalise: bool = True) -> None:
    """vocab.json, tokenizer_config.json and preprocessor_config.json as transformers' Wav2Vec2Processor
    reads them.
    """
    write_json(folder / "vocab.json", vocabulary.ids)
    tokenizer = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": BLANK,
        "unk_token": UNKNOWN,
        "bos_token": None,
        "eos_token": None,
        "word_delimiter_token": SPACE,
        "do_lower_case": False,
    }
    write_json(folder / "tokenizer_config.json", tokenizer)
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": SAMPLE_RATE_HZ,
        "padding_value": 0.0,
        "padding_side": "right",
        "do_normalize": normalise,
        "return_attention_mask": True,
    }
    write_json(folder / "preprocessor_config.json", extractor)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Loads a wav2vec2-style CTC folder for inference.

    Raises `ModelError` when a file is missing or broken, or the vocabulary does not fit the head.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json",
            "a recogniser is a Hugging Face folder",
            "run train_asr or correct the path",
        )
    check_provenance(folder)
    try:
        model = AutoModelForCTC.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        ).eval()
    except Exception as error:
        raise ModelError(
            f"{folder} cannot be loaded ({_first_line(error)})",
            "needs a whole config.json and model.safetensors",
            "make it again: `dvc repro -f train_asr`",
        ) from error
    if shape_of(model):
        level_input(model)
    vocabulary = read_vocabulary(folder, int(model.config.pad_token_id))
    if len(vocabulary.symbols) > model.config.vocab_size:
        raise ModelError(
            f"{folder}/vocab.json has {len(vocabulary.symbols)} symbols",
            f"the head has {model.config.vocab_size}",
            "restore the vocab.json that belongs to these weights",
        )
    normalise = normalises(str(folder))
    about = read_json(folder / "malgil.json") if (folder / "malgil.json").is_file() else {}
    return Checkpoint(model=model, vocabulary=vocabulary, normalise=normalise, about=about)


def read_vocabulary(folder: Path, blank_id: int = 0) -> Vocabulary:
    """The vocabulary of a folder's vocab.json (symbol to id). Raises `ModelError` when it is not one."""
    path = folder / "vocab.json"
    ids = read_json(path)
    if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
        raise ModelError(
            f"{path} is not a vocabulary", "maps each symbol to an id from 0 on", "restore the file"
        )
    return Vocabulary(tuple(sorted(ids, key=lambda symbol: int(ids[symbol]))), blank_id)


def thread_count() -> int:
    """Threads from MALGIL_THREADS or OMP_NUM_THREADS, one if unset: stages run side by side on few cores."""
    return max(1, int(os.environ.get("MALGIL_THREADS") or os.environ.get("OMP_NUM_THREADS") or 1))


def use_threads() -> None:
    """Sets torch to `thread_count()`; results are repeatable only for the same count."""
    torch.set_num_threads(thread_count())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def describe(model: Any) -> dict[str, Any]:
    """Parameters and shape of a model, for provenance and reports."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": json.loads(model.config.to_json_string(use_diff=False)),
    }
