"""The recogniser as a folder in the Hugging Face wav2vec2 layout: types, shapes, loading and saving.

Any wav2vec2-style CTC folder or Hub id loads (`MODEL_TYPES`), not only the project's own: wav2vec2, XLSR,
XLS-R, HuBERT, data2vec and their kin. What a checkpoint is gets looked at before its weights are. Weights
are whole or refused, pickled ones are converted first, and code from a checkpoint is never run.
docs/reference/checkpoints.md tells users the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2Config, Wav2Vec2ForCTC
from transformers.utils import logging as transformers_logging

from tasks.artifacts import read_json, sha256_file, write_json
from tasks.asr.checkpoints.layout import MODEL_TYPES, WEIGHTS, first_line, local_folder, normalises
from tasks.asr.checkpoints.vocabulary import (
    BLANK,
    JAMO,
    SPACE,
    SPECIAL,
    UNKNOWN,
    VOCABULARY,
    Vocabulary,
    read_vocabulary,
    write_vocabulary,
)
from tasks.asr.streaming.shape import level_input, shape_of
from tasks.asr.threads import thread_count, use_threads
from tasks.errors import ArtifactError, ModelError
from tasks.weights.stored import require_depth, require_floats, stored_in
from tasks.weights.whole import require_loaded

__all__ = [
    "BLANK",
    "JAMO",
    "MODEL_TYPES",
    "SPACE",
    "SPECIAL",
    "UNKNOWN",
    "Checkpoint",
    "Vocabulary",
    "check_provenance",
    "describe",
    "fresh_model",
    "is_known_extra",
    "keeps_head",
    "load_checkpoint",
    "load_encoder",
    "local_folder",
    "mini_config",
    "normalises",
    "own_vocabulary",
    "quiet",
    "read_vocabulary",
    "save_checkpoint",
    "thread_count",
    "use_threads",
    "write_vocabulary",
]

log = logging.getLogger("malgil.asr.checkpoint")
# a small model loads at once, and bars fill the logs of a stage
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
_HEAD = "lm_head."
# What a checkpoint may lack: its head; the vector that masks frames, which fine-tuned ones drop; adapters.
_OPTIONAL = (_HEAD, "masked_spec_embed", ".adapter")
# What a checkpoint may have beyond the encoder: quantiser and projections of its pre-training, other heads.
_OF_PRETRAINING = (
    "classifier",
    "ctc_proj",
    "dropout_features",
    "final_proj",
    "label_embeddings_concat",
    "label_embs_concat",
    "lm_head",
    "project_hid",
    "project_q",
    "projector",
    "quantizer",
    "speaker_proj",
)
_AGAIN = (
    "fetch config.json and the weights again, from one revision; what a stage wrote is made again by "
    "`dvc repro -f train_asr`"
)


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
    """The encoder of a folder or Hub id under a CTC head for the vocabulary, for fine-tuning.

    The trained head is kept where the vocabulary is the checkpoint's own; else a new one is drawn from
    `seed`. `from_scratch` takes only the shape. Raises `ModelError` (nothing usable there, another type,
    not safetensors, torn) and `ArtifactError` (the weights are not those that PROVENANCE.json names).
    """
    folder = local_folder(encoder, weights=not from_scratch)
    if not from_scratch:  # of a Hub id, the weights are then not even here
        check_provenance(folder)
    kept = not from_scratch and keeps_head(encoder, vocabulary)
    overrides = {
        "vocab_size": len(vocabulary.symbols),
        "pad_token_id": vocabulary.blank_id,
        "ctc_zero_infinity": True,
    }
    torch.manual_seed(seed)
    config = _config(encoder, folder, overrides)
    if from_scratch:
        return AutoModelForCTC.from_config(config)  # type: ignore[no-untyped-call]
    model, _ = _load(encoder, folder, config)
    if kept:
        log.info("%s: its trained head is kept, the vocabulary is its own", encoder)
    else:
        # A head of the same size (another jamo or IPA model) would be kept: a new one always starts fresh.
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.lm_head.weight, std=config.initializer_range)
        torch.nn.init.zeros_(model.lm_head.bias)
        log.info("%s: a new head of %d symbols", encoder, len(vocabulary.symbols))
    return model


def keeps_head(encoder: str, vocabulary: Vocabulary) -> bool:
    """Whether the checkpoint has a trained CTC head for exactly this vocabulary, blank included."""
    own = own_vocabulary(encoder)
    same = own is not None and (own.symbols, own.blank_id) == (vocabulary.symbols, vocabulary.blank_id)
    return same and _has_head(local_folder(encoder))


def own_vocabulary(encoder: str | Path) -> Vocabulary | None:
    """The vocabulary of a checkpoint; None when it is pre-trained only. Raises `ModelError` (broken)."""
    folder = local_folder(encoder, weights=False)
    if not (folder / VOCABULARY).is_file():
        return None
    config = _config(encoder, folder)
    if config.pad_token_id is None:
        raise ModelError(
            f"{folder}/config.json has no pad_token_id",
            "the CTC blank must be known",
            "restore the config.json that belongs to these weights",
        )
    return read_vocabulary(folder, int(config.pad_token_id), int(config.vocab_size))


def check_provenance(folder: Path) -> None:
    """Compares the weights with the hash in the folder's PROVENANCE.json, where there is one."""
    provenance = folder / "PROVENANCE.json"
    if not provenance.is_file():
        return
    expected = read_json(provenance).get("sha256")
    found = sha256_file(folder / WEIGHTS)
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
    (folder / WEIGHTS).chmod(0o644)  # written as 0600, which another user's server could not read
    write_vocabulary(folder, vocabulary, normalise)
    write_json(folder / "malgil.json", about)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Loads a wav2vec2-style CTC folder (or, as a string, a Hub id) for inference.

    Raises `ModelError` when a file is missing or broken, there is no trained head, or the vocabulary does
    not fit it.
    """
    place = local_folder(folder)
    check_provenance(place)
    if not _has_head(place):
        raise ModelError(
            f"{folder} has no CTC head: it is pre-trained only",
            "a recogniser has been fine-tuned on transcripts",
            "fine-tune it first: set train_asr.encoder to it and run `malgil run --line asr`",
        )
    config = _config(folder, place)
    vocabulary = own_vocabulary(folder)
    if vocabulary is None:
        raise ModelError(
            f"{folder} has no {VOCABULARY}", "it names the head's symbols", "restore the whole folder"
        )
    if len(vocabulary.symbols) > config.vocab_size:
        raise ModelError(
            f"{place}/{VOCABULARY} has {len(vocabulary.symbols)} symbols",
            f"the head has {config.vocab_size}",
            "restore the vocab.json that belongs to these weights",
        )
    model, resized = _load(folder, place, config)
    if resized:
        raise ModelError(
            f"{place}/{WEIGHTS} has another head than config.json says",
            f"config.json has vocab_size {config.vocab_size}",
            "restore the files that belong together",
        )
    if shape_of(model):
        level_input(model)
    about = read_json(place / "malgil.json") if (place / "malgil.json").is_file() else {}
    return Checkpoint(model.eval(), vocabulary, normalises(place), about)


def describe(model: Any) -> dict[str, Any]:
    """Parameters and shape of a model, for provenance and reports."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": json.loads(model.config.to_json_string(use_diff=False)),
    }


