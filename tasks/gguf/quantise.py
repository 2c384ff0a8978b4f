"""GGUF f16 to the quantisation types that ship, by llama.cpp through cyllama.

    python -m tasks.gguf.quantise

Always from the 16-bit file, never from an already quantised one.
"""

import logging
from pathlib import Path

from tasks.artifacts import new_folder
from tasks.errors import ModelError
from tasks.gguf.convert import FILE_NAME
from tasks.progress import track
from tasks.settings import QuantiseLlm
from tasks.stage import run_stage
from tasks.weights.gguf_header import check_gguf

FILE_TYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}  # llama.cpp, enum llama_ftype
log = logging.getLogger("malgil.quantise")


def file_name(quantisation: str) -> str:
    """The name of the file of one quantisation type."""
    return FILE_NAME.replace("f16", quantisation)


def quantise(params: QuantiseLlm, *, gguf_f16: Path, gguf: Path) -> dict[str, int]:
    """Writes one GGUF per type of `params.types` into the folder `gguf`; returns their sizes in bytes.

    Raises:
        ModelError: the f16 file is not a whole GGUF.
        CapacityError: no space; an earlier folder is as it was.
    """
    source = gguf_f16 / FILE_NAME
    sizes: dict[str, int] = {}
    with new_folder(gguf) as folder:
        for quantisation in track(params.types, "quantise", unit="files"):
            target = folder / file_name(quantisation)
            quantise_file(source, target, quantisation)
            sizes[quantisation] = target.stat().st_size
            log.info("%s: %.1f MB", target.name, sizes[quantisation] / 1e6)
    return sizes


def quantise_file(source: Path, target: Path, quantisation: str) -> None:
    """Quantises one file.

    Raises:
        ModelError: `source` is no whole GGUF, or llama.cpp refused it.
    """
    from cyllama.llama import llama_cpp

    check_gguf(source)  # llama.cpp ends the process on some files that are none
    llama_cpp.disable_logging()
    settings = llama_cpp.LlamaModelQuantizeParams()
    settings.ftype = FILE_TYPES[quantisation]
    settings.nthread = 1
    try:
        code = llama_cpp.model_quantize(str(source), str(target), settings)
    except (RuntimeError, ValueError, OSError) as error:
        raise _refused(source, str(error)) from error
    if code:
        raise _refused(source, f"code {code}")


def _refused(source: Path, reason: str) -> ModelError:
    return ModelError(
        f"llama.cpp could not quantise {source} ({reason})",
        "it must be a whole GGUF in 16 or 32 bits",
        "make it again: `dvc repro -f convert_llm`",
    )


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.gguf.quantise",
            "quantise_llm",
            quantise,
            inputs={"gguf_f16": Path("build/llm/gguf_f16")},
            outputs={"gguf": Path("build/llm/gguf")},
        )
    )
