"""Stage `corpus`: the speech data of a run, built in or the user's own, in one folder.

    python -m tasks.data.corpus [--params build/params.yaml] [--commands build/commands]

Built in: the sentences of the stage `commands`, spoken by espeak-ng with silence, noise and joined
utterances, and an out-of-domain slice that is only ever tested on. With another `corpus.source` it is made
from recordings of the user (`tasks.data.source`). Either way it holds manifest.parquet, card.md, audio/,
reconciliation.json and set_aside.parquet (what went in and became no row), and commands.parquet and
tools.json as `commands` wrote them, so that the folder can stand alone.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tasks.artifacts import new_folder, write_text
from tasks.data.audio import SAMPLE_RATE_HZ, flac_bytes
from tasks.data.card import builtin_card
from tasks.data.espeak import Synthesiser
from tasks.data.grammar import canonical_json
from tasks.data.manifest import OOD_KIND, OUT_OF_DOMAIN, read_table, write_manifest
from tasks.data.noise import NoiseBeds
from tasks.data.own.intake import write_reconciliation
from tasks.data.own.reconciliation import counted
from tasks.data.plan import (
    Unusual,
    Utterance,
    draw_sentences,
    plan_out_of_domain,
    plan_utterances,
)
from tasks.data.rendering import Rendered, render, render_unusual, talkers
from tasks.data.source import ingest
from tasks.data.text import NORMALISER_ID
from tasks.data.voices import TRAINING_VOICES, UNSEEN_VOICES
from tasks.progress import track
from tasks.settings import Corpus
from tasks.stage import run_stage

log = logging.getLogger("malgil.corpus")


def make_corpus(params: Corpus, *, commands: Path, out_dir: Path, normaliser: str = NORMALISER_ID) -> None:
    """Write the corpus folder, whole or not at all.

    Args:
        commands: folder of the stage `commands`, made with the same settings.
        normaliser: the chain by which two transcripts of a user's recordings are the same sentence.

    Raises:
        DataError: more voices or sentences asked for than there are, or the user's manifest is unusable.
        CapacityError: the disk is full or the folder read-only; an earlier corpus stays as it was.
    """
    with new_folder(out_dir) as folder:
        for name in ("commands.parquet", "tools.json"):
            shutil.copyfile(commands / name, folder / name)
        if params.source == "builtin":
            _build(params, folder)
        else:
            ingest(params, folder, normaliser)
    log.info("corpus written to %s", out_dir)


def _build(params: Corpus, folder: Path) -> None:
    sentences = draw_sentences(params)
    utterances = plan_utterances(params, sentences, TRAINING_VOICES, UNSEEN_VOICES)
    unusual = plan_out_of_domain(params, TRAINING_VOICES, UNSEEN_VOICES)
    manifest = _speak(params, utterances, unusual, folder)
    write_manifest(folder / "manifest.parquet", manifest)
    commands = read_table(folder / "commands.parquet")
    write_text(folder / "card.md", builtin_card(params, manifest, commands))
    planned = len(utterances) + len(unusual)
    write_reconciliation(folder, [counted("render", "utterance", planned, len(manifest), [])], [])
    log.info(
        "%d utterances, %.2f h, %d voices, %d sentences",
        len(manifest),
        manifest["duration_s"].sum() / 3600,
        manifest["speaker"].nunique(),
        len(commands),
    )


def _speak(
    params: Corpus, utterances: Sequence[Utterance], unusual: Sequence[Unusual], folder: Path
) -> pd.DataFrame:
    """Render every utterance to folder/audio; the manifest rows, in the order of the plan.

    The out-of-domain slice comes last, so that what the engine said before is the same without it.
    """
    (folder / "audio").mkdir()
    beds = NoiseBeds(params.seed)
    rows: dict[int, dict[str, object]] = {}
    last = []
    with Synthesiser() as engine:
        # By voice: choosing a voice costs the engine more than speaking a short sentence.
        by_voice = sorted(utterances, key=lambda utterance: (utterance.speaker, utterance.number))
        for utterance in track(by_voice, "corpus", unit="utterances"):
            rows[utterance.number] = _row(folder, utterance, render(utterance, params, engine, beds))
        voices = talkers(unusual, engine)
        for one in track(unusual, "corpus, out of domain", unit="utterances"):
            last.append(_unusual_row(folder, one, render_unusual(one, params, engine, voices)))
    return pd.DataFrame([*(rows[number] for number in sorted(rows)), *last])


def _row(folder: Path, utterance: Utterance, rendered: Rendered) -> dict[str, object]:
    said = utterance.sentences
    return {
        **_written(folder, utterance.utterance_id, rendered),
        "transcript": " ".join(sentence.command.text for sentence in said),
        "speaker": utterance.speaker,
        "split": utterance.split,
        "sentence_ids": "+".join(sentence.sentence_id for sentence in said),
        "joined": len(said),
        "tool_call": canonical_json(said[0].command.tool_call) if len(said) == 1 else "",
        OOD_KIND: "",
    }


def _unusual_row(folder: Path, utterance: Unusual, rendered: Rendered) -> dict[str, object]:
    return {
        **_written(folder, utterance.utterance_id, rendered),
        "transcript": utterance.text,
        "speaker": utterance.speaker,
        "split": OUT_OF_DOMAIN,
        "sentence_ids": utterance.sentence_id,
        "joined": 1,
        "tool_call": "",
        OOD_KIND: utterance.kind,
    }


def _written(folder: Path, utterance_id: str, rendered: Rendered) -> dict[str, object]:
    """Write the audio's file; what the manifest says of it."""
    data = flac_bytes(rendered.audio)
    path = f"audio/{utterance_id}.flac"
    (folder / path).write_bytes(data)
    return {
        "utterance_id": utterance_id,
        "path": path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "duration_s": len(rendered.audio) / SAMPLE_RATE_HZ,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "snr_db": rendered.snr_db,
    }


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            __spec__.name,
            "corpus",
            make_corpus,
            inputs={"commands": Path("build/commands")},
            outputs={"out_dir": Path("build/corpus")},
            borrowed={"normaliser": "prepare.normaliser"},
        )
    )
