"""Pre-training makes an adapter that fine-tuning goes on from, out of text that no test command shares."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.artifacts import read_json, sha256_file
from tasks.data.grammar import commands
from tasks.data.text import inverse_normalise
from tasks.data.vocabulary import CITIES, CURTAINS, DOORS, GENRES, HEATERS, ITEMS, ROOMS, WEEKDAYS
from tasks.errors import DataError, ModelError, SettingsError
from tasks.inference.loading import load_tokenizer
from tasks.llm.packing import pack
from tasks.llm.pretrain import pretrain
from tasks.llm.pretraining.documents import Document, builtin_documents, read_documents
from tasks.llm.pretraining.examples import group_documents
from tasks.llm.train import train
from tasks.settings import PretrainLlm, TrainLlm

ROOT = Path(__file__).parents[2]
SHARED: dict[str, Any] = {
    "seed": 5,
    "rank": 8,
    "alpha": 16.0,
    "dropout": 0.0,
    "learning_rate": 0.02,
    "warmup_share": 0.1,
    "pack_length": 300,
    "max_tokens": 6_000,
    "validation_examples": 8,
    "kernels": "off",
    "evaluate_every": 10,
    "checkpoint_every": 5,
}
PRETRAIN = {**SHARED, "source": "builtin", "text": "", "documents": 80}
TRAIN = {
    **SHARED,
    "initial": "",
    "from_champion": False,
    "order": "random",
    "decision_weight": 1.0,
    "blocks": 0,
    "max_tokens": 1_000,
}


def run(base: Path, out: Path, **changes: Any) -> Path:
    params = PretrainLlm(**{**PRETRAIN, **changes})
    return pretrain(params, base=base, out_dir=out / "malgil-toy", work=out / "work")


def tune(base: Path, prepared: Path, out: Path, **changes: Any) -> dict[str, torch.Tensor]:
    places = {name: out / name for name in ("adapter", "training", "work")}
    train(TrainLlm(**{**TRAIN, **changes}), base=base, prepared=prepared, **places)
    return load_file(out / "adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def pretrained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(base, tmp_path_factory.mktemp("pretrained"))


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return builtin_documents(1500, seed=21)


def test_no_document_shares_three_words_in_a_row_with_a_command(documents: list[Document]) -> None:
    """Counted here by hand, over more commands than any corpus of the built-in example draws."""
    tested: set[str] = set()
    for command in itertools.islice(commands(20261101), 8_000):
        for text in (command.text, inverse_normalise(command.text)):
            words = text.split()
            tested |= {" ".join(words[i : i + 3]) for i in range(len(words) - 2)}
    for document in documents:
        words = f"{document.user} {document.answer}".split()
        shared = {" ".join(words[i : i + 3]) for i in range(len(words) - 2)} & tested
        assert not shared, f"{document}: {shared}"


def test_no_document_holds_a_value_of_the_tools(documents: list[Document]) -> None:
    values = {*ROOMS, *CURTAINS, *DOORS, *GENRES, *HEATERS, *ITEMS, *CITIES, *WEEKDAYS}
    for document in documents:
        said = document.user + document.answer
        assert not any(value in said for value in values), document


def test_documents_say_what_their_calls_hold(documents: list[Document]) -> None:
    """Every number and Korean word of a call was said: what a model cannot know it is not taught to answer."""
    calls = [d for d in documents if d.answer.startswith("{")]
    assert len(calls) > 600
    for document in calls:
        for value in json.loads(document.answer)["arguments"].values():
            if value == 0 or (isinstance(value, str) and value.isascii()):
                continue  # on, off, up: what a verb means; no minute said
            assert str(value) in document.user, document


def test_opposite_verbs_never_mean_the_same(documents: list[Document]) -> None:
    calls = [(d.user, json.loads(d.answer)) for d in documents if d.answer.startswith("{")]
    states = {"켜 ": "on", "꺼 ": "off", "닫아 ": "close", "걷어 ": "open"}
    for verb, state in states.items():
        said = [c for user, c in calls if re.search(rf"(^| ){verb}(줘|주|줄)", user + " ")]
        found = {c["arguments"].get("state", c["arguments"].get("motion")) for c in said}
        assert found <= {state} and found, (verb, found)


def test_the_same_seed_gives_the_same_documents_and_another_gives_others() -> None:
    assert builtin_documents(50, seed=3) == builtin_documents(50, seed=3)
    assert len(set(builtin_documents(50, seed=3)) & set(builtin_documents(50, seed=4))) < 5


def test_rows_hold_one_kind_of_prompt_and_every_token(base: Path, documents: list[Document]) -> None:
    tokenizer = load_tokenizer(base)
    groups = group_documents(tokenizer, documents[:200])
    assert sum(len(group.examples) for group in groups) == 200
    assert len(groups) == 4  # calls, English, other wordings, lists
    for group in groups:
        starts = {example.prompt[: group.prefix] for example in group.examples}
        assert len(starts) == 1
        rows = pack(group.examples, 300, group.prefix)
        assert sum(len(row.targets) for row in rows) == sum(len(e.completion) for e in group.examples)


def test_it_learns_and_keeps_its_provenance(base: Path, pretrained: Path) -> None:
    about = read_json(pretrained / "PROVENANCE.json")
    losses = [json.loads(line) for line in (pretrained / "history.jsonl").read_text().splitlines()]
    first, last = (next(row["loss"] for row in rows if "loss" in row) for rows in (losses, losses[::-1]))
    assert last < 0.8 * first
    weights = pretrained / "adapter_model.safetensors"
    assert about["sha256"] == {weights.name: sha256_file(weights)}
    assert about["documents"]["n"] == 80 and about["params"]["seed"] == 5
    assert about["command"] == "malgil llm pretrain"
    assert {weight.dtype for weight in load_file(weights).values()} == {torch.float16}
    assert str(ROOT) not in json.dumps(about)


def test_fine_tuning_goes_on_from_it(base: Path, prepared: Path, pretrained: Path, tmp_path: Path) -> None:
    """With a rate of nearly nothing the result is the adapter that it started from, not a fresh one."""
    tuned = tune(base, prepared, tmp_path, initial=str(pretrained), learning_rate=1e-12)
    begun = load_file(pretrained / "adapter_model.safetensors")
    assert tuned.keys() == begun.keys()
    assert all(torch.allclose(tuned[name], begun[name].float(), atol=1e-6) for name in begun)
    assert any(weight.abs().max() > 0 for name, weight in begun.items() if "lora_B" in name)


def test_only_the_upper_blocks_learn(base: Path, prepared: Path, pretrained: Path, tmp_path: Path) -> None:
    tuned = tune(base, prepared, tmp_path, initial=str(pretrained), blocks=1)
    begun = load_file(pretrained / "adapter_model.safetensors")
    moved = {name for name in begun if not torch.equal(tuned[name], begun[name].float())}
    assert moved and all(".layers.1." in name for name in moved)


def test_a_fresh_adapter_of_the_upper_blocks_has_no_other(base: Path, prepared: Path, tmp_path: Path) -> None:
    assert all(".layers.1." in name for name in tune(base, prepared, tmp_path, blocks=1))


def test_an_adapter_of_the_upper_blocks_can_be_gone_on_from(
    base: Path, prepared: Path, tmp_path: Path
) -> None:
    """As weekly retraining does with the version that serves."""
    begun = tune(base, prepared, tmp_path / "first", blocks=1)
    initial = str(tmp_path / "first/adapter")
    tuned = tune(base, prepared, tmp_path / "second", initial=initial, blocks=1, learning_rate=1e-12)
    assert all(torch.allclose(tuned[name], begun[name], atol=1e-6) for name in begun)
    fresh = [weight for name, weight in tuned.items() if name not in begun and "lora_B" in name]
    assert fresh and all(weight.abs().max() == 0 for weight in fresh), "the lower block was to stay as it was"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 4}, r"rank 8 and alpha 16.*the settings say 4 and 16"),
        ({"alpha": 8.0}, r"rank 8 and alpha 16.*the settings say 8 and 8"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    base: Path, prepared: Path, pretrained: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        tune(base, prepared, tmp_path, initial=str(pretrained), **changes)
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_that_is_none_is_refused(base: Path, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelError, match="nothing cannot be loaded"):
        tune(base, prepared, tmp_path, initial=str(tmp_path / "nothing"))


def test_more_blocks_than_there_are_is_refused(base: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"train_llm.blocks: 3, but the model has 2"):
        tune(base, prepared, tmp_path, blocks=3)


def test_a_stopped_run_ends_with_the_same_weights(
    base: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = torch.optim.AdamW.step, itertools.count(1)

    def stopped(self: Any, *args: Any) -> Any:
        if next(done) == 8:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(base, tmp_path)
    assert not (tmp_path / "malgil-toy").exists()
    assert list((tmp_path / "work/checkpoints").glob("step-*5.json"))
    resumed = run(base, tmp_path)
    name = "adapter_model.safetensors"
    assert sha256_file(resumed / name) == sha256_file(pretrained / name)


def write(text: str, name: str) -> Callable[[Path], Path]:
    def to(folder: Path) -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return to


def test_text_of_ones_own_is_read(tmp_path: Path) -> None:
    text = write("첫 글\n둘째 줄\n\n\n다음 글\n", "a.txt")(tmp_path)
    assert [d.answer for d in read_documents(text)] == ["첫 글\n둘째 줄", "다음 글"]
    lines = '{"text": "한\\u2028줄"}\n\n{"system": "s", "user": "u", "answer": "a"}\n{"user": "u", "answer": "b"}\n'
    found = read_documents(write(lines, "a.jsonl")(tmp_path))
    assert found == [Document("", "", "한\u2028줄"), Document("s", "u", "a"), Document("", "u", "b")]


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "a.txt", "holds no document"),
        ('{"text": "a"}\n{"txt": "b"}', "a.jsonl", r"line 2 has the keys txt"),
        ('{"text": "a"}\nb', "a.jsonl", r"line 2 is not JSON"),
        ('{"user": "a", "answer": 3}', "a.jsonl", r"line 1 is not an object of strings"),
        ('{"text": "  "}', "a.jsonl", r"line 1 has the keys text"),
        ('{"user": " ", "answer": "a"}', "a.jsonl", r"line 1 has the keys answer, user"),
    ],
)
def test_text_that_is_none_is_refused(tmp_path: Path, content: str, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_documents(write(content, name)(tmp_path))


def test_text_in_another_encoding_is_refused_with_a_command(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("한국어".encode("cp949"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_documents(tmp_path / "a.txt")


def test_own_text_is_learned_from(base: Path, tmp_path: Path) -> None:
    text = write("\n\n".join(f"{n} 번째 문단은 같은 말로 끝난다" for n in range(40)), "a.txt")(tmp_path)
    out = run(base, tmp_path, source="text", text=str(text), max_tokens=3_000)
    result = read_json(out / "PROVENANCE.json")["result"]
    assert result["validation_loss"] < 2.0


def test_too_few_documents_are_refused_before_anything_is_trained(base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"pretrain_llm.validation_examples: 64, but pretrain_llm.documents draws 64"
    ):
        run(base, tmp_path, documents=64, validation_examples=64)


def test_a_source_without_its_text_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"pretrain_llm.text: a path"):
        run(base, tmp_path, source="text")


def test_the_adapter_of_the_project_is_what_its_provenance_says() -> None:
    folder = ROOT / "models/malgil-ko-requests"
    about = read_json(folder / "PROVENANCE.json")
    weights = folder / "adapter_model.safetensors"
    assert sha256_file(weights) == about["sha256"][weights.name]
    assert weights.stat().st_size <= 16e6
