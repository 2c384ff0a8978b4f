"""Where shipped files go: one interface, two targets.

Both publish in two phases: everything is uploaded where nobody looks yet, read back, checked byte for
byte and loaded; only then does it get its name. Repeating it is harmless; a kill at any point leaves the
versions before as they were. The Hub is in `tasks.release.hub`.

The folder target, under params.publish.folder:

    <repository>/versions/<digest>/...     a complete repository tree; never changes
    <repository>/tags/v-<digest 12>        text file with the digest
    <repository>/aliases/<environment>     text file with the digest; moved by an atomic rename
"""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.artifacts import new_folder, sha256_file, write_text
from tasks.errors import MalgilError, PublishError, explain_os_error
from tasks.release.tree import SUMS, Tree, verify_folder
from tasks.settings import Publish

Check = Callable[[Path], None]
"""Loads the model of a downloaded repository; raises ModelError if it does not."""

LEFTOVER_S = 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A version at its target.

    Attributes:
        uri: what a user loads: a folder, or "<namespace>/<repository>@<tag>".
        target: "folder" or "hub".
        repository: the name at the target, with namespace on the Hub.
        revision: the digest (folder) or the commit (Hub).
        digest: of the tree's SHA256SUMS.
        already: it was there, whole, before this call.
    """

    uri: str
    target: str
    repository: str
    revision: str
    digest: str
    already: bool = False


class Publisher(Protocol):
    """A target of publishing."""

    def publish(self, tree: Tree, check: Check) -> Published:
        """Publishes a tree unless it is there; verifies it either way.

        Raises:
            PublishError: the target refused, or holds other bytes under the same name.
            CapacityError: no space, no permission.
        """

    def point(self, published: Published, alias: str) -> None:
        """Moves an alias (an environment's name) to a published version."""

    def fetch(self, repository: str, revision: str) -> Path:
        """A local folder with a published version, verified.

        Raises:
            PublishError: it is gone, or its bytes have changed.
        """

    def has(self, repository: str, revision: str) -> bool:
        """Whether a version is there, as far as can be told without a network."""


def tag_name(digest: str) -> str:
    """The tag of a version."""
    return f"v-{digest[:12]}"


def make_publisher(target: str, params: Publish, store_dir: Path) -> Publisher:
    """The publisher of a target.

    Args:
        target: "folder" or "hub"; of a past version it may differ from today's params.target.
        store_dir: where versions downloaded from the Hub are kept.
    """
    if target == "hub":
        from tasks.release.hub import HubPublisher

        return HubPublisher(params.namespace, private=params.private, downloads=store_dir / "downloads")
    return FolderPublisher(Path(params.folder))


class FolderPublisher:
    """Publishes into a folder on this machine or on a shared disk.

    Args:
        root: the folder of all repositories.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def publish(self, tree: Tree, check: Check) -> Published:
        """See `Publisher.publish`; a half-written leftover of a killed run is removed."""
        repository = self.root / tree.repository
        folder = repository / "versions" / tree.digest
        already = folder.exists()
        if already:
            verify_folder(folder, tree.digest)
            log.info("%s is published already, every byte as it should be", folder)
        else:
            _clean(folder.parent)
            with new_folder(folder) as staging:
                for name, source in tree.files.items():
                    _copy(source, staging / name)
                verify_folder(staging, tree.digest)
                check(staging)
        _write_ref(repository / "tags" / tag_name(tree.digest), tree.digest)
        return Published(str(folder), "folder", tree.repository, tree.digest, tree.digest, already)

    def point(self, published: Published, alias: str) -> None:
        """See `Publisher.point`; an atomic rename."""
        _write_ref(self.root / published.repository / "aliases" / alias, published.revision)

    def fetch(self, repository: str, revision: str) -> Path:
        """See `Publisher.fetch`; nothing is copied."""
        folder = self.root / repository / "versions" / revision
        if not folder.is_dir():
            raise PublishError(
                f"{folder} does not exist",
                "the version that serves must be there to be compared with",
                "restore the folder, or delete its alias in MLflow so that it no longer counts",
            )
        verify_folder(folder, revision)
        return folder

    def has(self, repository: str, revision: str) -> bool:
        """Whether the version's folder is there with its list of checksums."""
        sums = self.root / repository / "versions" / revision / SUMS
        return sums.is_file() and sha256_file(sums) == revision


def _clean(versions: Path) -> None:
    """Removes what a killed run left half-written; younger leftovers may be another run at work."""
    for leftover in versions.glob(".*.part"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                shutil.rmtree(leftover, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise explain_os_error(error, target if source.is_file() else source) from error


def _write_ref(path: Path, digest: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8").strip() == digest:
        return
    try:
        write_text(path, digest + "\n")
    except MalgilError:
        raise
    except OSError as error:
        raise explain_os_error(error, path) from error
