"""The stores before a run: MLflow's tracking store with its schema and names, its artifacts, DVC's remote.

A SQLite store is opened as it is, without MLflow, which takes seconds to import; any other is asked by the
class that registers (`tasks.release.registry`).
"""

import configparser
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

from tasks.errors import MalgilError, MissingDependencyError, PublishError, SettingsError
from tasks.preflight.capacity import require_writable
from tasks.preflight.finding import Check, Finding, Subject, fault, ok, warning
from tasks.release.registry import Registry, explained, probe, sqlite_path, store_error, tracking_uri

REACH_S = 5.0
MLFLOW, ARTIFACTS, REMOTE = "MLflow", "artifacts", "DVC remote"
# What an MLflow alias may be called (mlflow.utils.validation); a tag of the Hub may be called the same.
_ALIAS, _NUMBER = re.compile(r"[\w-]{1,255}"), re.compile(r"v\d+", re.IGNORECASE)
_MIGRATION = re.compile(r"^(revision|down_revision)\s*(?::[^=]*)?=\s*[\"']([0-9a-f]+)[\"']", re.MULTILINE)
_PACKAGES = {
    "s3": ("boto3", "dvc_s3"),
    "gs": ("google.cloud.storage", "dvc_gs"),
    "azure": ("azure", "dvc_azure"),
}


def look_at_mlflow(subject: Subject) -> Iterator[Finding]:
    """The tracking store: reachable, of a schema that this MLflow reads, names valid."""
    params = subject.params.registry
    yield from _aliases(params.environments)
    uri = tracking_uri(params)
    path = sqlite_path(uri)
    if path is None:
        _require_server(uri)
        registry = Registry(params)
        with explained(uri):
            named = registry.client.get_experiment_by_name(params.experiment)
        if named is not None and named.lifecycle_stage == "deleted":
            raise _deleted(params.experiment, str(named.experiment_id))
        yield ok(MLFLOW, uri.rpartition("@")[2])
        return
    require_writable(path.parent)
    if not path.is_file():
        yield ok(MLFLOW, f"{uri}: a new store")
        return
    with explained(uri):
        probe(uri)
        schema, stage, number = _of_store(path, params.experiment)
    head = newest_schema()
    if schema and head and schema != head:
        raise PublishError(
            f"the MLflow store {uri} has the schema {schema}",
            f"the MLflow installed here reads {head}",
            f"`mlflow db upgrade {uri}` (copy the file first), or install the MLflow that wrote it",
        )
    if stage == "deleted":
        raise _deleted(params.experiment, number)
    yield ok(MLFLOW, uri)


def _require_server(uri: str) -> None:
    """A server is reached within seconds: MLflow's own client tries for longer than anyone waits."""
    place = urlparse(uri)
    if place.scheme not in ("http", "https") or not place.hostname:
        return
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        socket.create_connection((place.hostname, port), timeout=REACH_S).close()
    except OSError as error:
        raise store_error(uri, f"Connection: {error.strerror or error}") from error


def _deleted(experiment: str, number: str) -> PublishError:
    return PublishError(
        f"the MLflow experiment {experiment!r} is deleted",
        "runs need a live experiment",
        f"`mlflow experiments restore -x {number}`, or rename registry.experiment",
    )


def _aliases(environments: tuple[str, ...]) -> Iterator[Finding]:
    bad = [
        name
        for name in environments
        if not _ALIAS.fullmatch(name) or _NUMBER.fullmatch(name) or name.lower() == "latest"
    ]
    if bad:
        yield fault(
            MLFLOW,
            SettingsError(
                "params.yaml",
                [f"registry.environments: {', '.join(map(repr, bad))} cannot be the name of an alias"],
                "use letters, digits, _ and -, and neither latest nor v1, v2, …",
            ),
        )


