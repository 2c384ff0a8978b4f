"""MLflow's places of artifacts, in a project that stands in another folder than when they were noted down.

MLflow keeps absolute places: of an experiment, of each run and of each logged model. In a project that was
moved or copied they lead to the folder that it came from, which would be made again and written to. They are
turned to this project before anything is read or written.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

WAIT_S = 10.0
# Where MLflow keeps places, by table; each begins with that of an experiment.
COLUMNS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
MLFLOWS_OWN = "Default"  # the experiment that MLflow makes and nobody here writes to
log = logging.getLogger(__name__)
_said: set[str] = set()


class Place(NamedTuple):
    """Where an experiment's artifacts were kept, and where they lie now.

    Attributes:
        with_runs: the earlier runs' artifacts are there too, and not only those to come.
    """

    experiment: str
    old: str
    new: str
    with_runs: bool


def bring_home(database: Path, artifacts: str) -> list[Place]:
    """Turns the places of a project that was moved or copied to the current folder.

    Only in a SQLite store of this project whose `registry.artifacts` is a folder relative to it: any other
    place is one that somebody chose.

    Args:
        database: the file of the store.
        artifacts: `registry.artifacts`.

    Returns:
        What was changed.

    Raises:
        sqlite3.Error: the store is locked, damaged or cannot be written.
    """
    project = Path.cwd()
    relative = Path(artifacts)
    if "://" in artifacts or relative.is_absolute() or not database.is_relative_to(project):
        return []
    if not database.is_file() or not database.stat().st_size:
        return []
    with closing(sqlite3.connect(database, timeout=WAIT_S, isolation_level=None)) as store:
        if not _columns(store, "experiments") >= {"name", "artifact_location"}:
            return []
        known = store.execute("SELECT name, artifact_location FROM experiments").fetchall()
        places = [place for name, old in known if (place := _place(str(name), str(old), project, relative))]
        if places:
            store.execute("BEGIN IMMEDIATE")
            for place in places:
                _turn(store, place)
            store.execute("COMMIT")
    spoken = [place for place in places if place.experiment != MLFLOWS_OWN]
    if spoken:
        log.warning(
            "this project was moved or copied here: MLflow had noted %s as the place of artifacts; those of "
            "%s are now looked for, and kept, in %s",
            _local(spoken[0].old),
            ", ".join(place.experiment for place in spoken),
            project / relative,
        )
    return places


def _place(name: str, old: str, project: Path, artifacts: Path) -> Place | None:
    """The new place of an experiment; None where it may stay as it is."""
    there = _local(old)
    if there is None or there.is_relative_to(project):
        return None
    own = project / artifacts / name
    if there.parts[-len((artifacts / name).parts) :] == (artifacts / name).parts:
        return Place(name, old, own.as_uri(), with_runs=True)
    for start in range(1, len(there.parts) - 1):  # registry.artifacts was another then
        here = project.joinpath(*there.parts[start:])
        if here.is_dir():
            return Place(name, old, here.as_uri(), with_runs=True)
    if not there.parent.is_dir():  # or it would be made again, and nobody would look there
        return Place(name, old, own.as_uri(), with_runs=False)
    if name not in _said and name != MLFLOWS_OWN:
        _said.add(name)
        log.warning("artifacts of the MLflow experiment %s lie outside this project, in %s", name, there)
    return None


def _local(uri: str) -> Path | None:
    """The folder of a file URI or an absolute path; None for any other place."""
    if uri.startswith("/"):
        return Path(uri)
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.path.startswith("/") else None


def _turn(store: sqlite3.Connection, place: Place) -> None:
    store.execute(
        "UPDATE experiments SET artifact_location = ? WHERE name = ?", (place.new, place.experiment)
    )
    if not place.with_runs:
        return
    old, new = place.old.rstrip("/"), place.new
    for table, column in COLUMNS:
        if column in _columns(store, table):
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old) + 1, f"{old}/"),
            )


def _columns(store: sqlite3.Connection, table: str) -> set[str]:
    return {str(row[1]) for row in store.execute(f"PRAGMA table_info({table})")}
