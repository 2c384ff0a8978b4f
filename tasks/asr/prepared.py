"""The prepared speech of `tasks.data.prepare` as training and evaluation read it: one flat audio array
and its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.asr.training.batching import AudioStore
from tasks.data.chains import steps_of
from tasks.errors import ArtifactError, DataError, explain_os_error

_FILES = ("utterances.parquet", "audio.npy")
_COLUMNS = ("utterance_id", "speaker", "split", "text", "offset", "samples", "normaliser")


@dataclass(frozen=True)
class PreparedSpeech:
    """Rows (utterances.parquet) and audio (audio.npy, int16, memory-mapped) of `folder`."""

    folder: Path
    rows: pd.DataFrame
    flat: np.ndarray[tuple[int], np.dtype[np.int16]]

    @property
    def normaliser(self) -> str:
        """Id of the text normaliser that every transcript passed."""
        return str(self.rows["normaliser"].iloc[0])

    def has(self, name: str) -> bool:
        """Whether a split has any utterance; `test_ood` need not."""
        return bool((self.rows["split"] == name).any())

    @property
    def normaliser_steps(self) -> list[str]:
        """The steps of that normaliser, with their versions, in their order."""
        return list(steps_of(self.normaliser))

    def split(self, name: str) -> tuple[pd.DataFrame, AudioStore]:
        """Rows of a split, in their order, and their audio. Raises `DataError` when it is empty."""
        rows = self.rows[self.rows["split"] == name].reset_index(drop=True)
        if rows.empty:
            raise DataError(
                f"{self.folder} has no utterance in split {name!r}",
                "every split needs at least one",
                "raise its size under `corpus` in params.yaml, or look at build/validated/quarantine.parquet",
            )
        return rows, AudioStore(
            self.flat, rows["offset"].to_numpy(np.int64), rows["samples"].to_numpy(np.int64)
        )


def read_prepared(folder: Path) -> PreparedSpeech:
    """Opens a prepared folder.

    Raises:
        ArtifactError: a file is missing or cut off.
        DataError: a column is missing, or a row points outside the audio.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise explain_os_error(FileNotFoundError(2, "missing", str(folder / name)))
    try:
        rows = pd.read_parquet(folder / _FILES[0])
        flat = np.load(folder / _FILES[1], mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise explain_os_error(error, error.filename or folder) from error
    except (ValueError, EOFError) as error:
        raise ArtifactError(
            f"{folder} cannot be read ({error})",
            "needs a whole utterances.parquet and audio.npy",
            "make it again: `dvc repro -f prepare`",
        ) from error
    missing = [column for column in _COLUMNS if column not in rows.columns]
    if missing:
        raise DataError(
            f"{folder / 'utterances.parquet'} has no column {', '.join(missing)}",
            f"needs {', '.join(_COLUMNS)}",
            "make it again: `dvc repro -f prepare`",
        )
    if len(rows) and int((rows["offset"] + rows["samples"]).max()) > len(flat):
        raise DataError(
            f"{folder / 'audio.npy'} holds {len(flat)} samples",
            "is shorter than its rows say",
            "make it again: `dvc repro -f prepare`",
        )
    return PreparedSpeech(folder, rows, flat)
