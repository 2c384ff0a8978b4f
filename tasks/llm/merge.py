"""The adapter folded into the base model.

    python -m tasks.llm.merge

The sum W + s·B·A is taken in float32 and stored in float16: its ten fraction bits keep more of the sum
than bfloat16's seven, and the GGUF that follows is then an exact copy. Tokenizer and chat template are
kept as they are.
"""

import logging
import shutil
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError

from tasks.artifacts import new_folder
from tasks.errors import ModelError
from tasks.inference.loading import load_model, load_tokenizer, unreadable
from tasks.stage import run_stage

log = logging.getLogger("malgil.merge")


def merge(*, base: Path, adapter: Path, merged: Path) -> None:
    """Writes the Hugging Face folder `merged`: `base` with the weights of `adapter` added.

    Raises:
        ModelError: one of them cannot be read, or a merged weight does not fit float16.
    """
    model, tokenizer = load_model(base), load_tokenizer(base)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT 0.21 reads a name that transformers renamed
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise unreadable(adapter, error) from error
    model = model.to(torch.float16)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ModelError(
                f"merged weight {name!r} holds values beyond float16",
                "every weight must be finite and below 65,504",
                "train with a lower learning rate",
            )
    with new_folder(merged) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        licence = base / "malgil.json"
        if licence.is_file():
            shutil.copyfile(licence, folder / "malgil.json")
    log.info("merged %s into %s", adapter, merged)


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.llm.merge",
            None,
            merge,
            inputs={"base": Path("build/llm/base"), "adapter": Path("build/llm/adapter")},
            outputs={"merged": Path("build/llm/merged")},
        )
    )
