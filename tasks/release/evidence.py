"""What a run left behind, read as evidence for the gate.

Reads the files of build/ or of a published version (`evaluation/` has the same tables) and checks that
what was measured is what ships, byte for byte. No decisions here (`tasks.release.decide`).
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tasks.artifacts import digest_json, files_in, read_json, sha256_file
from tasks.data.manifest import OUT_OF_DOMAIN
from tasks.errors import ArtifactError, DataError, explain_os_error
from tasks.release.answers import SENTENCES, Answer, AsrEvidence, Change, LlmEvidence, Road

Line = Literal["asr", "llm"]

ASR_SYSTEM = "onnx_int8"
ONNX = "model.int8.onnx"

SHOWN_CHECKS = 5  # of those that failed

log = logging.getLogger(__name__)


def shipped_files(line: Line, build_dir: Path) -> dict[str, Path]:
    """The files a user downloads to run the model: path in the repository to source file.

    Raises:
        ArtifactError: a folder is missing or empty.
    """
    if line == "asr":
        files = {path.name: path for path in files_in(build_dir / "asr/shipped")}
        needed = ONNX in files
    else:
        files = {path.name: path for path in files_in(build_dir / "llm/gguf") if path.suffix == ".gguf"}
        needed = bool(files)
        adapter = build_dir / "llm/adapter"
        files |= {f"adapter/{p.relative_to(adapter).as_posix()}": p for p in files_in(adapter)}
    if not needed:
        raise ArtifactError(
            f"{build_dir} has no shipped files of the line {line}",
            f"a release needs {ONNX if line == 'asr' else 'a GGUF'}",
            "run the line first: `malgil run`",
        )
    return files


def digest_files(sums: Mapping[str, str]) -> str:
    """Hex SHA-256 over `sha256sum` lines, sorted by path."""
    return hashlib.sha256(sums_text(sums).encode()).hexdigest()


def sums_text(sums: Mapping[str, str]) -> str:
    """The text of a SHA256SUMS file, as `sha256sum -c` reads it."""
    return "".join(f"{sums[path]}  {path}\n" for path in sorted(sums))


def asr_evidence(build_dir: Path, sums: Mapping[str, str]) -> AsrEvidence:
    """The evidence on a fresh recogniser.

    Args:
        sums: SHA-256 of the shipped files by path in the repository.

    Raises:
        ArtifactError: a file or a column is missing, or other bytes than those shipped were measured.
        DataError: no utterance was answered under one of the conditions.
    """
    path = build_dir / "asr/evaluation/utterances.parquet"
    table = _recognised(path, sums[ONNX])
    plain = table[table.condition == "plain"]
    known = plain[plain.split == SENTENCES]
    return AsrEvidence(
        artifact=digest_files(sums),
        normaliser=str(read_json(build_dir / "asr/evaluation/metrics.json").get("normaliser", "")),
        answers=_answers(plain[plain.split != OUT_OF_DOMAIN]),
        silence=_changes(known, table, "silence", path),
        joined=_changes(known, table, "joined", path),
        outside=_answers(plain[plain.split == OUT_OF_DOMAIN]),
        road=road(build_dir, "asr", {sums[ONNX]}),
    )


def llm_evidence(build_dir: Path, sums: Mapping[str, str], quantisation: str) -> LlmEvidence:
    """The evidence on a fresh language model, measured through the GGUF that serves.

    Raises:
        ArtifactError: a file or a number is missing, or other bytes than those shipped were measured.
    """
    metrics_path = build_dir / "llm/evaluation/metrics.json"
    metrics = read_json(metrics_path)
    served = served_gguf(sums, quantisation)
    for name in sums:
        if name.endswith(".gguf"):
            measured = metrics.get("sha256", {}).get(name.removesuffix(".gguf").rpartition("-")[2])
            _same_bytes(str(measured), sums[name], name, metrics_path)
    verification = read_json(build_dir / "llm/verification.json")
    failed = [
        f"{c.get('name')} ({Path(c.get('file') or '').name}): {str(c.get('detail'))[:200]}"
        for c in verification.get("checks", [])
        if not c.get("ok")
    ]
    if len(failed) > SHOWN_CHECKS:
        failed = [*failed[:SHOWN_CHECKS], f"and {len(failed) - SHOWN_CHECKS} more"]
    if not verification.get("ok") and not failed:
        failed = ["verification.json does not say ok"]
    samples = build_dir / "llm/evaluation/samples.parquet"
    answers = llm_answers(samples, quantisation)
    return LlmEvidence(
        artifact=digest_files(sums),
        quantisation=quantisation,
        failed_checks=tuple(failed),
        answers=answers,
        quantised=_quantised(llm_answers(samples, "merged"), answers, samples),
        road=road(build_dir, "llm", {sums[served]}),
    )


def served_gguf(sums: Mapping[str, str], quantisation: str) -> str:
    """The name of the GGUF of a quantisation type."""
    names = [name for name in sums if name.endswith(f"-{quantisation}.gguf")]
    if len(names) != 1:
        raise ArtifactError(
            f"{len(names)} GGUF files of type {quantisation}",
            "evaluate_road.quantisation names the one that serves",
            "add the type to quantise_llm.types in params.yaml and run again",
        )
    return names[0]


def asr_answers(table: Path, shipped_sha256: str | None = None) -> tuple[Answer, ...]:
    """The shipped recogniser's plain test answers, block = speaker; the out-of-domain slice is not compared.

    Args:
        table: evaluation/utterances.parquet.
        shipped_sha256: the ONNX file the table must have been made with; None accepts any.

    Raises:
        ArtifactError: the table is missing, lacks columns, or was made with other bytes.
        DataError: it has no rows of the shipped file.
    """
    frame = _recognised(table, shipped_sha256)
    return _answers(frame[(frame.condition == "plain") & (frame.split != OUT_OF_DOMAIN)])


def _recognised(table: Path, shipped_sha256: str | None) -> pd.DataFrame:
    """The rows of the shipped recogniser under every condition; the plain ones are not missing."""
    frame = read_table(
        table,
        [
            *("system", "condition", "split", "utterance_id", "speaker"),
            *("reference", "edits", "characters", "sha256"),
        ],
    )
    frame = frame[frame.system == ASR_SYSTEM]
    if not ((frame.condition == "plain") & (frame.split != OUT_OF_DOMAIN)).any():
        raise _empty(table, ASR_SYSTEM)
    if shipped_sha256:
        for found in frame.sha256.unique():
            _same_bytes(str(found), shipped_sha256, ONNX, table)
    return frame


def _answers(frame: pd.DataFrame) -> tuple[Answer, ...]:
    columns = (frame.split, frame.utterance_id, frame.speaker, frame.reference, frame.edits, frame.characters)
    return tuple(
        Answer(str(s), str(i), str(b), str(r), float(e), float(n))
        for s, i, b, r, e, n in zip(*columns, strict=True)
    )


def _changes(plain: pd.DataFrame, table: pd.DataFrame, condition: str, path: Path) -> tuple[Change, ...]:
    """Utterances under a condition, each with the plain edits of the utterance, or of those joined in it.

    Args:
        plain: the plain rows of known voices.

    Raises:
        ArtifactError: a row names utterances that were not measured plain.
        DataError: there is no row of the condition.
    """
    edits = dict(zip(plain.utterance_id, plain.edits, strict=True))
    rows = table[(table.condition == condition) & (table.split == SENTENCES)]
    if rows.empty:
        raise _empty(path, f"{ASR_SYSTEM}, condition {condition}")
    columns = (rows.speaker, rows.reference, rows.utterance_id, rows.edits, rows.characters)
    found = []
    for speaker, reference, name, after, size in zip(*columns, strict=True):
        parts = _parts(str(name), edits)
        if not parts:
            raise ArtifactError(
                f"{path}: {name} ({condition}) has no plain counterpart",
                "a rise is measured on the same utterances",
                "evaluate again: `dvc repro -f evaluate_asr`",
            )
        before = float(sum(edits[part] for part in parts))
        found.append(Change(str(speaker), str(reference), before, float(after), float(size)))
    return tuple(found)


def _parts(name: str, known: Mapping[str, Any]) -> list[str]:
    """The utterances that a joined one was made of, "a+b+c"; an id may have a + itself. Empty if unknown."""
    if name in known:
        return [name]
    for place in (index for index, character in enumerate(name) if character == "+"):
        if name[:place] in known and (rest := _parts(name[place + 1 :], known)):
            return [name[:place], *rest]
    return []


def _quantised(merged: tuple[Answer, ...], served: tuple[Answer, ...], path: Path) -> tuple[Change, ...]:
    """The examples that both answered, by the merged model and by the GGUF made from it."""
    after = {answer.id: answer for answer in served}
    unknown = [answer.id for answer in merged if answer.id not in after]
    if unknown:
        raise ArtifactError(
            f"{path}: the merged model answered {len(unknown)} examples that the GGUF did not ({unknown[0]})",
            "what quantisation costs is measured on the same examples",
            "evaluate again: `dvc repro -f evaluate_llm`",
        )
    pairs = ((before, after[before.id]) for before in merged)
    return tuple(Change(a.block, a.reference, b.errors, a.errors, a.units) for b, a in pairs)


def llm_answers(table: Path, system: str) -> tuple[Answer, ...]:
    """The answers of a system from true text, such as those of the GGUF that serves; block = the text.

    Raises:
        ArtifactError: the table is missing or lacks columns.
        DataError: it has no rows of this system.
    """
    frame = read_table(table, ["system", "id", "written", "reference", "exact"])
    frame = frame[frame.system == system]
    if frame.empty:
        raise _empty(table, system)
    return tuple(
        Answer("test", str(i), str(text), str(r), 0.0 if exact else 1.0, 1.0)
        for i, text, r, exact in zip(frame.id, frame.written, frame.reference, frame.exact, strict=True)
    )


def road(build_dir: Path, line: Line, shas: set[str]) -> Road | None:
    """The road's answers, if they were given through the file that ships; else None, with a log line.

    Args:
        shas: SHA-256 of the files the road may have been measured through.

    Raises:
        ArtifactError: its table is missing or lacks columns.
    """
    path = build_dir / "road/metrics.json"
    if not path.is_file():
        return None
    metrics = read_json(path)
    if metrics.get(line) not in shas:
        log.warning("%s was measured with another %s file (%s): not judged", path, line, metrics.get(line))
        return None
    frame = read_table(
        build_dir / "road/samples.parquet",
        ["split", "utterance_id", "speaker", "transcript_reference", "exact"],
    )
    columns = (frame.split, frame.utterance_id, frame.speaker, frame.transcript_reference, frame.exact)
    return Road(
        tuple(
            Answer(str(s), str(i), str(b), str(r), 0.0 if exact else 1.0, 1.0)
            for s, i, b, r, exact in zip(*columns, strict=True)
        )
    )


def items_digest(answers: tuple[Answer, ...]) -> str:
    """Digest of which items were answered: splits, ids, references and units, in any order."""
    return digest_json(sorted([a.split, a.id, a.reference, a.units] for a in answers))


def evidence_digest(evidence: AsrEvidence | LlmEvidence) -> str:
    """Digest of everything the gate looks at; timings have no part in it."""
    return digest_json(asdict(evidence))


def checksums(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of every file, by its path in the repository."""
    return {name: sha256_file(path) for name, path in files.items()}


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table that has at least these columns.

    Raises:
        ArtifactError: it is missing, cut off, or lacks one.
    """
    try:
        frame = pd.read_parquet(path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    except ValueError as error:  # pyarrow.ArrowInvalid is one
        raise ArtifactError(
            f"{path} is not a whole Parquet file ({error})",
            "the evaluation must be complete",
            "`dvc repro -f`",
        ) from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ArtifactError(
            f"{path} has no column {', '.join(missing)}",
            f"the gate needs {', '.join(columns)}",
            "make it again: `dvc repro -f evaluate_asr evaluate_llm`",
        )
    return frame


def _same_bytes(measured: str, shipped: str, name: str, where: Path) -> None:
    if measured != shipped:
        raise ArtifactError(
            f"{where} was measured on a {name} with SHA-256 {measured[:12]}…, but {shipped[:12]}… would ship",
            "what is judged must be, byte for byte, what ships",
            "evaluate the shipped file again: `dvc repro`",
        )


def _empty(table: Path, system: str) -> DataError:
    return DataError(
        f"{table} has no answers of {system}",
        "the shipped file must have been evaluated on a test split that is not empty",
        "raise corpus.test_utterances or evaluate_llm.examples in params.yaml and run again",
    )
