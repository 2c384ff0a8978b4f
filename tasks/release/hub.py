"""Publishing to the Hugging Face Hub, in two phases.

    branch of its own -> one commit with everything -> download that commit -> check every byte, load it
    -> tag v-<digest> -> delete the branch; later: move the tag of an environment

A kill before the tag leaves a branch that the next run finds and goes on with; after the tag there is
nothing left to do. Token, names and rights: `hub_access.py`. The Hub cannot
move a tag: an environment's tag is deleted and made again, and is missing for that moment.
"""

import hashlib
import logging
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts import new_folder
from tasks.errors import PublishError
from tasks.release.hub_access import api_with, explained, hub_token, repository_name
from tasks.release.publish import Check, Published, tag_name
from tasks.release.tree import SUMS, Tree, verify_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB_FILES = (".gitattributes",)  # the Hub's own: which files it keeps as LFS
CARD = "README.md"

log = logging.getLogger(__name__)


class HubPublisher:
    """Publishes to HF_ENDPOINT (the public Hub by default) with the token in HF_TOKEN.

    Args:
        namespace: user or organisation.
        private: make new repositories private.
        downloads: folder for versions that are read back.
    """

    def __init__(self, namespace: str, *, private: bool, downloads: Path) -> None:
        self.namespace, self.private, self.downloads = namespace, private, downloads

    def publish(self, tree: Tree, check: Check) -> Published:
        """See `tasks.release.publish.Publisher.publish`."""
        repository = repository_name(self.namespace, tree.repository)
        tag = tag_name(tree.digest)
        uri = f"{repository}@{tag}"
        with explained(repository):
            api = self._api()
            api.create_repo(repository, private=self.private, exist_ok=True)
            tagged = _refs(api, repository, "tags").get(tag)
            if tagged:
                self._compare(api, repository, tagged, tree)
                log.info("%s is published already, every byte as it should be", uri)
                return Published(uri, "hub", repository, tagged, tree.digest, already=True)
            commit = self._upload(api, repository, tree)
            with new_folder(self.downloads / f"check-{tree.digest[:12]}") as folder:
                self._download(repository, commit, folder)
                verify_folder(folder, tree.digest)
                check(folder)
            shutil.rmtree(self.downloads / f"check-{tree.digest[:12]}", ignore_errors=True)
            api.create_tag(repository, tag=tag, revision=commit, tag_message=f"SHA256SUMS {tree.digest}")
            _delete_branch(api, repository, _branch(tree))
            return Published(uri, "hub", repository, commit, tree.digest)

    def point(self, published: Published, alias: str) -> None:
        """See `Publisher.point`. Also shows the version's card on the repository's page (branch main)."""
        repository = published.repository
        with explained(repository):
            api = self._api()
            if _refs(api, repository, "tags").get(alias) != published.revision:
                from huggingface_hub.errors import RevisionNotFoundError

                with suppress(RevisionNotFoundError):
                    api.delete_tag(repository, tag=alias)
                api.create_tag(repository, tag=alias, revision=published.revision)
            card = api.hf_hub_download(
                repository,
                CARD,
                revision=published.revision,
                local_dir=self.downloads / published.digest[:12],
            )
            api.upload_file(
                path_or_fileobj=card,
                path_in_repo=CARD,
                repo_id=repository,
                commit_message=f"Card of {published.uri}",
            )

    def fetch(self, repository: str, revision: str) -> Path:
        """See `Publisher.fetch`; kept below `downloads`, so that a second call needs no network."""
        folder = self.downloads / revision
        with explained(repository):
            if not folder.is_dir():
                with new_folder(folder) as staging:
                    self._download(repository, revision, staging)
            from tasks.artifacts import sha256_file

            sums = folder / SUMS
            verify_folder(folder, sha256_file(sums) if sums.is_file() else "")
        return folder

    def has(self, repository: str, revision: str) -> bool:
        """Always true: only the network could tell, and the version was verified when it was tagged."""
        return True

    def _api(self) -> "HfApi":
        return api_with(hub_token())

    def _upload(self, api: "HfApi", repository: str, tree: Tree) -> str:
        """Makes the branch hold exactly the tree, in one commit at most; returns the commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        branch = _branch(tree)
        api.create_branch(repository, branch=branch, exist_ok=True)
        head = _refs(api, repository, "branches")[branch]
        there = {f for f in api.list_repo_files(repository, revision=head) if f not in HUB_FILES}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, str(path)) for name, path in tree.files.items()
        ]
        operations += [CommitOperationDelete(name) for name in sorted(there - tree.files.keys())]
        with warnings.catch_warnings():
            # evaluation tables are Parquet on purpose
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            info = api.create_commit(
                repository,
                operations,
                commit_message=f"Version {tree.digest[:12]}",
                revision=branch,
                parent_commit=head,
            )
        return str(info.oid)

    def _download(self, repository: str, commit: str, folder: Path) -> None:
        from huggingface_hub import snapshot_download

        api = self._api()
        snapshot_download(
            repository, revision=commit, local_dir=folder, token=api.token, endpoint=api.endpoint
        )
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        for name in HUB_FILES:
            (folder / name).unlink(missing_ok=True)

    def _compare(self, api: "HfApi", repository: str, commit: str, tree: Tree) -> None:
        """Compares a tagged commit with the tree by the hashes the Hub keeps; downloads nothing."""
        from huggingface_hub.hf_api import RepoFile

        found = {
            entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
            for entry in api.list_repo_tree(repository, recursive=True, revision=commit)
            if isinstance(entry, RepoFile) and entry.path not in HUB_FILES
        }
        for name in sorted(found.keys() | tree.files.keys()):
            path = tree.files.get(name)
            if path is None or found.get(name) not in (tree.sums.get(name), git_blob_id(path)):
                raise PublishError(
                    f"{repository}@{tag_name(tree.digest)}: {name} is missing, added or has other bytes",
                    "a published version never changes",
                    f"delete the tag {tag_name(tree.digest)} on the Hub and start the same command again",
                )


def git_blob_id(path: Path) -> str:
    """The git object id (SHA-1) of a file, which the Hub keeps for files that are not LFS."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _branch(tree: Tree) -> str:
    return f"publish-{tree.digest[:12]}"


def _refs(api: "HfApi", repository: str, kind: str) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in getattr(api.list_repo_refs(repository), kind)}


def _delete_branch(api: "HfApi", repository: str, branch: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.delete_branch(repository, branch=branch)
    except HfHubHTTPError as error:
        log.warning(
            "the branch %s of %s stays (%s); it does no harm", branch, repository, type(error).__name__
        )
