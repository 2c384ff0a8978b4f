"""Publishing to a folder, and to the Hub through the unmodified client and a protocol server."""

import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tasks.artifacts import write_text
from tasks.errors import ArtifactError, CapacityError, ModelError, PublishError
from tasks.release.hub import HubPublisher
from tasks.release.publish import FolderPublisher
from tasks.release.tree import build_tree, verify_folder

ROOT = Path(__file__).parents[2]


def make_tree(folder: Path, weights=b"weights " * 4096, name="malgil-asr"):
    """A repository with a large and a small file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.int8.onnx").write_bytes(weights)
    texts = {"README.md": "---\nlanguage: ko\n---\n# card\n", "evaluation/decision.json": "{}\n"}
    return build_tree(name, {"model.int8.onnx": folder / "model.int8.onnx"}, texts, folder / "work")


def loads(folder):
    assert (folder / "model.int8.onnx").stat().st_size


def does_not_load(folder):
    raise ModelError("it", "must load", "mend it")


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "source")


# --- a folder


def test_a_folder_gets_a_complete_tree_that_sha256sum_accepts(tmp_path, tree):
    publisher = FolderPublisher(tmp_path / "published")
    published = publisher.publish(tree, loads)
    folder = Path(published.uri)
    assert folder.name == tree.digest == hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not published.already
    assert publisher.publish(tree, does_not_load).already  # nothing is loaded or written again
    publisher.point(published, "staging")
    assert (folder.parents[1] / "aliases/staging").read_text().strip() == tree.digest
    assert publisher.fetch("malgil-asr", published.revision) == folder


def test_what_does_not_load_is_not_published(tmp_path, tree):
    with pytest.raises(ModelError):
        FolderPublisher(tmp_path / "published").publish(tree, does_not_load)
    assert not [p for p in (tmp_path / "published").rglob("*") if p.is_file()]


TAMPERINGS = {
    "has other bytes": lambda folder: (folder / "model.int8.onnx").write_bytes(b"x"),
    "is missing": lambda folder: (folder / "model.int8.onnx").unlink(),
    "does not belong": lambda folder: (folder / "more.txt").write_text("x"),
    "lists another version": lambda folder: (folder / "SHA256SUMS").write_text("x"),
}


@pytest.mark.parametrize("says", TAMPERINGS)
def test_a_version_with_other_bytes_is_refused(tmp_path, tree, says):
    publisher = FolderPublisher(tmp_path / "published")
    published = publisher.publish(tree, loads)
    TAMPERINGS[says](Path(published.uri))
    with pytest.raises(PublishError, match=says):
        publisher.publish(tree, loads)
    with pytest.raises(PublishError, match=says):
        publisher.fetch("malgil-asr", published.revision)


def test_a_source_that_changes_while_it_is_published_is_caught(tmp_path, tree):
    tree.files["model.int8.onnx"].write_bytes(b"changed after hashing")
    with pytest.raises(PublishError, match="other bytes"):
        FolderPublisher(tmp_path / "published").publish(tree, loads)
    assert not (tmp_path / "published/malgil-asr/versions" / tree.digest).exists()


def test_a_half_written_leftover_is_cleaned_up(tmp_path, tree):
    versions = tmp_path / "published/malgil-asr/versions"
    write_text(versions / f".{tree.digest}.abc.part/model.int8.onnx", "half")
    write_text(versions / ".0000.old.part/model.int8.onnx", "half of another")
    os.utime(versions / ".0000.old.part", (0, 0))
    FolderPublisher(tmp_path / "published").publish(tree, loads)
    assert [p.name for p in versions.iterdir()] == [tree.digest]


def test_killed_while_publishing_and_started_again(tmp_path, tree):
    """SIGKILL while the tree is loaded, before it has its name."""
    script = f"""
        import os, signal
        from pathlib import Path
        from tasks.release.publish import FolderPublisher
        from tests.release.test_publish import make_tree
        tree = make_tree(Path({str(tmp_path / "source")!r}))
        FolderPublisher(Path({str(tmp_path / "published")!r})).publish(
            tree, lambda folder: os.kill(os.getpid(), signal.SIGKILL))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    versions = tmp_path / "published/malgil-asr/versions"
    assert not (versions / tree.digest).exists() and list(versions.iterdir())
    published = FolderPublisher(tmp_path / "published").publish(tree, loads)
    assert not published.already and [p.name for p in versions.iterdir()] == [tree.digest]


