"""`--model` of transcribe, stream and embed: a folder, or a Hub id; what cannot be had is named with what to do."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from tasks.artifacts import sha256_file
from tasks.asr.checkpoints.checkpoint import load_checkpoint
from tasks.asr.engines.named import find_model
from tasks.errors import MalgilError, ModelError
from tests.hub_server import LFS_SUFFIXES, Hub, Repo, redirect, start

VERSION = "team/malgil-asr"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Hub, str]]:
    state = Hub()
    running, address = start(state)
    yield state, address
    running.should_exit = True


def below(folder: Path, prefix: str = "") -> dict[str, tuple[bytes, bool]]:
    """The files of a folder as the content of a commit."""
    return {
        f"{prefix}{path.relative_to(folder).as_posix()}": (path.read_bytes(), path.suffix in LFS_SUFFIXES)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def hub(
    server: tuple[Hub, str],
    shipped: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Hub:
    """A published version (ONNX file above, checkpoint below), a checkpoint alone, and an empty cache."""
    state, address = server
    version = Repo(private=True)
    content = {**below(shipped), **below(checkpoint, "checkpoint/"), "README.md": (b"card", False)}
    version.branches["main"] = version.commit({"README.md": (b"card", False)}, "")
    version.tags["v-1"] = version.commit(content, version.branches["main"])
    alone = Repo()
    alone.branches["main"] = alone.commit(below(checkpoint), "")
    whisper = Repo()
    whisper.branches["main"] = whisper.commit(
        {"config.json": (b'{"model_type": "whisper"}', False), "model.safetensors": (b"0" * 99, True)}, ""
    )
    state.repos |= {VERSION: version, "team/alone": alone, "team/whisper": whisper}
    state.log.clear()
    state.faults.clear()
    redirect(monkeypatch, address, tmp_path / "cache")
    return state


def fetched(hub: Hub) -> set[str]:
    return {line.partition("/resolve/")[2].partition("/")[2] for line in hub.log if "/resolve/" in line}


def malgil(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["asr", *map(str, arguments)])


def test_a_published_version_transcribes_by_its_onnx_file_and_streams_by_its_checkpoint(
    hub: Hub, shipped: Path, checkpoint: Path, noises: list[Path]
) -> None:
    commit = hub.repos[VERSION].tags["v-1"]
    here = json.loads(malgil("transcribe", noises[1], "--model", shipped, "--format", "json").stdout)[0]
    ended = malgil("transcribe", noises[1], "--model", f"{VERSION}@v-1", "--format", "json")
    (there,) = json.loads(ended.stdout)
    assert there == {**here, "model": f"{VERSION}@{commit}"} and there["text"]
    assert there["model_sha256"] == sha256_file(shipped / "model.int8.onnx")
    assert not any(name.endswith(".safetensors") for name in fetched(hub)), "the ONNX file was enough"
    hub.log.clear()
    spoken = malgil("stream", noises[1], "--model", f"{VERSION}@v-1", "--json").stdout.splitlines()
    local = malgil("stream", noises[1], "--model", checkpoint, "--json").stdout.splitlines()
    last, own = json.loads(spoken[-1]), json.loads(local[-1])
    assert (last["text"], last["model"]) == (own["text"], f"{VERSION}@{commit}") and last["text"]
    assert spoken[:-1] == local[:-1]
    assert "checkpoint/model.safetensors" in fetched(hub)


def test_a_checkpoint_alone_serves_all_three_commands_and_its_commit_is_said(
    hub: Hub, checkpoint: Path, noises: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("tasks.asr.engines.named.log.info", lambda line, *rest: said.append(line % rest))
    named = f"team/alone@{hub.repos['team/alone'].branches['main']}"
    theirs = malgil("transcribe", noises[1], "--model", "team/alone")
    assert theirs.stdout == malgil("transcribe", noises[1], "--model", checkpoint).stdout != "\n"
    assert said == [f"model {named}"]
    assert malgil("stream", noises[1], "--model", "team/alone").exit_code == 0
    vectors = []
    for number, model in enumerate(("team/alone", checkpoint)):
        out = tmp_path / f"{number}.parquet"
        assert malgil("embed", noises[1], "--model", model, "--out", out).exit_code == 0
        vectors.append(np.stack(pq.read_table(out)["vector"].to_pylist()))
    assert np.array_equal(*vectors)


def test_a_local_published_version_embeds_by_its_checkpoint(
    shipped: Path, checkpoint: Path, noises: list[Path], tmp_path: Path
) -> None:
    version = Path(shutil.copytree(shipped, tmp_path / "version"))
    shutil.copytree(checkpoint, version / "checkpoint")
    ended = malgil("embed", noises[1], "--model", version, "--out", tmp_path / "a.parquet")
    assert ended.exit_code == 0, ended.stderr


def test_without_a_network_the_cache_serves_and_what_is_not_in_it_is_said(
    hub: Hub, noises: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = malgil("transcribe", noises[1], "--model", "team/alone")
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")  # nobody answers there
    again = malgil("transcribe", noises[1], "--model", "team/alone")
    assert (again.exit_code, again.stdout) == (0, before.stdout)
    with pytest.raises(ModelError, match="not whole in the Hub's cache") as caught:
        find_model("team/other")
    assert "network" in caught.value.next_step


def test_a_download_that_was_cut_off_is_not_taken_for_a_model_and_the_advice_works(
    hub: Hub, noises: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Hub, str]
) -> None:
    hub.faults["model.safetensors"] = 403  # what is not tried again for a minute
    assert malgil("transcribe", noises[1], "--model", "team/alone").exit_code != 0
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with pytest.raises(MalgilError):
        find_model("team/alone")
    hub.faults.clear()
    redirect(monkeypatch, server[1], tmp_path / "cache")
    assert malgil("transcribe", noises[1], "--model", "team/alone").exit_code == 0


def test_a_model_that_the_token_may_not_read_is_said_and_the_advice_works(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModelError, match="HF_TOKEN is not set") as caught:
        find_model(f"{VERSION}@v-1")
    assert "export HF_TOKEN=" in caught.value.next_step
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(ModelError, match="HF_TOKEN may not read it"):
        find_model(f"{VERSION}@v-1")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert find_model(f"{VERSION}@v-1").backend == "onnx"


@pytest.mark.parametrize(
    ("name", "backend", "says", "next_step"),
    [
        ("team/nobody", None, "no model of the Hub either", "correct the name"),
        ("team/alone@v9", None, "has no revision 'v9'", "name team/alone"),
        ("team/whisper", None, "type 'whisper'", "choose a checkpoint"),
        ("team/alone", "onnx", "holds no recogniser for onnx", "name its folder or Hub id"),
        (VERSION, None, "holds no recogniser", "name its folder or Hub id"),
        ("team/a b", None, "neither a folder here nor a Hub id", "name it org/name"),
        ("nowhere", None, "nowhere does not exist", "correct --model"),
        ("/no/where", None, "/no/where does not exist", "correct --model"),
        ("team/alone@", None, "does not exist", "correct --model"),
    ],
)
def test_what_is_no_model_is_named(
    hub: Hub, name: str, backend: str | None, says: str, next_step: str
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        find_model(name, backend)
    assert next_step in caught.value.next_step
    assert not [line for line in hub.log if "/resolve/" in line and "safetensors" in line]


def test_a_revision_that_is_mended_as_advised_is_found(hub: Hub) -> None:
    with pytest.raises(ModelError) as caught:
        find_model("team/alone@v9")
    advised = caught.value.next_step.split(", or name ")[1].split()[0]
    assert find_model(advised).name.startswith("team/alone@")


def test_a_folder_wins_over_the_hub_and_it_is_said_where_both_are_there(
    hub: Hub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_model("team/alone")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint, tmp_path / "team/alone")
    said: list[str] = []
    monkeypatch.setattr("tasks.asr.engines.named.log.info", lambda line, *rest: said.append(line % rest))
    hub.log.clear()
    found = find_model("team/alone")
    assert found.folder == Path("team/alone") and not hub.log
    (line,) = said
    other = line.rpartition(" ")[2]
    assert find_model(other).name == f"team/alone@{hub.repos['team/alone'].branches['main']}"


def test_a_file_is_no_model(tmp_path: Path, noises: list[Path]) -> None:
    with pytest.raises(ModelError, match=r"0\.wav is a file"):
        find_model(str(noises[0]))


def test_weights_in_shards_transcribe_and_embed(checkpoint: Path, noises: list[Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "shards"))
    (folder / "model.safetensors").unlink()
    load_checkpoint(checkpoint).model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    whole, parts = (malgil("transcribe", noises[1], "--model", model) for model in (checkpoint, folder))
    assert (parts.exit_code, parts.stdout) == (0, whole.stdout)
    ended = malgil("embed", noises[1], "--model", folder, "--out", tmp_path / "a.parquet")
    assert ended.exit_code == 0, ended.exception