def _of_store(path: Path, experiment: str) -> tuple[str, str, str]:
    """Schema version, and life cycle stage and id of the experiment; "" for what is not there."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        tables = {row[0] for row in store.execute("SELECT name FROM sqlite_master")}
        schema = (
            store.execute("SELECT version_num FROM alembic_version").fetchone()
            if "alembic_version" in tables
            else None
        )
        named = None
        if "experiments" in tables:
            asked = "SELECT lifecycle_stage, experiment_id FROM experiments WHERE name = ?"
            named = store.execute(asked, (experiment,)).fetchone()
    stage, number = map(str, named) if named else ("", "")
    return str(schema[0]) if schema else "", stage, number


def newest_schema() -> str:
    """The database schema of the MLflow installed here, by its migrations; "" where they cannot be read."""
    spec = find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("mlflow is not installed", "versions are registered in it", "make setup")
    folder = Path(spec.submodule_search_locations[0], "store/db_migrations/versions")
    revisions, before = set(), set()
    for path in folder.glob("*.py"):
        said = dict(_MIGRATION.findall(path.read_text("utf-8")))
        revisions.add(said.get("revision", ""))
        before.add(said.get("down_revision", ""))
    heads = revisions - before - {""}
    return heads.pop() if len(heads) == 1 else ""


def look_at_artifacts(subject: Subject) -> Iterator[Finding]:
    """Where run artifacts go: a folder, or an object store with its client and a bucket that answers."""
    params = subject.params.registry
    uri = params.artifacts
    if "://" not in uri:
        if not tracking_uri(params).startswith("http"):
            require_writable(Path(uri))
            yield ok(ARTIFACTS, f"folder {uri}")
        return
    kind = urlparse(uri).scheme
    if kind == "file":
        require_writable(Path(urlparse(uri).path))
    elif kind in _PACKAGES:
        _require_package(_PACKAGES[kind][0], uri)
        if kind == "s3":
            _require_bucket(uri)
    yield ok(ARTIFACTS, uri.rpartition("@")[2])


def _require_package(name: str, uri: str) -> None:
    if find_spec(name.partition(".")[0]) is None:
        raise MissingDependencyError(
            f"{name} is not installed",
            f"registry.artifacts: {uri} is written with it",
            f"pip install {name.replace('.', '-')}, or set registry.artifacts to a folder",
        )


def _require_bucket(uri: str) -> None:
    boto3, errors = import_module("boto3"), import_module("botocore.exceptions")  # not among our packages
    bucket = urlparse(uri).netloc
    settings = import_module("botocore.config").Config(
        connect_timeout=REACH_S, read_timeout=REACH_S, retries={"max_attempts": 1}
    )
    try:
        endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None
        boto3.client("s3", endpoint_url=endpoint, config=settings).head_bucket(Bucket=bucket)
    except (errors.BotoCoreError, errors.ClientError) as error:
        raise PublishError(
            f"the bucket {bucket} of {uri} does not answer ({(str(error).splitlines() or [''])[0]})",
            "run artifacts are written there",
            "check the AWS_… keys of the environment, MLFLOW_S3_ENDPOINT_URL and registry.artifacts",
        ) from error


def look_at_remote(subject: Subject) -> Iterator[Finding]:
    """DVC's default remote. A run does not use it (`dvc push` does), so nothing here stops one."""
    config = configparser.ConfigParser()
    for name in (".dvc/config", ".dvc/config.local"):
        try:
            config.read(name, encoding="utf-8")
        except configparser.Error as error:
            yield warning(
                REMOTE,
                f"{name} cannot be read ({error})",
                "it names DVC's cache and remote",
                f"correct {name}",
            )
            return
    name = config.get("core", "remote", fallback="").strip("'\"")
    if not name:
        return
    section = next((part for part in config.sections() if part.strip("'").split('"')[-2:-1] == [name]), "")
    url = config.get(section, "url", fallback="") if section else ""
    kind = urlparse(url).scheme
    if not url:
        yield warning(
            REMOTE, f"core.remote names {name!r}, which has no url", "`dvc push` needs it", "dvc remote add"
        )
    elif kind in _PACKAGES and find_spec(_PACKAGES[kind][1]) is None:
        package = _PACKAGES[kind][1].replace("_", "-")
        yield warning(
            REMOTE,
            f"{url} needs {package}, which is not installed",
            "`dvc push` needs it",
            f"pip install {package}",
        )
    elif kind in ("", "file"):
        try:
            require_writable(Path(urlparse(url).path or url))
            yield ok(REMOTE, url)
        except MalgilError as error:
            yield warning(REMOTE, error.what, "`dvc push` writes there", error.next_step)
    else:
        yield ok(REMOTE, f"{url}, not asked: a run does not use it")


TRACKING = Check(MLFLOW, ("registry",), look_at_mlflow)
RUN_ARTIFACTS = Check(ARTIFACTS, ("registry",), look_at_artifacts)
DVC_REMOTE = Check(REMOTE, (), look_at_remote)
