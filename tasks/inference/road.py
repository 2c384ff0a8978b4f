"""The whole road on the files that ship: spoken command → ONNX recogniser → digits → GGUF → tool call.

    python -m tasks.inference.road

A command counts only if the tool call is valid and equal to its reference; what the recogniser gets
wrong without consequence does no harm. Most commands are heard as they were said, and `evaluate_llm` has
asked the same GGUF the same text: its answer is taken where prompt, file, tools and limit are the same.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.artifacts import new_folder, read_json, sha256_file, write_json, write_parquet
from tasks.asr.engines.onnx_model import OnnxRecogniser
from tasks.asr.prepared import PreparedSpeech, read_prepared
from tasks.data.text import inverse_normalise
from tasks.errors import ArtifactError, DataError
from tasks.inference.engine import Advance
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.llm.chat import Tools, canonical, exact_match, load_tools, messages
from tasks.llm.constrain import possible_answers
from tasks.llm.rows import answer_settings
from tasks.progress import Progress, track
from tasks.settings import EvaluateRoad
from tasks.stage import run_stage

SPLITS = {"test_sentences": "unseen_sentences", "test_voices": "unseen_voices"}
log = logging.getLogger("malgil.road")


@dataclass(frozen=True)
class Answer:
    """What became of one transcript: its written form, the model's answer as it came, and whether that was
    known before."""

    written: str
    hypothesis: str
    known: bool = False


def answer(
    engine: LlamaCppEngine,
    transcripts: Sequence[str],
    tools: Tools,
    max_tokens: int,
    *,
    known: Mapping[str, str] | None = None,
    advance: Advance | None = None,
) -> list[Answer]:
    """Tool calls, as text, for spoken transcripts. `tasks.llm.chat.parse_tool_call` validates one.

    Args:
        known: answers that this engine has given under the same `tools` and `max_tokens`, by prompt.

    Raises:
        ModelError: a transcript is longer than the engine's context.
    """
    written = [inverse_normalise(transcript) for transcript in transcripts]
    prompts = [engine.render(messages(text)) for text in written]
    known = known or {}
    new = {prompt: text for prompt, text in zip(prompts, written, strict=True) if prompt not in known}
    allowed = [possible_answers(text, tools) for text in new.values()]
    answers = engine.generate(list(new), max_tokens, allowed=allowed, advance=advance)
    said = {**known, **dict(zip(new, answers, strict=True))}
    if advance and len(new) < len(prompts):
        advance(len(prompts) - len(new))
    return [
        Answer(text, said[prompt], known=prompt in known)
        for prompt, text in zip(prompts, written, strict=True)
    ]


def known_answers(
    evaluation: Path, path: Path, prepared: Path, quantisation: str, max_tokens: int
) -> dict[str, str]:
    """What `evaluate_llm` heard from this very file, by prompt; nothing unless everything else is the same.

    Args:
        evaluation: folder of its metrics.json and samples.parquet.
        path: the GGUF that is asked; its SHA-256 must be the one measured.
        prepared: folder of the tools.json that constrains answers.
        quantisation: the file's type, its name in the evaluation.
        max_tokens: longest answer.

    Raises:
        ArtifactError: the evaluation cannot be read.
    """
    metrics = read_json(evaluation / "metrics.json")
    settings = answer_settings(prepared, max_tokens)
    same = {key: metrics.get(key) for key in settings} == settings
    if not same or metrics.get("sha256", {}).get(quantisation) != sha256_file(path):
        return {}
    samples = pd.read_parquet(evaluation / "samples.parquet")
    rows = samples[samples["system"] == quantisation]
    return dict(zip(rows["prompt"], rows["hypothesis"], strict=True))


def evaluate(
    params: EvaluateRoad,
    *,
    shipped: Path,
    gguf: Path,
    evaluation: Path,
    speech: Path,
    prepared: Path,
    out_dir: Path,
) -> dict[str, Any]:
    """Drives utterances of both test splits down the road; writes metrics.json and samples.parquet.

    Args:
        shipped: folder of the ONNX recogniser. gguf: folder of the GGUF files.
        evaluation: folder that `evaluate_llm` wrote.
        speech: prepared audio. prepared: folder with tools.json.

    Raises:
        DataError: a split is empty or no row of it has a tool call. ModelError, ArtifactError: a shipped file
            is missing or damaged.
    """
    tools = load_tools(prepared / "tools.json")
    path = served_file(gguf, params.quantisation)
    recogniser, engine = OnnxRecogniser(shipped), LlamaCppEngine(path)
    audio = read_prepared(speech)
    known = known_answers(evaluation, path, prepared, params.quantisation, params.max_new_tokens)
    samples: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}
    for split, name in SPLITS.items():
        rows = _drive(params, split, audio, recogniser, engine, tools, known)
        metrics[f"exact_match_{name}"] = sum(row["exact"] for row in rows) / len(rows)
        metrics[f"n_{name}"] = len(rows)
        log.info("%s: %.3f of %d commands right", split, metrics[f"exact_match_{name}"], len(rows))
        samples += rows
    metrics |= {"asr": recogniser.sha256, "llm": sha256_file(path), "quantisation": params.quantisation}
    with new_folder(out_dir) as folder:
        write_json(folder / "metrics.json", metrics)
        write_parquet(folder / "samples.parquet", pd.DataFrame(samples))
    return metrics


def served_file(folder: Path, quantisation: str) -> Path:
    """The GGUF of one quantisation type.

    Raises:
        ArtifactError: there is none, or more than one.
    """
    found = sorted(folder.glob(f"*-{quantisation}.gguf"))
    if len(found) != 1:
        raise ArtifactError(
            f"{folder} holds {len(found)} files *-{quantisation}.gguf",
            "one is needed",
            "list the type in quantise_llm.types, then `dvc repro quantise_llm`",
        )
    return found[0]


def _drive(
    params: EvaluateRoad,
    split: str,
    audio: PreparedSpeech,
    recogniser: OnnxRecogniser,
    engine: LlamaCppEngine,
    tools: Tools,
    known: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The commands of one split, evenly spaced so that every voice has its share."""
    rows, store = audio.split(split)
    commands = np.flatnonzero((rows["tool_call"].fillna("") != "").to_numpy())
    if len(commands) < len(rows):
        log.info(
            "%s: %d of %d utterances have a tool call; the others are no commands",
            split,
            len(commands),
            len(rows),
        )
    if not len(commands):
        raise DataError(
            f"no utterance of {split} has a tool_call",
            "the road leads from a spoken command to its tool call",
            "fill the column tool_call of the manifest, or leave this stage out: `malgil run` does",
        )
    chosen = np.linspace(0, len(commands) - 1, min(params.utterances, len(commands))).round().astype(int)
    places = commands[chosen].tolist()
    heard = [
        recogniser.transcribe([store.clip(place)])[0]
        for place in track(places, f"listen {split}", unit="utterances")
    ]
    with Progress(f"understand {split}", len(places), "commands") as progress:
        answers = answer(engine, heard, tools, params.max_new_tokens, known=known, advance=progress.advance)
    reused = sum(one.known for one in answers)
    log.info("%s: %d of %d answers are those of evaluate_llm to the same prompt", split, reused, len(answers))
    return [
        _sample(rows.iloc[place], split, text, said, tools)
        for place, text, said in zip(places, heard, answers, strict=True)
    ]


def _sample(row: Any, split: str, heard: str, said: Answer, tools: Tools) -> dict[str, Any]:
    reference: dict[str, Any] = json.loads(row["tool_call"] or "{}")
    mistake = tools.mistake(reference)
    if mistake is not None:
        raise DataError(
            f"utterance {row['utterance_id']} of {split}: tool call {row['tool_call']!r} ({mistake})",
            "every test utterance needs a tool call that its schema allows",
            "correct the manifest or tools.json",
        )
    return {
        "split": split,
        "utterance_id": row["utterance_id"],
        "speaker": row["speaker"],
        "transcript_reference": row["text"],
        "transcript_hypothesis": heard,
        "written": said.written,
        "hypothesis": said.hypothesis,
        "reference": canonical(reference),
        "exact": exact_match(said.hypothesis, reference, tools),
    }


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.inference.road",
            "evaluate_road",
            evaluate,
            inputs={
                "shipped": Path("build/asr/shipped"),
                "gguf": Path("build/llm/gguf"),
                "evaluation": Path("build/llm/evaluation"),
                "speech": Path("build/prepared/asr"),
                "prepared": Path("build/prepared/llm"),
            },
            outputs={"out_dir": Path("build/road")},
        )
    )
