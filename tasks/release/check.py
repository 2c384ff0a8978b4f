"""Does a published repository load? Tried on the files as a user would get them.

The last question before a version gets its name: hashes say that the bytes arrived, this says that they
are a model.
"""

from pathlib import Path

from tasks.artifacts import read_json
from tasks.errors import MalgilError, ModelError
from tasks.release.evidence import Line
from tasks.release.publish import Check

SAMPLE_RATE_HZ = 16_000


def loads(line: Line) -> Check:
    """The check of a line."""
    return recogniser_loads if line == "asr" else engine_loads


def recogniser_loads(folder: Path) -> None:
    """Loads the ONNX file and its vocabulary and transcribes half a second of silence.

    Raises:
        ModelError: it does not load or run.
    """
    import numpy as np

    from tasks.asr.engines.onnx_model import OnnxRecogniser

    try:
        OnnxRecogniser(folder).transcribe([np.zeros(SAMPLE_RATE_HZ // 2, dtype=np.float32)])
    except MalgilError:
        raise
    except Exception as error:
        raise _broken(folder, error) from error


def engine_loads(folder: Path) -> None:
    """Loads every GGUF in llama.cpp and has it answer with one token.

    Raises:
        ModelError: one does not load or run.
    """
    from tasks.inference.llama_cpp_engine import LlamaCppEngine

    read_json(folder / "tools.json")
    for path in sorted(folder.glob("*.gguf")):
        try:
            LlamaCppEngine(path, slots=1).generate(["안녕"], 1)
        except MalgilError:
            raise
        except Exception as error:
            raise _broken(path, error) from error


def _broken(where: Path, error: Exception) -> ModelError:
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return ModelError(
        f"{where} does not load ({said})",
        "what is published must run as it is downloaded",
        "make it again: `dvc repro -f export_asr quantise_llm`; nothing was published",
    )
