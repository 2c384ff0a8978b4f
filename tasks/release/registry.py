"""MLflow: the run of a line, its logged model, the registered version and its alias.

Every step first looks for what a killed run left and completes it: a run is known by its key, a logged
model by its run, a version by the digest of its artifact. History goes in by the batch (a single
`log_metric` costs 20 ms). Large files are not copied here: the published URI is a tag.

MLflow is imported when a `Registry` is made: it takes seconds.
"""

import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.errors import CapacityError, ConflictError, MalgilError, PublishError, explain_os_error
from tasks.release.moved import bring_home
from tasks.settings import Registry as RegistryParams

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

LOCK_WAIT_S = 10.0  # how long another writer of a SQLite store is waited for
BATCH = 100  # entities per log_batch call: MLflow's limit for params; metrics may be 1,000
METRICS_BATCH = 1000
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own 7 take minutes to say that a server is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataInput:
    """A data set that a run read.

    Attributes:
        name: such as "corpus".
        source: its path.
        digest: DVC's md5 (36 characters at most).
        frame: its table, for schema and size.
    """

    name: str
    source: Path
    digest: str
    frame: "pd.DataFrame"


@dataclass(frozen=True)
class RunRecord:
    """What is written to a run.

    Attributes:
        key: tells a run from every other; a run with this key is completed, not repeated.
        history: rows with "step" and metrics, in order.
        metrics: final rates, also given to the logged model.
        artifacts: local file of each artifact path; small files only.
    """

    key: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    inputs: Sequence[DataInput] = ()
    artifacts: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    model: str
    number: int
    run_id: str
    tags: Mapping[str, str]


def tracking_uri(params: RegistryParams) -> str:
    """The store's URI: MLFLOW_TRACKING_URI or params.yaml; a relative SQLite path made absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking_uri
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """The absolute database file of a SQLite URI; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


