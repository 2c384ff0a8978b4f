"""A base model with one fault each: the check names it before a run, the stage refuses it in the same words."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from tasks.errors import MalgilError
from tasks.gguf.convert import convert
from tasks.llm.base import build
from tasks.llm.lora import add_lora
from tasks.preflight.weights import beyond_f16, whole_headers
from tasks.settings import BaseLlm, ConvertLlm
from tests import tiny_llm
from tests.gguf.test_convertible import FAULTS, edit
from tests.hub_server import Hub, Repo, files_of, redirect, start

GOOD = ("base_llm.model=base", "train_llm.initial=''", "train_llm.blocks=0")


@pytest.fixture
def base(project: Path) -> Path:
    return tiny_llm.write_model(project / "base")


def template(text: str) -> Callable[[Path], None]:
    """Another chat template."""
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None


def words(**changes: Any) -> Callable[[Path], None]:
    """Changes tokenizer_config.json."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    words(chat_template=None)(folder)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


def named_templates(folder: Path) -> None:
    no_template(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("{{ tools }}")


STAGE_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "system refused": (
        template("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"),
        "refuses a system message and a question (no system)",
    ),
    "question alone refused": (
        template(
            "{% if messages[0].role != 'system' %}{{ raise_exception('begin with system') }}{% endif %}"
            + tiny_llm.TEMPLATE
        ),
        "refuses a question alone (begin with system)",
    ),
    "broken template": (template("{% for message in messages %}"), "the chat template of base refuses"),
    "no generation of what is asked": (template("hello"), "drops the question"),
    "needs the clock": (
        template("{{ strftime_now('%Y') }}" + tiny_llm.TEMPLATE),
        "needs more than a server has",
    ),
    "another end": (
        template(tiny_llm.TEMPLATE.replace("<|im_end|>", "<|endoftext|>")),
        "ends an answer with '<|endoftext|>'",
    ),
    "no template": (no_template, "needs a chat template and an eos_token"),
    "no end token": (words(eos_token=None), "needs a chat template and an eos_token"),
    "no default among named templates": (named_templates, "named default"),
    "cut off": (cut, "cannot be loaded"),
}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "another family"])
def test_what_the_converter_refuses_is_known_before_in_the_same_words(
    fault: str, base: Path, refused: Any, tmp_path: Path
) -> None:
    FAULTS[fault][0](base)
    with pytest.raises(MalgilError) as caught:
        convert(ConvertLlm(name="tiny"), merged=base, gguf_f16=tmp_path / "out")
    said = refused(*GOOD, line="llm")
    assert caught.value.what in said and caught.value.rule in said and caught.value.next_step in said
    shutil.rmtree(base)
    tiny_llm.write_model(base)
    assert refused(*GOOD, line="llm") == "", "the advice works: another base model"


@pytest.mark.parametrize("fault", STAGE_FAULTS)
def test_what_the_stage_of_the_base_model_refuses_is_known_before(
    fault: str, base: Path, refused: Any, tmp_path: Path
) -> None:
    change, says = STAGE_FAULTS[fault]
    change(base)
    with pytest.raises(MalgilError) as caught:
        build(BaseLlm(model="base"), pin=tmp_path, wheels=tmp_path, out_dir=tmp_path / "out")
    said = refused(*GOOD, line="llm")
    assert says in said and "Next:" in said
    if fault not in ("cut off",):  # transformers and our headers say that in words of their own
        assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_family_that_nobody_knows_is_one_fault(base: Path, refused: Any) -> None:
    FAULTS["another family"][0](base)
    assert refused(*GOOD, line="llm").count("Next:") == 1
    assert "no profile for it; known: llama" in refused(*GOOD, line="llm")


def test_a_config_of_words_for_numbers_is_one_fault_and_nothing_unlooked_at(
    base: Path, checked: Any, refused: Any
) -> None:
    config = json.loads((base / "config.json").read_text())
    for value in ("2", None, True, 1.5):
        (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": value}))
        said = refused(*GOOD, line="llm")
        assert said.count("Next:") == 1 and "base cannot be loaded" in said
        assert not [one for one in checked(*GOOD, line="llm") if "could not be looked at" in one.what]


def test_values_beyond_float16_are_known_before_merging(base: Path, refused: Any) -> None:
    weights = load_file(base / "model.safetensors")
    for dtype in (torch.bfloat16, torch.float32):
        changed = {name: tensor.to(dtype) for name, tensor in weights.items()}
        changed["model.layers.0.mlp.up_proj.weight"][3, 5] = -70_000.0
        save_file(changed, base / "model.safetensors", {"format": "pt"})
        assert "'model.layers.0.mlp.up_proj.weight', hold values beyond float16" in refused(*GOOD, line="llm")
        changed["model.layers.0.mlp.up_proj.weight"][3, 5] = -65_280.0  # the largest that bfloat16 shares
        save_file(changed, base / "model.safetensors", {"format": "pt"})
        assert refused(*GOOD, line="llm") == ""


def test_two_output_layers_are_known_before_and_the_advice_works(base: Path, refused: Any) -> None:
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    assert refused(*GOOD, line="llm") == "", "a copy of the embedding"
    weights["lm_head.weight"] += 1
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    said = refused(*GOOD, line="llm")
    assert "config.json ties them" in said and "set tie_word_embeddings to false" in said
    edit("tie_word_embeddings", False)(base)
    assert refused(*GOOD, line="llm") == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "value", [65519.0, 65520.0, 65536.0, float("inf"), float("nan"), 1e-8, -65520.0, -0.0]
)
def test_beyond_f16_says_what_torch_says(dtype: torch.dtype, value: float, tmp_path: Path) -> None:
    tensor = torch.tensor([0.5, value], dtype=torch.float32).to(dtype)
    save_file({"a": tensor}, tmp_path / "model.safetensors")
    wrong, share = beyond_f16(tmp_path, 10.0)
    assert (wrong, share) == ([] if torch.isfinite(tensor.to(torch.float16)).all() else ["a"], 1.0)


