"""The adapter folded into the base model.

    python -m tasks.llm.merge

The sum W + s·B·A is taken in float32 and stored in float16: its ten fraction bits keep more of the sum
than bfloat16's seven, and the GGUF that follows is then an exact copy. Tokenizer and chat template are
kept as they are.
"""

import logging
import shutil
from pathlib import Path

import torch

from tasks.artifacts import new_folder
from tasks.errors import ModelError
from tasks.inference.loading import load_model, load_tokenizer
from tasks.stage import run_stage
from tasks.weights.adapters import merge_adapter

log = logging.getLogger("malgil.merge")


def merge(*, base: Path, adapter: Path, merged: Path) -> None:
    """Writes the Hugging Face folder `merged`: `base` with the weights of `adapter` added.

    Raises:
        ModelError: one of them cannot be read, the adapter is not wholly one of this base model (tensors that
            are missing, unexpected or of another shape are named), or a merged weight does not fit float16.
    """
    model, tokenizer = load_model(base), load_tokenizer(base)
    model = merge_adapter(model, adapter)
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
