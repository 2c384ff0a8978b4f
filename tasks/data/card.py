"""The data card of a corpus folder: what it is, how it was made, what it is not. Pure; no command."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import pandas as pd

from tasks.data.chains import steps_of
from tasks.data.grammar import INTENTS
from tasks.data.manifest import OUT_OF_DOMAIN
from tasks.data.own.reconciliation import Count
from tasks.data.rendering import PITCH, RATE_WPM
from tasks.data.surroundings import KINDS
from tasks.data.text import ITN_ID
from tasks.settings import Corpus


def builtin_card(params: Corpus, manifest: pd.DataFrame, commands: pd.DataFrame) -> str:
    """Markdown card of the built-in corpus."""
    noisy = manifest.loc[manifest["split"] != OUT_OF_DOMAIN, "snr_db"].notna().mean()
    examples = "\n".join(
        f"- {row.text} → {row.written} → `{row.tool_call}`"
        for row in commands.head(5).itertuples(index=False)
    )
    ratios = ", ".join(f"{value:g}" for value in params.snr_db)
    return f"""# Malgil built-in corpus: Korean smart-home commands

**All speech here is synthetic.** It was rendered by espeak-ng (wheel espeakng-loader
{version("espeakng-loader")}), a formant synthesiser whose "voices" are parameter sets, not people. Nobody was
recorded and nobody's voice is imitated. The engine's Korean phonology is incomplete (no nasalisation:
십육 is said as it is written). Rates measured on this corpus say how the pipeline works, not how well a
recogniser hears people.

- sentences: a grammar of {len(INTENTS)} intents, seed {params.seed}
- intents: {", ".join(INTENTS)}
- sentences with tool calls: {len(commands)}; written form by the inverse normaliser `{ITN_ID}`
- audio: FLAC, 16 kHz, mono, 16 bit

{_table(manifest)}

- No sentence is in two splits. `test_sentences`: unseen sentences by training voices. `test_voices`: other
  unseen sentences by {params.unseen_voices} voices that speak nowhere else.
- Speaking rate {RATE_WPM[0]} to {RATE_WPM[1]} words per minute, pitch {PITCH[0]} to {PITCH[1]} (the
  engine's scale, 50 is neutral), drawn evenly.
- Training: up to {params.max_silence_s} s of silence before and after, {params.joined_share:.0%} of the
  utterances are two to four sentences by one voice, noise at {ratios} dB.
- Validation and test: one sentence, up to half that silence, noise from the quieter half of those ratios.
- Column `snr_db` says which ratio (empty: clean); {noisy:.0%} of these utterances have noise (white, pink or
  babble-like, all computed).
- `{OUT_OF_DOMAIN}`: {params.ood_utterances} everyday sentences outside the grammar, by known and
  unseen voices in turn, one kind of surrounding each (column `ood_kind`: {", ".join(KINDS)}). Only tested on.

## Examples

{examples}
"""


def manifest_card(
    source: str,
    manifest: pd.DataFrame,
    commands: pd.DataFrame,
    notes: Sequence[str],
    normaliser: str,
    counts: Sequence[Count] = (),
) -> str:
    """Markdown card of a corpus made from a user's recordings; `notes` say what ingestion decided, `counts`
    what went in, came out and was set aside."""
    speakers = manifest["speaker"].nunique()
    steps = ", ".join(steps_of(normaliser))
    decided = "".join(f"- {note}.\n" for note in notes).replace("<", "&lt;")  # <noise> is no tag here
    return f"""# Corpus of the user's own recordings

Made from `{source}`: {len(manifest)} utterances, {speakers} speakers, {len(commands)} commands with a
tool call. Audio that is 16 kHz mono was copied as it is; licence and consent are those of its origin.
Transcripts are compared, and later trained on, under the text normaliser `{normaliser}` ({steps}).

{decided}
{_table(manifest)}

What went in is what came out plus what was set aside (each line: `set_aside.parquet`). A row keeps where it
was written: `origin_file`, `origin_line`, `origin_path`.

{_reconciliation(counts)}
"""


def _reconciliation(counts: Sequence[Count]) -> str:
    lines = ["| step | in | out | set aside |", "|---|---|---|---|"]
    for count in counts:
        aside = ", ".join(f"{number} {reason}" for reason, number in count.set_aside.items()) or "none"
        lines.append(f"| {count.step} ({count.unit}s) | {count.entered} | {count.made} | {aside} |")
    return "\n".join(lines)


def _table(manifest: pd.DataFrame) -> str:
    lines = ["| split | utterances | hours | voices | joined |", "|---|---|---|---|---|"]
    for split, rows in manifest.groupby("split", sort=False):
        hours = rows["duration_s"].sum() / 3600
        voices, joined = rows["speaker"].nunique(), int((rows["joined"] > 1).sum())
        lines.append(f"| {split} | {len(rows)} | {hours:.2f} | {voices} | {joined} |")
    return "\n".join(lines)
