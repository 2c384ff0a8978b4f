"""Weights are whole or refused: what is missing, unexpected or of another shape is named, at every door."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Wav2Vec2Model

from tasks.asr.checkpoints.checkpoint import Vocabulary, load_checkpoint, load_encoder
from tasks.asr.embedding.encoder import load_encoder_layers
from tasks.asr.pretraining.contrastive import Task, contrastive_model
from tasks.errors import ModelError
from tasks.inference.loading import load_model
from tasks.llm.adapters import adapted_model
from tasks.llm.lora import add_lora
from tasks.llm.merge import merge
from tasks.params import load
from tasks.settings import LlmTraining
from tasks.weights.whole import require_whole
from tests import tiny_llm
from tests.asr.tiny_models import foreign_checkpoint

ROOT = Path(__file__).parents[2]
RANK, ALPHA = 4, 8
Weights = dict[str, torch.Tensor]
FILE = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm.write_model(tmp_path_factory.mktemp("llm") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the base says."""
    return write_adapter(base, tmp_path_factory.mktemp("adapter") / "adapter")


def write_adapter(base: Path, folder: Path, blocks: range | None = None, rank: int = RANK) -> Path:
    adapted = add_lora(load_model(base), rank=rank, alpha=ALPHA, dropout=0.0, seed=1, blocks=blocks)
    for name, weight in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(folder)
    return folder


