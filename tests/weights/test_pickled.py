"""pytorch_model.bin: converted once in a child process, with both digests; anything else pickled is refused."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Wav2Vec2ForPreTraining

from tasks.artifacts import read_json, sha256_file
from tasks.asr import provenance
from tasks.asr.checkpoints.checkpoint import Vocabulary, load_checkpoint, load_encoder
from tasks.asr.embedding.encoder import load_encoder_layers
from tasks.asr.engines.torch_model import TorchRecogniser
from tasks.errors import CapacityError, ModelError
from tasks.inference.loading import load_model
from tasks.llm.base import build
from tasks.settings import BaseLlm
from tasks.weights import pickled
from tasks.weights.pickled import cache, weights_of, with_safetensors
from tests import tiny_llm
from tests.asr.test_model_types import clips
from tests.asr.tiny_models import foreign_checkpoint, tiny_model
from tests.hub_server import Hub, Repo, files_of, redirect, start

ROOT = Path(__file__).parents[2]
JAMO = Vocabulary.of_jamo()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_checkpoint(tmp_path_factory.mktemp("checkpoint") / "whole")


@pytest.fixture
def pickled_folder(whole: Path, tmp_path: Path) -> Path:
    """`whole` as it was saved years ago: one pickled file, the convolution's weight norm by its old names."""
    folder = Path(shutil.copytree(whole, tmp_path / "theirs"))
    torch.save(old_names(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def old_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        weights = {name.replace(new, old): value for name, value in weights.items()}
    return weights


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_checkpoint_that_holds_only_a_pickled_file_is_used_as_named(
    whole: Path, pickled_folder: Path
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in pickled_folder.iterdir()}
    assert any(name.endswith("weight_g") for name in torch.load(pickled_folder / "pytorch_model.bin"))
    assert same(load_checkpoint(pickled_folder).model.state_dict(), load_checkpoint(whole).model.state_dict())
    assert same(
        load_encoder(str(pickled_folder), JAMO, 1).state_dict(),
        load_encoder(str(whole), JAMO, 1).state_dict(),
    )
    audio = clips()
    assert TorchRecogniser(pickled_folder).transcribe(audio) == TorchRecogniser(whole).transcribe(audio)
    assert load_encoder_layers(pickled_folder, None).hidden == load_encoder_layers(whole, None).hidden
    after = {path.name: path.stat().st_mtime_ns for path in pickled_folder.iterdir()}
    assert after == before, "the folder is somebody else's"


def test_both_digests_are_recorded_where_the_conversion_lies_and_with_what_is_made_of_it(
    pickled_folder: Path,
) -> None:
    converted = with_safetensors(pickled_folder)
    digests = {
        "file": "pytorch_model.bin",
        "sha256": sha256_file(pickled_folder / "pytorch_model.bin"),
        "converted_sha256": sha256_file(converted / "model.safetensors"),
    }
    assert weights_of(converted) == digests
    assert provenance.checkpoint(str(pickled_folder)) == {"name": "theirs", **digests}
    record = read_json(cache() / digests["sha256"] / "conversion.json")
    assert record.items() >= digests.items()


def test_it_is_converted_once_and_again_when_the_copy_is_damaged(
    pickled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Path] = []
    inner = pickled._run_child

    def counted(source: Path, target: Path) -> None:
        runs.append(source)
        inner(source, target)

    monkeypatch.setattr(pickled, "_run_child", counted)
    first = with_safetensors(pickled_folder)
    assert with_safetensors(pickled_folder) == first and len(runs) == 1
    weights = (first / "model.safetensors").resolve()
    content = weights.read_bytes()
    weights.write_bytes(content[:-8])
    assert (with_safetensors(pickled_folder) / "model.safetensors").read_bytes() == content
    assert len(runs) == 2


def test_two_processes_that_start_at_once_get_the_same_whole_file(pickled_folder: Path, home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tasks.weights.pickled import with_safetensors;"
        "print(with_safetensors(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(pickled_folder)]
    environment = {**os.environ, "HF_HOME": str(home)}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(found) == 1
    assert load_file(Path(found.pop()) / "model.safetensors")
    assert not list(cache().rglob("*.part"))


def test_what_is_changed_in_the_folder_afterwards_counts(pickled_folder: Path) -> None:
    """Its other files are looked at where they are, not as they were."""
    assert load_checkpoint(pickled_folder).normalise
    inputs = pickled_folder / "preprocessor_config.json"
    inputs.write_text(json.dumps(json.loads(inputs.read_text("utf-8")) | {"do_normalize": False}))
    assert not load_checkpoint(pickled_folder).normalise
    (pickled_folder / "vocab.json").unlink()
    with pytest.raises(ModelError, match=r"no vocab\.json"):
        load_checkpoint(pickled_folder)


class Attack:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def archive(path: Path, compressed: bool = True) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as made:
        made.writestr("archive/data.pkl", pickle.dumps({}))
        made.writestr("archive/data/0", b"\0" * 50_000_000)


def legacy(path: Path) -> None:
    torch.save(
        {"a": torch.ones(3), "b": Attack(path.with_name("run"))}, path, _use_new_zipfile_serialization=False
    )


def expanded(path: Path) -> None:
    torch.save({"a": torch.ones(1).expand(10**9, 10**3)}, path)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an attack": (lambda p: torch.save({"a": Attack(p.with_name("run"))}, p), r"asks for (posix|nt)\.system"),
    "an attack, old format": (legacy, r"asks for (posix|nt)\.system"),
    "an attack, bare pickle": (
        lambda p: p.write_bytes(pickle.dumps(Attack(p.with_name("run")), 2)),
        r"\.system|cut off",
    ),
    "a training's checkpoint": (
        lambda p: torch.save({"model": {"a": torch.ones(1)}, "epoch": 3}, p),
        "holds 'model', 'epoch' and not tensors",
    ),
    "a list": (lambda p: torch.save([torch.ones(1)], p), "holds a list"),
    "nothing": (lambda p: torch.save({}, p), "holds nothing"),
    "sparse": (lambda p: torch.save({"a": torch.eye(3).to_sparse()}, p), "a, which is sparse"),
    "a compressed bomb": (archive, r"compressed records \('archive/data.pkl'\)"),
    "a tensor of 4 TB": (expanded, "tensors of 4000000000000 bytes"),
    "a placeholder": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1269\n"),
        "placeholder of Git LFS.*git lfs pull",
    ),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "text": (lambda p: p.write_text("<html>not found</html>"), "cut off or no file of torch"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-3000]), "cut off or no file of torch"),
}


