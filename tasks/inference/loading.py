"""Loading a decoder and its tokenizer from a folder: whole, no code from outside.

No training and no generation here.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tasks.errors import ModelError
from tasks.weights.pickled import with_safetensors
from tasks.weights.stored import require_depth, require_floats, stored_in
from tasks.weights.whole import require_loaded

# a bar per loaded tensor would drown the stages' own progress
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]

_TOGETHER = (
    "fetch config.json and the weights again from one revision; what a stage wrote is made again by "
    "`dvc repro -f` of the stage"
)


def load_tokenizer(folder: Path | str) -> Any:
    """The tokenizer of a model folder.

    Raises:
        ModelError: it cannot be read, or has no chat template or end-of-turn token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:
        raise unreadable(folder, error) from error
    if tokenizer.chat_template is None or tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer of {folder}",
            "needs a chat template and an eos_token",
            "choose an instruction-tuned base model",
        )
    return tokenizer


def load_model(
    folder: Path | str, *, dtype: torch.dtype | str = torch.float32, attention: str = "sdpa"
) -> Any:
    """The causal language model of a folder, whole (no code from the folder; pickled weights are converted).

    Raises:
        ModelError: the folder holds no readable model, or weights that are not the model's: some are missing,
            unexpected, of another shape or type, or tied in config.json and different in the file.
    """
    if not (Path(folder) / "config.json").is_file():
        raise unreadable(folder, FileNotFoundError("it has no config.json"))
    place = with_safetensors(Path(folder))
    tensors = stored_in(place)
    require_depth(place, tensors)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(place),
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are named below
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise unreadable(folder, error) from error
    model, report = loaded
    require_loaded(report, where=folder, next_step=_TOGETHER)
    require_floats(tensors, model, where=folder)
    _require_tied(model, folder)
    return model


def _require_tied(model: Any, folder: Path | str) -> None:
    """Refuses two output layers: config.json says that it is the embedding, and the file has another."""
    if not getattr(model.config, "tie_word_embeddings", False):
        return
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or output.weight is embedding.weight:
        return
    names = {id(weight): name for name, weight in model.named_parameters(remove_duplicate=False)}
    raise ModelError(
        f"{folder}: {names[id(output.weight)]} and {names[id(embedding.weight)]} differ in the file, "
        "but config.json ties them",
        "a tied output layer is the embedding itself",
        "set tie_word_embeddings to false in config.json if the weights are right, "
        "else fetch config.json and weights again from one revision",
    )


def unreadable(folder: Path | str, error: Exception) -> ModelError:
    """The error for a model folder that cannot be loaded."""
    return ModelError(
        f"{folder} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:300]})",
        "a model folder needs config.json, tokenizer.json and whole safetensors",
        "make it again (`dvc repro -f` of its stage), or correct base_llm.model in params.yaml",
    )