def rewrite(path: Path, change: Callable[[Weights], Weights]) -> None:
    save_file({k: v.contiguous() for k, v in change(load_file(path)).items()}, path, {"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


def renamed(weights: Weights) -> Weights:
    return {
        name.replace("base_model.model.model.", "base_model.model.transformer."): w
        for name, w in weights.items()
    }


def half(weights: Weights) -> Weights:
    return {name: w for name, w in weights.items() if ".layers.1." not in name}


def one_nan(weights: Weights) -> Weights:
    weights[min(weights)][0, 0] = float("nan")
    return weights


def integers(weights: Weights) -> Weights:
    return {name: w.to(torch.int32) for name, w in weights.items()}


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "other key names": (
        lambda f: rewrite(f / FILE, renamed),
        r"28 tensors are missing \(base_model\.model\.model\.layers\.0.*28 are unexpected \(base_model\.model\.transformer",
    ),
    "half of its layers": (
        lambda f: rewrite(f / FILE, half),
        r"14 tensors are missing \(base_model.*layers\.1\.",
    ),
    "one tensor less": (
        lambda f: rewrite(f / FILE, lambda w: {k: v for k, v in w.items() if k != max(w)}),
        r"1 tensor is missing \(base_model.*layers\.1.*v_proj\.lora_B\.weight\)",
    ),
    "one tensor more": (
        lambda f: rewrite(
            f / FILE, lambda w: {**w, "base_model.model.lm_head.lora_A.weight": torch.ones(4, 64)}
        ),
        r"1 is unexpected \(base_model\.model\.lm_head",
    ),
    "another rank": (
        lambda f: configure(f, r=2),
        r"28 are of another shape .*lora_A\.weight is 4×64 instead of 2×64",
    ),
    "a rank of a billion": (lambda f: configure(f, r=10**9), "has rank 1000000000"),
    "empty": (lambda f: rewrite(f / FILE, lambda w: {}), "holds no tensors"),
    "no file": (lambda f: (f / FILE).unlink(), f"has no {FILE}"),
    "cut off": (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:-9]), "no whole safetensors"),
    "not a number": (lambda f: rewrite(f / FILE, one_nan), r"1 tensor holds \(base_model.*NaN"),
    "integers": (lambda f: rewrite(f / FILE, integers), r"I32"),
    "another kind": (lambda f: configure(f, peft_type="IA3"), "peft_type is 'IA3'"),
    "layers that are not there": (lambda f: configure(f, target_modules=["c_attn"]), "c_attn"),
    "a layer by a regular expression": (lambda f: configure(f, target_modules="(.*.*)*x"), "plain names"),
    "code to import": (
        lambda f: configure(f, megatron_config={"a": 1}, megatron_core="antigravity"),
        "megatron_config",
    ),
    "a setting of another PEFT": (lambda f: configure(f, use_new_thing=True), "use_new_thing"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
    "a placeholder": (
        lambda f: (f / FILE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "git lfs pull",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_adapter_is_refused_by_name_and_nothing_is_merged(
    kind: str, base: Path, adapter: Path, tmp_path: Path
) -> None:
    spoil, says = BROKEN[kind]
    broken = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    spoil(broken)
    with pytest.raises(ModelError, match=says):
        merge(base=base, adapter=broken, merged=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_whole_adapter_merges_and_changes_every_layer(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge(base=base, adapter=adapter, merged=tmp_path / "merged")
    before, after = load_model(base).state_dict(), load_model(tmp_path / "merged").state_dict()
    assert before.keys() == after.keys()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {name for name in before if "_proj." in name}


def test_an_adapter_of_another_base_model_is_refused_and_the_advice_works(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    wider = tiny_llm.write_model(tmp_path / "wider", width=128)
    with pytest.raises(ModelError, match=r"are of another shape .* instead of") as caught:
        merge(base=wider, adapter=adapter, merged=tmp_path / "merged")
    assert "trained on this base model" in caught.value.next_step
    write_adapter(wider, tmp_path / "adapter")
    merge(base=wider, adapter=tmp_path / "adapter", merged=tmp_path / "merged")


def test_an_adapter_of_some_layers_merges_only_where_its_configuration_says_so(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    upper = write_adapter(base, tmp_path / "upper", blocks=range(1, 2))
    merge(base=base, adapter=upper, merged=tmp_path / "merged")
    before, after = load_model(base).state_dict(), load_model(tmp_path / "merged").state_dict()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {name for name in before if "_proj." in name and ".layers.1." in name}
    configure(upper, layers_to_transform=None)
    with pytest.raises(ModelError, match=r"14 tensors are missing \(base_model.*layers\.0\."):
        merge(base=base, adapter=upper, merged=tmp_path / "other")


def test_the_command_says_it_and_exits_with_2(base: Path, adapter: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    rewrite(broken / FILE, half)
    places = ["--base", str(base), "--adapter", str(broken), "--merged", str(tmp_path / "merged")]
    done = subprocess.run(
        [sys.executable, "-m", "tasks.llm.merge", *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "14 tensors are missing" in done.stderr and not (tmp_path / "merged").exists()


def training(**changes: Any) -> LlmTraining:
    shipped: LlmTraining = load(ROOT / "params.yaml").train_llm
    return shipped.model_copy(
        update={"rank": RANK, "alpha": float(ALPHA), "dropout": 0.0, "kernels": "off", **changes}
    )


@pytest.mark.parametrize(
    "kind", ["other key names", "half of its layers", "not a number", "cut off", "empty"]
)
def test_a_training_does_not_go_on_from_a_broken_adapter(
    kind: str, base: Path, adapter: Path, tmp_path: Path
) -> None:
    spoil, says = BROKEN[kind]
    broken = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    spoil(broken)
    with pytest.raises(ModelError, match=says):
        adapted_model(base, training(), torch.device("cpu"), initial=str(broken))


def test_a_training_goes_on_from_the_blocks_that_an_adapter_has(base: Path, tmp_path: Path) -> None:
    upper = write_adapter(base, tmp_path / "upper", blocks=range(1, 2))
    model, _ = adapted_model(base, training(), torch.device("cpu"), initial=str(upper))
    kept = load_file(upper / FILE)
    own = {
        name.replace(".default.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" in name
    }
    assert all(torch.equal(own[name], value) for name, value in kept.items())
    fresh = [value for name, value in own.items() if ".layers.0." in name and ".lora_B." in name]
    assert fresh and not any(value.any() for value in fresh)


def test_an_adapter_with_another_scale_is_not_gone_on_from(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Its rank and alpha are those of the settings, and PEFT would still multiply it by another number."""
    scaled = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    configure(scaled, use_rslora=True)
    with pytest.raises(ModelError, match="use_rslora"):
        adapted_model(base, training(), torch.device("cpu"), initial=str(scaled))


# Language models


def lose(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: w for name, w in weights.items() if part not in name}


LLM: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "a layer": (lose("layers.1."), r"9 tensors are missing \(model\.layers\.1\."),
    "the embedding": (lose("embed_tokens"), r"missing .*embed_tokens"),
    "a layer more": (lambda w: {**w, "model.layers.7.mlp.up_proj.weight": torch.ones(96, 64)}, r"1 is unexpected \(model\.layers\.7"),
    "a bias that the configuration does not know": (
        lambda w: {**w, "model.layers.0.self_attn.q_proj.bias": torch.ones(64)},
        r"1 is unexpected \(model\.layers\.0\.self_attn\.q_proj\.bias",
    ),
    "a shape": (lambda w: {**w, "model.norm.weight": torch.ones(65)}, r"model\.norm\.weight is 65 instead of 64"),
    "integers": (lambda w: {**w, "model.norm.weight": torch.ones(64, dtype=torch.int8)}, r"model\.norm\.weight is I8"),
    "an output layer of its own under a tied configuration": (
        lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"] + 1},
        r"lm_head\.weight and model\.embed_tokens\.weight differ.*ties them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LLM)
def test_a_language_model_is_whole_or_refused(kind: str, base: Path, tmp_path: Path) -> None:
    change, says = LLM[kind]
    folder = Path(shutil.copytree(base, tmp_path / "broken"))
    rewrite(folder / "model.safetensors", change)
    with pytest.raises(ModelError, match=says):
        load_model(folder)


def test_an_untied_output_layer_may_not_be_missing_and_the_advice_works(base: Path, tmp_path: Path) -> None:
    """Tied, exactly that one may be; both may stand in the file with the same values."""
    folder = Path(shutil.copytree(base, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ModelError, match=r"1 tensor is missing \(lm_head\.weight\)"):
        load_model(folder)
    rewrite(
        folder / "model.safetensors", lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"] + 1}
    )
    untied = load_model(folder)
    assert (untied.lm_head.weight - untied.model.embed_tokens.weight).mean() > 0.9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="set tie_word_embeddings to false"):
        load_model(folder)
    rewrite(
        folder / "model.safetensors",
        lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"].clone()},
    )
    assert load_model(folder).lm_head.weight is not None


def sharded(folder: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="6KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_shards_and_their_index_must_agree(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    whole = load_model(folder).state_dict()
    first, *_, last = sorted(folder.glob("model-*.safetensors"))
    moved = min(load_file(first))
    rewrite(first, lambda w: {name: value for name, value in w.items() if name != moved})
    with pytest.raises(ModelError, match=rf"1 tensor is not in its shard \({moved} in {first.name}\)"):
        load_model(folder)
    rewrite(first, lambda w: {**w, moved: whole[moved], "stranger": torch.ones(1)})
    with pytest.raises(ModelError, match=r"1 is in a shard and not in the index \(stranger"):
        load_model(folder)
    rewrite(first, lose("stranger"))
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(ModelError, match=rf"1 shard that is not there \({last.name}\)"):
        load_model(folder)
    last.write_bytes(content)  # as the message says: fetch the missing file
    assert all(torch.equal(value, whole[name]) for name, value in load_model(folder).state_dict().items())


def test_an_index_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    found = json.loads(index.read_text("utf-8"))
    found["weight_map"]["model.norm.weight"] = "../../secret.safetensors"
    index.write_text(json.dumps(found))
    with pytest.raises(ModelError, match=r"secret\.safetensors\) outside of its folder"):
        load_model(folder)


# Recognisers


ASR: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "a layer": (lose(".encoder.layers.1."), r"16 tensors are missing \(wav2vec2\.encoder\.layers\.1\."),
    "a layer more": (
        lambda w: {**w, "wav2vec2.encoder.layers.9.final_layer_norm.bias": torch.ones(32)},
        r"1 is unexpected \(wav2vec2\.encoder\.layers\.9",
    ),
    "other names": (
        lambda w: {name.replace("wav2vec2.", "w2v."): value for name, value in w.items()},
        r"are missing \(wav2vec2\..*are unexpected \(w2v\.",
    ),
    "integers": (
        lambda w: {**w, "wav2vec2.encoder.layer_norm.weight": torch.ones(32, dtype=torch.int32)},
        r"wav2vec2\.encoder\.layer_norm\.weight is I32",
    ),
}


@pytest.mark.parametrize("kind", ASR)
def test_a_recogniser_is_whole_or_refused_by_everything_that_loads_one(kind: str, tmp_path: Path) -> None:
    folder = foreign_checkpoint(tmp_path / "model")
    change, says = ASR[kind]
    rewrite(folder / "model.safetensors", change)
    for loading in (
        lambda: load_checkpoint(folder),
        lambda: load_encoder(str(folder), Vocabulary.of_jamo(), 0),
        lambda: contrastive_model(str(folder), Task(0.065, 10, 5), 0.1, 2.0, 0),
    ):
        with pytest.raises(ModelError, match=says):
            loading()
    with pytest.raises(ModelError, match=says.replace(r"wav2vec2\.", r"(?:wav2vec2\.)?")):
        load_encoder_layers(folder, None)


def test_an_encoder_without_a_prefix_and_one_with_another_head_are_whole(tmp_path: Path) -> None:
    folder = foreign_checkpoint(tmp_path / "model")
    expected = load_encoder_layers(folder, None)._model.state_dict()
    Wav2Vec2Model.from_pretrained(folder).save_pretrained(folder)
    assert not any(name.startswith("wav2vec2.") for name in load_file(folder / "model.safetensors"))
    found = load_encoder_layers(folder, None)._model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    load_encoder(str(folder), Vocabulary.of_jamo(), 0)
    rewrite(folder / "model.safetensors", lambda w: {**w, "classifier.weight": torch.ones(2, 2)})
    load_encoder(str(folder), Vocabulary.of_jamo(), 0)


def test_ten_names_are_shown_and_all_are_counted() -> None:
    with pytest.raises(ModelError) as caught:
        require_whole({f"t{n:02d}": (1,) for n in range(25)}, {"x": ()}, where="a", next_step="b")
    assert caught.value.what == (
        "a does not fit the model: 25 tensors are missing "
        "(t00, t01, t02, t03, t04, t05, t06, t07, t08, t09, …); 1 is unexpected (x)"
    )


def test_a_configuration_of_countless_layers_is_refused_before_a_model_is_built(
    base: Path, tmp_path: Path
) -> None:
    for folder, loading in (
        (Path(shutil.copytree(base, tmp_path / "llm")), load_model),
        (foreign_checkpoint(tmp_path / "asr"), load_checkpoint),
    ):
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"num_hidden_layers": 10**8}))
        with pytest.raises(ModelError, match="100000000 layers"):
            loading(folder)