@pytest.mark.parametrize("kind", BAD)
def test_anything_else_that_is_pickled_is_refused_by_name(kind: str, pickled_folder: Path) -> None:
    spoil, says = BAD[kind]
    spoil(pickled_folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=says) as caught:
        load_checkpoint(pickled_folder)
    assert "pytorch_model.bin" in caught.value.what
    assert not (pickled_folder / "run").exists(), "the file ran a command"
    assert not [path for path in cache().rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_file_that_takes_too_much_memory_ends_in_the_child(
    pickled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pickled_folder / "pytorch_model.bin"
    torch.save({"a": torch.zeros(30_000_000)}, path, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(pickled, "_MORE_BYTES", -2 * path.stat().st_size)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin asks for more memory|ended the process"):
        with_safetensors(pickled_folder)


def test_a_file_that_is_cut_off_and_the_advice_works(whole: Path, pickled_folder: Path) -> None:
    path = pickled_folder / "pytorch_model.bin"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cut off") as caught:
        load_checkpoint(pickled_folder)
    assert "fetch it again" in caught.value.next_step
    path.write_bytes(content)
    assert same(load_checkpoint(pickled_folder).model.state_dict(), load_checkpoint(whole).model.state_dict())


def test_a_cache_that_cannot_be_written_and_the_advice_works(
    pickled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "file"))
    with pytest.raises(CapacityError, match="HF_HOME"):
        with_safetensors(pickled_folder)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "elsewhere"))
    assert (with_safetensors(pickled_folder) / "model.safetensors").is_file()