def _has_head(folder: Path) -> bool:
    return any(name.startswith(_HEAD) for name in stored_in(folder))


def _config(name: str | Path, folder: Path, overrides: dict[str, Any] | None = None) -> Any:
    try:
        return AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, **(overrides or {})
        )
    except Exception as error:
        raise _torn(name, first_line(error)) from error


def _load(name: str | Path, folder: Path, config: Any) -> tuple[Any, bool]:
    """The model in fp32, whole but for its head, and whether that is of another size than in the file."""
    tensors = stored_in(folder)
    require_depth(folder, tensors)
    try:
        with quiet():
            model, info = AutoModelForCTC.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise _torn(name, first_line(error)) from error
    require_loaded(info, where=name, next_step=_AGAIN, optional=may_lack, known=is_known_extra)
    require_floats(tensors, model, where=name)
    if unused := sorted({key.split(".")[0] for key in info["unexpected_keys"]}):
        log.info("%s: not used here: %s", name, ", ".join(unused))
    return model, any(key.startswith(_HEAD) for key, *_ in info["mismatched_keys"])


def may_lack(name: str) -> bool:
    """Whether a checkpoint may be without this tensor: its head, the vector that masks frames, adapters."""
    return any(part in name for part in _OPTIONAL)


def is_known_extra(name: str) -> bool:
    """Whether a tensor is of a pre-training, which a recogniser has no use for: quantiser, projections,
    the vector that masks frames. Heads of other tasks are known too, by their first name.
    """
    return name.split(".")[0] in _OF_PRETRAINING or "masked_spec_embed" in name


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own report of weights that are missing or not used: what matters is refused."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _torn(name: str | Path, why: str) -> ModelError:
    return ModelError(
        f"{name} cannot be loaded ({why})",
        "needs a whole config.json and the weights of a wav2vec2-style model",
        _AGAIN,
    )
