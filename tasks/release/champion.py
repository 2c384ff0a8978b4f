"""The answers of the version that serves, on today's test set.

A published version carries its answers. When today's test set is the one they were given to (same ids,
references and lengths), they are read back; otherwise its published files answer today's test set here,
once, and the answers are kept in store/champions.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.artifacts import read_json, write_json
from tasks.errors import ArtifactError, DataError
from tasks.release.answers import Answer
from tasks.release.evidence import Line, asr_answers, items_digest, llm_answers
from tasks.settings import Params

ABOUT = "malgil.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Questions:
    """Where today's test items are: the prepared data, and which of them the challenger answered."""

    prepared: Path
    items: tuple[Answer, ...]


Ask = Callable[[Path, Questions, Params], tuple[Answer, ...]]
"""Answers a test set with the files of a published version."""


def champion_answers(
    line: Line,
    folder: Path,
    artifact: str,
    tests: Questions,
    params: Params,
    kept: Path,
    ask: Ask | None = None,
) -> tuple[Answer, ...]:
    """The champion's answers to `tests`.

    Args:
        folder: the champion's published repository tree.
        artifact: digest of its shipped files.
        kept: folder for answers that had to be asked for.
        ask: how to answer anew; by default with the line's own recogniser or engine.

    Raises:
        ModelError: the champion's files do not load.
    """
    wanted = items_digest(tests.items)
    published = _published(line, folder)
    if published and items_digest(published) == wanted:
        return published
    cache = kept / f"{line}-{artifact[:16]}-{wanted[:16]}.json"
    if cache.is_file():
        return tuple(Answer(*row) for row in read_json(cache))
    log.info("the test set has changed since the %s version that serves was published: asking it again", line)
    answers = (ask or (ask_recogniser if line == "asr" else ask_engine))(folder, tests, params)
    write_json(cache, [list(answer) for answer in answers])
    return answers


def ask_recogniser(folder: Path, tests: Questions, params: Params) -> tuple[Answer, ...]:
    """Transcribes today's plain test utterances with a published ONNX file."""
    from tasks.asr.engines.onnx_model import OnnxRecogniser
    from tasks.asr.evaluate import items_of, run_system
    from tasks.asr.prepared import read_prepared
    from tasks.asr.quality.rates import SPLITS

    data = read_prepared(tests.prepared / "asr")
    everything = [item for split in SPLITS for item in items_of(data, split, params.evaluate_asr)]
    plain = [item for item in everything if item.condition == "plain"]
    table = run_system("champion", OnnxRecogniser(folder), plain, data.normaliser)
    columns = (table.split, table.utterance_id, table.speaker, table.reference, table.edits, table.characters)
    return tuple(
        Answer(str(s), str(i), str(b), str(r), float(e), float(n))
        for s, i, b, r, e, n in zip(*columns, strict=True)
    )


def ask_engine(folder: Path, tests: Questions, params: Params) -> tuple[Answer, ...]:
    """Answers today's test examples with a published GGUF, its own template, system prompt and tools."""
    from tasks.inference.llama_cpp_engine import LlamaCppEngine
    from tasks.llm.chat import load_tools
    from tasks.llm.measure import answer
    from tasks.llm.rows import read_rows

    about, tools = read_json(folder / ABOUT), load_tools(folder / "tools.json")
    engine = LlamaCppEngine(folder / about["serves"])
    wanted = {item.id for item in tests.items}
    everything = read_rows(tests.prepared / "llm/test.jsonl", load_tools(tests.prepared / "llm/tools.json"))
    rows = [row for row in everything if row["id"] in wanted]
    prompts = [
        engine.render(
            [{"role": "system", "content": about["system"]}, {"role": "user", "content": row["written"]}]
        )
        for row in rows
    ]
    judged, _ = answer("champion", engine, prompts, rows, tools, params.evaluate_llm.max_new_tokens)
    return tuple(
        Answer("test", one.id, one.written, one.reference, 0.0 if one.exact else 1.0, 1.0) for one in judged
    )


def _published(line: Line, folder: Path) -> tuple[Answer, ...]:
    """The answers in a published tree; none if they cannot be read (then they are asked for anew)."""
    try:
        if line == "asr":
            return asr_answers(folder / "evaluation/utterances.parquet")
        return llm_answers(folder / "evaluation/samples.parquet", read_json(folder / ABOUT)["quantisation"])
    except (ArtifactError, DataError) as error:
        log.warning("the published answers cannot be used: %s", error)
        return ()