def test_a_pre_training_has_known_extras_and_other_tensors_are_refused(whole: Path, tmp_path: Path) -> None:
    """XLSR-53 was saved with the quantiser and the projections of its pre-training."""
    folder = Path(shutil.copytree(whole, tmp_path / "pretrained"))
    config = tiny_model("wav2vec2").config
    config.update(
        {
            "codevector_dim": 16,
            "proj_codevector_dim": 16,
            "num_codevectors_per_group": 8,
            "mask_time_prob": 0.05,
        }
    )
    weights = old_names(Wav2Vec2ForPreTraining(config).state_dict())
    assert {"quantizer.codevectors", "project_q.weight", "project_hid.bias"} <= weights.keys()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    config.save_pretrained(folder)
    tuned = load_encoder(str(folder), JAMO, seed=0).state_dict()
    name = "wav2vec2.encoder.layers.1.attention.q_proj.weight"
    assert torch.equal(tuned[name], weights[name])
    with pytest.raises(ModelError, match="no CTC head"):
        load_checkpoint(folder)
    torch.save(
        {**weights, "wav2vec2.encoder.layers.9.attention.q_proj.weight": weights[name]},
        folder / "pytorch_model.bin",
    )
    with pytest.raises(ModelError, match=r"1 is unexpected \(wav2vec2\.encoder\.layers\.9\.attention"):
        load_encoder(str(folder), JAMO, seed=0)


def test_shards_of_a_pickled_language_model_are_converted_with_its_tied_layer(tmp_path: Path) -> None:
    source = tiny_llm.write_model(tmp_path / "source")
    expected = load_model(source).state_dict()
    folder = Path(shutil.copytree(source, tmp_path / "shards"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]  # one storage under two names
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"pytorch_model-00001-of-00002.bin": names[:8], "pytorch_model-00002-of-00002.bin": names[8:]}
    for file, kept in parts.items():
        torch.save({name: weights[name] for name in kept}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, kept in parts.items() for name in kept}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert same(load_model(folder).state_dict(), expected)
    build(BaseLlm(model=str(folder)), pin=tmp_path, wheels=tmp_path, out_dir=tmp_path / "base")
    assert read_json(tmp_path / "base/malgil.json")["weights"]["file"] == "pytorch_model.bin.index.json"
    assert same(load_model(tmp_path / "base").state_dict(), expected)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ModelError, match=r"00002-of-00002\.bin"):
        load_model(folder)


def test_of_a_hub_repository_the_pickled_file_is_taken_only_where_there_is_no_other(
    whole: Path, pickled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    old, llm = tiny_llm.write_model(tmp_path / "llm"), Repo()
    AutoModelForCausalLM.from_pretrained(old).state_dict()
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    expected = load_model(old).state_dict()
    (old / "model.safetensors").unlink()
    for name, folder in (("team/old", pickled_folder), ("team/llm", old)):
        hub.repos[name] = repo = llm if name == "team/llm" else Repo()
        repo.branches["main"] = repo.commit(files_of(folder), "")
    both = {**files_of(whole), "pytorch_model.bin": (b"never fetched", False)}
    hub.repos["team/new"] = new = Repo()
    new.branches["main"] = new.commit(both, "")
    server, address = start(hub)
    redirect(monkeypatch, address, tmp_path / "cache")
    try:
        assert load_checkpoint("team/new").vocabulary == load_checkpoint("team/old").vocabulary
        fetched = [line for line in hub.log if line.startswith("GET") and "/resolve/" in line]
        assert not [line for line in fetched if "team/new" in line and "pytorch_model" in line]
        assert [line for line in fetched if "team/old" in line and "pytorch_model" in line]
        build(BaseLlm(model="team/llm"), pin=tmp_path, wheels=tmp_path, out_dir=tmp_path / "base")
    finally:
        server.should_exit = True
    assert same(load_checkpoint("team/old").model.state_dict(), load_checkpoint(whole).model.state_dict())
    assert same(load_model(tmp_path / "base").state_dict(), expected)
    assert read_json(tmp_path / "base/malgil.json")["weights"]["sha256"] == sha256_file(
        old / "pytorch_model.bin"
    )


def test_one_digest_names_one_conversion(pickled_folder: Path, tmp_path: Path) -> None:
    """Two folders with the same weights share it; one with others does not."""
    other = Path(shutil.copytree(pickled_folder, tmp_path / "again"))
    folders = [with_safetensors(folder) for folder in (pickled_folder, other)]
    assert len({(folder / "model.safetensors").resolve() for folder in folders}) == 1
    assert [(folder / "config.json").resolve().parent.name for folder in folders] == ["theirs", "again"]
    weights = {name: value + 1 for name, value in torch.load(other / "pytorch_model.bin").items()}
    torch.save(weights, other / "pytorch_model.bin")
    assert same(old_names(load_file(with_safetensors(other) / "model.safetensors")), weights)
    save_file(weights, other / "model.safetensors")
    assert with_safetensors(other) == other