def test_a_full_disk_leaves_earlier_versions_as_they_were(tmp_path, tree, monkeypatch):
    publisher = FolderPublisher(tmp_path / "published")
    first = publisher.publish(tree, loads)
    bigger = make_tree(tmp_path / "bigger", b"y" * 200_000)

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(CapacityError, match=r"no space left .* the disk"):
        publisher.publish(bigger, loads)
    verify_folder(Path(first.uri), tree.digest)
    assert len(list(Path(first.uri).parent.iterdir())) == 1


def test_a_file_size_limit_stops_publishing_for_real(tmp_path, tree):
    """RLIMIT_FSIZE: the kernel itself refuses the write (EFBIG), as a quota would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ArtifactError, match=r"model\.int8\.onnx"):
            FolderPublisher(tmp_path / "published").publish(tree, loads)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert not (tmp_path / "published/malgil-asr/versions" / tree.digest).exists()


@pytest.mark.parametrize("where", ["file", "proc"])
def test_a_folder_that_cannot_be_written_says_so(tmp_path, tree, where):
    """Tests run as root, whom permissions do not stop: below a file, and in /proc, nobody can write."""
    (tmp_path / "file").write_text("a file, not a folder")
    root = tmp_path / "file/published" if where == "file" else Path("/proc/malgil")
    with pytest.raises((CapacityError, ArtifactError)) as caught:
        FolderPublisher(root).publish(tree, loads)
    assert str(root.name) in str(caught.value) and "Next:" in str(caught.value)


# --- the Hub


@pytest.fixture
def publisher(tmp_path):
    return HubPublisher("malgil", private=True, downloads=tmp_path / "downloads")


def test_the_hub_gets_a_branch_a_check_a_tag_and_an_alias(hub, publisher, tree, tmp_path):
    seen = []
    published = publisher.publish(tree, lambda folder: seen.append((folder / "model.int8.onnx").read_bytes()))
    repo = hub.repos["malgil/malgil-asr"]
    assert seen == [tree.files["model.int8.onnx"].read_bytes()]
    assert repo.private and repo.tags == {f"v-{tree.digest[:12]}": published.revision}
    assert set(repo.branches) == {"main"}  # its own branch is gone, its commit stays by the tag
    assert published.uri == f"malgil/malgil-asr@v-{tree.digest[:12]}"
    publisher.point(published, "staging")
    assert repo.tags["staging"] == published.revision
    assert repo.commits[repo.branches["main"]]["README.md"][0].startswith(b"---\nlanguage: ko")
    verify_folder(publisher.fetch("malgil/malgil-asr", published.revision), tree.digest)


def test_publishing_again_makes_no_commit_and_a_new_version_moves_the_alias(hub, publisher, tree, tmp_path):
    first = publisher.publish(tree, loads)
    publisher.point(first, "staging")
    commits = hub.commits("malgil/malgil-asr")
    again = publisher.publish(tree, does_not_load)
    publisher.point(again, "staging")
    assert again.already and again.revision == first.revision
    assert hub.commits("malgil/malgil-asr") == commits
    second = publisher.publish(make_tree(tmp_path / "other", b"other " * 9000), loads)
    publisher.point(second, "staging")
    repo = hub.repos["malgil/malgil-asr"]
    assert repo.tags["staging"] == second.revision != first.revision
    assert first.revision in repo.tags.values()


def test_killed_between_upload_and_tag_and_started_again(hub, publisher, tree):
    class Killed(BaseException):
        pass

    def die(folder):
        raise Killed

    with pytest.raises(Killed):
        publisher.publish(tree, die)
    repo = hub.repos["malgil/malgil-asr"]
    assert not repo.tags and hub.commits("malgil/malgil-asr") == 1
    published = publisher.publish(tree, loads)
    assert repo.tags == {f"v-{tree.digest[:12]}": published.revision}
    assert hub.commits("malgil/malgil-asr") == 1  # the upload was found and gone on with


def test_the_whole_of_it_in_a_process_of_its_own_killed_by_sigkill(hub, tree, tmp_path):
    """As `malgil run` does it: environment set before the client is imported, SIGKILL before the tag."""
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from tasks.release.hub import HubPublisher
        from tests.release.test_publish import make_tree
        tree = make_tree(Path({str(tmp_path / "source")!r}))
        check = (lambda f: os.kill(os.getpid(), signal.SIGKILL)) if sys.argv[1] == "die" else (lambda f: None)
        print(HubPublisher("malgil", private=True, downloads=Path({str(tmp_path / "d")!r})).publish(tree, check).uri)
    """
    command = [sys.executable, "-W", "error::UserWarning:huggingface_hub", "-c", textwrap.dedent(script)]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    killed = subprocess.run([*command, "die"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL and not hub.repos["malgil/malgil-asr"].tags
    done = subprocess.run([*command, "live"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == f"malgil/malgil-asr@v-{tree.digest[:12]}", done.stderr
    assert hub.commits("malgil/malgil-asr") == 1
    assert "hf_writer" not in done.stdout + done.stderr


def test_bytes_that_changed_on_the_hub_are_found_before_the_tag(hub, publisher, tree):
    class Corrupting(dict):
        def __getitem__(self, oid):
            return b"X" + super().__getitem__(oid)[1:]  # the same size, so that only a hash can tell

    hub.objects = Corrupting()
    try:
        with pytest.raises(PublishError, match=r"model\.int8\.onnx has other bytes"):
            publisher.publish(tree, loads)
    finally:
        hub.objects = {}
    assert not hub.repos["malgil/malgil-asr"].tags


def test_a_tag_that_holds_other_bytes_is_refused(hub, publisher, tree):
    published = publisher.publish(tree, loads)
    repo = hub.repos["malgil/malgil-asr"]
    files = dict(repo.commits[published.revision])
    files["evaluation/decision.json"] = (b"{} ", False)
    repo.commits[published.revision] = files
    with pytest.raises(PublishError, match=r"decision\.json is missing, added or has other bytes"):
        publisher.publish(tree, loads)


FAULTS = {
    403: ("POST /api/models/malgil/malgil-asr/commit", "answered 403.*may not write there"),
    409: ("POST /api/models/malgil/malgil-asr/tag", "answered 409.*something else is there"),
    412: ("POST /api/models/malgil/malgil-asr/commit", "answered 412.*somebody else committed"),
    500: ("POST /api/repos/create", "answered 500.*trouble of its own.*start the same command again later"),
}


@pytest.mark.parametrize("status", FAULTS)
def test_what_the_hub_refuses_is_said_clearly(hub, publisher, tree, status):
    part, says = FAULTS[status]
    hub.faults[part] = status
    with pytest.raises(PublishError, match=f"(?s){says}") as caught:
        publisher.publish(tree, loads)
    assert "hf_writer" not in str(caught.value)
    hub.faults.clear()
    assert publisher.publish(tree, loads).revision  # nothing in the way of the next run


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("hf_wrong", "answered 401.*not known to the Hub.*export HF_TOKEN"),
        ("hf_reader", "answered 403.*may not write"),
        ("", "HF_TOKEN is not set"),
    ],
)
def test_a_bad_token_is_said_clearly_and_never_shown(hub, publisher, tree, monkeypatch, token, says):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PublishError, match=f"(?s){says}") as caught:
        publisher.publish(tree, loads)
    assert not token or token not in str(caught.value)


def test_no_network_is_said_clearly(hub, publisher, tree, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match="cannot be reached"):
        publisher.publish(tree, loads)