def test_a_model_of_several_files_lacks_one(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    names = list(weights)
    (base / "model.safetensors").unlink()
    save_file({name: weights[name] for name in names[:3]}, base / "a.safetensors")
    index = {
        "weight_map": {name: "a.safetensors" if n < 3 else "b.safetensors" for n, name in enumerate(names)}
    }
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MalgilError, match=r"names 1 shard that is not there \(b\.safetensors\)"):
        whole_headers(base)


def test_a_model_of_the_hub_is_known_before_it_is_fetched(
    base: Path, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    for name, change in {"good": lambda _: None, "bad": FAULTS["soft cap"][0], "pickled": pickled}.items():
        folder = shutil.copytree(base, tmp_path / name)
        change(folder)
        repo = hub.repos[f"team/{name}"] = Repo()
        repo.branches["main"] = repo.commit(files_of(folder), "")
    server, address = start(hub)
    redirect(monkeypatch, address, tmp_path / "cache")
    monkeypatch.setenv("HF_ENDPOINT", address)
    try:
        assert refused("base_llm.model=team/good", *GOOD[1:], line="llm") == ""
        assert "final_logit_softcapping" in refused("base_llm.model=team/bad", *GOOD[1:], line="llm")
        assert refused("base_llm.model=team/pickled", *GOOD[1:], line="llm") == "", "it is converted once"
        assert "team/none cannot be loaded" in refused("base_llm.model=team/none", *GOOD[1:], line="llm")
    finally:
        server.should_exit = True
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "weights are for the stage to fetch"


def test_pickled_weights_are_converted_before_the_run_or_refused(base: Path, refused: Any) -> None:
    pickled(base)
    assert refused(*GOOD, line="llm") == ""
    torch.save({"model.norm.weight": Path("a")}, base / "pytorch_model.bin")
    said = refused(*GOOD, line="llm")
    assert "pytorch_model.bin asks for pathlib" in said and "name a checkpoint with safetensors" in said
    shutil.rmtree(base)
    tiny_llm.write_model(base)
    assert refused(*GOOD, line="llm") == ""


def test_only_the_weights_that_are_loaded_count(base: Path, refused: Any) -> None:
    """Other safetensors may lie beside them; shards without their index are none."""
    save_file({"tok_embeddings.weight": torch.zeros(2, 2)}, base / "consolidated.safetensors")
    assert refused(*GOOD, line="llm") == ""
    (base / "model.safetensors").rename(base / "model-00001-of-00001.safetensors")
    assert "it has no model.safetensors" in refused(*GOOD, line="llm")


def adapter_without(base: Path, out: Path, *, rank: int = 4, **changes: Any) -> Path:
    """An adapter of the base model, as a training writes it, with changes to its configuration."""
    model = add_lora(
        LlamaForCausalLM.from_pretrained(base), rank=rank, alpha=8.0, dropout=0.0, seed=1, plain=True
    )
    model.save_pretrained(out)
    config = out / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    return out


def half(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: value for name, value in weights.items() if ".layers.1." not in name}, path)


def of_nan(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: value * float("nan") for name, value in load_file(path).items()}, path)


def renamed(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name.replace("base_model.", "base."): value for name, value in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (half, "are missing"),
        (of_nan, "NaN"),
        (renamed, "are unexpected"),
        (
            lambda folder: (folder / "adapter_config.json").write_text("[]"),
            "adapter_config.json cannot be read",
        ),
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 99), "adapter_model"),
        (lambda folder: shutil.rmtree(folder), "it has no adapter_model.safetensors"),
    ],
)
def test_an_adapter_that_cannot_be_gone_on_from_is_known_before_and_the_advice_works(
    change: Any, says: str, base: Path, project: Path, refused: Any
) -> None:
    adapter = adapter_without(base, project / "first")
    asked = (GOOD[0], GOOD[2], "train_llm.rank=4", "train_llm.alpha=8", "train_llm.initial=first")
    assert refused(*asked, line="llm") == ""
    change(adapter)
    said = refused(*asked, line="llm")
    assert "first adapter: " in said and says in said and "Next: " in said
    assert refused(*asked[:-1], "train_llm.initial=''", line="llm") == "", "a fresh one"


def test_an_adapter_of_another_kind_is_known_before(base: Path, project: Path, refused: Any) -> None:
    adapter_without(base, project / "first", use_rslora=True)
    asked = (GOOD[0], GOOD[2], "train_llm.rank=4", "train_llm.alpha=8", "train_llm.initial=first")
    assert "is of another kind (use_rslora)" in refused(*asked, line="llm")