class Registry:
    """The registry of one store and experiment.

    Args:
        params: the `registry` section.

    Raises:
        ConflictError: another process holds the SQLite store.
        PublishError: the store cannot be reached or read.
        CapacityError: its folder cannot be written.
    """

    def __init__(self, params: RegistryParams) -> None:
        self.params = params
        self.uri = tracking_uri(params)
        with explained(self.uri):
            probe(self.uri)
            if database := sqlite_path(self.uri):
                bring_home(database, params.artifacts)
            for name, value in DEFAULTS.items():
                os.environ.setdefault(name, value)
            import mlflow
            from mlflow import MlflowClient

            for talker in ("mlflow", "alembic"):
                logging.getLogger(talker).setLevel(logging.WARNING)

            mlflow.set_tracking_uri(self.uri)  # or MLflow makes an mlflow.db in the current folder
            mlflow.set_registry_uri(self.uri)
            self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment(self, name: str) -> str:
        """The id of an experiment, made on first use."""
        from mlflow.exceptions import MlflowException

        with explained(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                try:
                    return str(self.client.create_experiment(name, artifact_location=self._artifacts(name)))
                except MlflowException as error:
                    found = self.client.get_experiment_by_name(name)  # made by another process just now
                    if found is None:
                        raise error
            if found.lifecycle_stage == "deleted":
                raise PublishError(
                    f"the MLflow experiment {name!r} is deleted",
                    "runs need a live experiment",
                    f"`mlflow experiments restore -x {found.experiment_id}`, or rename registry.experiment",
                )
            return str(found.experiment_id)

    def by_alias(self, model: str, alias: str) -> Version | None:
        """The version an alias points at; None when there is no such model or alias."""
        from mlflow.exceptions import MlflowException

        with explained(self.uri):
            try:
                return _version(self.client.get_model_version_by_alias(model, alias))
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def by_artifact(self, model: str, artifact: str) -> Version | None:
        """The newest version with this artifact digest."""
        with explained(self.uri):
            found = self.client.search_model_versions(
                f"name = '{model}' and tag.`malgil.artifact` = '{artifact}'"
            )
            return max(map(_version, found), key=lambda v: v.number, default=None)

    def find_run(self, experiment: str, key: str) -> "Run | None":
        """The oldest run with this key, finished or not."""
        with explained(self.uri):
            ids = [self.experiment(experiment)]
            found = self.client.search_runs(
                ids, f"tags.`malgil.key` = '{key}'", order_by=["attributes.start_time"]
            )
            return found[0] if found else None

    def ensure_run(self, experiment: str, record: RunRecord) -> str:
        """The id of the finished run with the record's key; made, or completed, where needed."""
        from mlflow.entities import Metric, Param

        run = self.find_run(experiment, record.key)
        with explained(self.uri):
            if run is not None and run.info.status == "FINISHED":
                if any(run.data.tags.get(key) != value for key, value in record.tags.items()):
                    self._tag_run(run.info.run_id, record)  # judged again under other rules
                return str(run.info.run_id)
            if run is None:
                tags = {**record.tags, "malgil.key": record.key}
                run = self.client.create_run(self.experiment(experiment), tags=tags, run_name=record.name)
            run_id, when = str(run.info.run_id), run.info.start_time
            new = [Param(k, v[:6000]) for k, v in record.params.items() if k not in run.data.params]
            for params in _batches(new, BATCH):
                self.client.log_batch(run_id, params=params)
            # the run's own start as time stamp: points logged twice after a kill are one point
            points = [
                Metric(name, float(value), when, int(row["step"]))
                for row in record.history
                for name, value in row.items()
                if name != "step"
            ] + [Metric(name, value, when, 0) for name, value in record.metrics.items()]
            for metrics in _batches(points, METRICS_BATCH):
                self.client.log_batch(run_id, metrics=metrics)
            if record.inputs:
                self.client.log_inputs(run_id, [_dataset_input(data) for data in record.inputs])
            self._tag_run(run_id, record)
            self.client.set_terminated(run_id, "FINISHED")
        return run_id

    def _tag_run(self, run_id: str, record: RunRecord) -> None:
        """Writes the run's artifacts and tags."""
        from mlflow.entities import RunTag

        for name, path in record.artifacts.items():
            self.client.log_artifact(run_id, str(path), str(Path(name).parent) if "/" in name else None)
        for tags in _batches([RunTag(key, value) for key, value in record.tags.items()], BATCH):
            self.client.log_batch(run_id, tags=tags)

    def ensure_model(self, run_id: str, model: str, record: RunRecord) -> str:
        """The id of the run's logged model: its small files and rates, ready."""
        from mlflow.entities import Metric

        with explained(self.uri):
            run = self.client.get_run(run_id)
            found = self.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
            if found and str(found[0].status) == "READY":
                return str(found[0].model_id)
            logged = found[0] if found else None
            if logged is None:
                logged = self.client.create_logged_model(
                    run.info.experiment_id, model, run_id, dict(record.tags), model_type="malgil"
                )
            name, digest = next(((d.name, d.digest) for d in record.inputs), (None, None))
            when, model_id = run.info.start_time, logged.model_id
            points = [
                Metric(key, value, when, 0, model_id, dataset_name=name, dataset_digest=digest, run_id=run_id)
                for key, value in record.metrics.items()
            ]
            for metrics in _batches(points, METRICS_BATCH):
                self.client.log_batch(run_id, metrics=metrics)
            for path in record.artifacts.values():
                self.client.log_model_artifact(logged.model_id, str(path))
            self.client.finalize_logged_model(logged.model_id, "READY")
            return str(logged.model_id)

    def ensure_version(
        self, model: str, run_id: str, model_id: str, tags: Mapping[str, str], description: str
    ) -> Version:
        """The version with the artifact digest in `tags`; made where there is none, else its tags renewed."""
        found = self.by_artifact(model, tags["malgil.artifact"])
        if found is not None:
            self.tag(found, tags)
            return Version(model, found.number, found.run_id, {**found.tags, **tags})
        from mlflow.exceptions import MlflowException

        with explained(self.uri):
            try:
                self.client.create_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = self.client.create_model_version(
                model, f"models:/{model_id}", run_id, dict(tags), description=description, model_id=model_id
            )
            return _version(made)

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Sets tags of a version, those that differ."""
        with explained(self.uri):
            for key, value in tags.items():
                if version.tags.get(key) != value:
                    self.client.set_model_version_tag(version.model, str(version.number), key, value)

    def move_alias(self, model: str, alias: str, number: int) -> None:
        """Points `alias` at a version, and first `previous-<alias>` at the one it leaves."""
        current = self.by_alias(model, alias)
        if current is not None and current.number == number:
            return
        with explained(self.uri):
            if current is not None:
                self.client.set_registered_model_alias(model, f"previous-{alias}", str(current.number))
            self.client.set_registered_model_alias(model, alias, str(number))

    def attach(self, run_id: str, path: Path) -> None:
        """Adds a file to a finished run, unless one of its name and size is there."""
        with explained(self.uri):
            there = {entry.path: entry.file_size for entry in self.client.list_artifacts(run_id)}
            if there.get(path.name) != path.stat().st_size:
                self.client.log_artifact(run_id, str(path))

    def _artifacts(self, experiment: str) -> str | None:
        if "://" in self.params.artifacts:
            return f"{self.params.artifacts.rstrip('/')}/{experiment}"
        if self.uri.startswith("http"):
            return None  # the server's own choice
        return (Path(self.params.artifacts).absolute() / experiment).as_uri()


def _version(found: "ModelVersion") -> Version:
    return Version(str(found.name), int(found.version), str(found.run_id or ""), dict(found.tags))


def _batches(items: "Sequence[T]", size: int) -> "Iterator[Sequence[T]]":
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _dataset_input(data: DataInput) -> Any:
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import DatasetInput, InputTag

    with warnings.catch_warnings():
        # two kinds of source fit a local path, and whole numbers cannot be missing: neither matters here
        warnings.filterwarnings("ignore", category=UserWarning)
        dataset = from_pandas(data.frame, source=str(data.source), name=data.name, digest=data.digest)
        return DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "training")])


def probe(uri: str) -> None:
    """Opens a SQLite store for writing once, so that its troubles have names before MLflow wraps them."""
    path = sqlite_path(uri)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns MLflow's, the database's and the network's errors into one that says what to do.

    Raises:
        ConflictError: locked by another process.
        CapacityError: disk full or read-only.
        PublishError: anything else.
    """
    try:
        yield
    except MalgilError:
        raise
    except sqlite3.Error as error:
        raise store_error(uri, str(error)) from error
    except OSError as error:
        if type(error).__module__.startswith("requests"):
            raise store_error(uri, f"Connection: {type(error).__name__}") from error
        raise explain_os_error(error, error.filename or sqlite_path(uri)) from error
    except Exception as error:  # told apart just below
        if not type(error).__module__.startswith(("mlflow", "sqlalchemy", "alembic")):
            raise
        raise store_error(uri, str(error)) from error


def store_error(uri: str, message: str) -> MalgilError:
    where = uri.rpartition("@")[2]  # a password before @ is not shown
    said = message.strip().splitlines()[0][:200] if message.strip() else "no message"
    if "locked" in message:
        return ConflictError(
            f"the MLflow store {where} is locked",
            f"another process has been writing to it for over {LOCK_WAIT_S:.0f} s",
            "let the other run finish, or end it, and start the same command again",
        )
    if "disk is full" in message or "readonly" in message or "unable to open" in message:
        return CapacityError(
            f"the MLflow store {where} cannot be written ({said})",
            "its folder needs space and write permission",
            "free space or change permissions, then start the same command again",
        )
    if "not a database" in message or "malformed" in message:
        return PublishError(
            f"the MLflow store {where} is damaged ({said})",
            "it must be a whole SQLite database",
            "restore it from a backup, or move it away to begin a new registry",
        )
    if "Connection" in message or "connect" in message or "Max retries" in message:
        return PublishError(
            f"the MLflow store {where} cannot be reached ({said})",
            "registering needs it; what was published stays and is found again",
            "start the server (`make up`) or correct MLFLOW_TRACKING_URI, then start the same command again",
        )
    return PublishError(
        f"the MLflow store {where} refused: {said}",
        "runs and versions could not be written",
        "look at the store with `mlflow ui`, then start the same command again",
    )
