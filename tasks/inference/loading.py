"""Loading a decoder and its tokenizer from a folder or the Hub: safetensors only, no code from outside.

No training and no generation here.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tasks.errors import ModelError

# a bar per loaded tensor would drown the stages' own progress
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def load_tokenizer(folder: Path | str) -> Any:
    """The tokenizer of a model folder.

    Raises:
        ModelError: it cannot be read, or has no chat template or end-of-turn token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
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
    """The causal language model of a folder (safetensors only, no code from the folder).

    Raises:
        ModelError: the folder holds no readable model.
    """
    try:
        return AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, attn_implementation=attention, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise unreadable(folder, error) from error


def unreadable(folder: Path | str, error: Exception) -> ModelError:
    """The error for a model folder that cannot be loaded."""
    return ModelError(
        f"{folder} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:300]})",
        "a model folder needs config.json, tokenizer.json and whole safetensors",
        "make it again (`dvc repro -f` of its stage), or correct base_llm.model in params.yaml",
    )
