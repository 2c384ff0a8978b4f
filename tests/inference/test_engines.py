"""Both engines answer greedily, alike, and alone as in company."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cyllama.llama import llama_cpp

from tasks.artifacts import read_json
from tasks.cpu import instruction_sets
from tasks.data.grammar import TOOLS
from tasks.errors import ArtifactError, ModelError
from tasks.gguf.convert import convert
from tasks.gguf.quantise import quantise_file
from tasks.gguf.verify import margin
from tasks.inference.engine import Engine, shared_prefix
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.inference.road import answer, known_answers, served_file
from tasks.inference.transformers_engine import TransformersEngine
from tasks.llm.chat import Tools, load_tools, messages, parse_tool_call, render_prompt, render_tool_call
from tasks.llm.evaluate import evaluate
from tasks.llm.evaluate_base import evaluate_base
from tasks.llm.rows import read_rows
from tasks.settings import ConvertLlm, EvaluateLlm
from tests import tiny_llm

TOKENS = 16
LIMIT = 120


@pytest.fixture(scope="module")
def torch_engine(merged: Path) -> TransformersEngine:
    return TransformersEngine(merged, batch=5)


@pytest.fixture(scope="module")
def cpp_engine(gguf_file: Path) -> LlamaCppEngine:
    return LlamaCppEngine(gguf_file, slots=3)


@pytest.fixture(scope="module")
def prompts(torch_engine: TransformersEngine) -> list[str]:
    return [render_prompt(torch_engine.tokenizer, row["written"]) for row in tiny_llm.rows(11)]


def test_transformers_answers_are_its_own_greedy_search(
    torch_engine: TransformersEngine, prompts: list[str]
) -> None:
    answers = torch_engine.generate(prompts, TOKENS)
    assert len(set(answers)) > 3
    for prompt, said in zip(prompts, answers, strict=True):
        ids = torch.tensor([torch_engine.tokenise(prompt)])
        out = torch_engine.model.generate(ids, max_new_tokens=TOKENS, do_sample=False)[0, ids.shape[1] :]
        assert said == torch_engine.tokenizer.decode(out, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["torch_engine", "cpp_engine"])
def test_company_changes_no_answer(name: str, prompts: list[str], request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(name)
    done: list[int] = []
    together = engine.generate(prompts, TOKENS, advance=done.append)
    assert sum(done) == len(prompts)
    assert together == [engine.generate([prompt], TOKENS)[0] for prompt in prompts]
    assert engine.generate([], TOKENS) == []


def test_engines_agree(
    torch_engine: TransformersEngine, cpp_engine: LlamaCppEngine, prompts: list[str]
) -> None:
    answers = zip(
        prompts, *(e.generate_ids(prompts, TOKENS) for e in (torch_engine, cpp_engine)), strict=True
    )
    for prompt, one, other in answers:
        if len(other) < len(one) and cpp_engine.ends_answer(one[len(other)]):
            one = one[
                : len(other)
            ]  # llama.cpp stops at every token that can end a text, not the turn's alone
        # f16 against f32: only where two tokens are as good as equally likely may rounding decide
        assert margin(torch_engine, prompt, one, other) < 0.1
    assert all(torch_engine.tokenise(prompt) == cpp_engine.tokenise(prompt) for prompt in prompts)
    assert cpp_engine.render(messages("7시")) == render_prompt(torch_engine.tokenizer, "7시")


@pytest.mark.parametrize("name", ["torch_engine", "cpp_engine"])
def test_allowed_answers_are_chosen_greedily(
    name: str, prompts: list[str], torch_engine: TransformersEngine, request: pytest.FixtureRequest
) -> None:
    """Against a walk written out: at every place the most likely token that an allowed answer has there."""
    engine: Engine = request.getfixturevalue(name)
    calls = [render_tool_call(row["tool_call"]) for row in tiny_llm.rows(11)]
    allowed = [calls, calls[:1], calls[:4], calls[3:]]
    expected = [walk(torch_engine, prompt, some) for prompt, some in zip(prompts[:4], allowed, strict=True)]
    said = engine.generate(prompts[:4], 150, allowed=allowed)
    assert said == expected
    assert said[1] == calls[0]
    mixed = engine.generate(prompts[:3], TOKENS, allowed=[None, calls[:1], None])
    free = engine.generate(prompts[:3], TOKENS)
    assert (mixed[0], mixed[2]) == (free[0], free[2])


@pytest.mark.parametrize("longest", [150, 9, 1])
def test_one_pass_for_what_is_certain_changes_no_answer(
    torch_engine: TransformersEngine, prompts: list[str], longest: int
) -> None:
    """A batch of free, half-free and settled answers, against one token and one prompt at a time."""
    calls = [render_tool_call(row["tool_call"]) for row in tiny_llm.rows(11)]
    some = [
        None,
        calls,
        calls[:1],
        calls[:4],
        calls[3:],
        calls[2:5],
        None,
        calls[5:6],
        calls[::2],
        calls,
        None,
    ]
    said = torch_engine.generate_ids(prompts, longest, allowed=some)
    for prompt, allowed, ids in zip(prompts, some, said, strict=True):
        assert ids == walk_ids(torch_engine, prompt, allowed, longest)


def test_only_decisions_ask_the_model(torch_engine: TransformersEngine, prompts: list[str]) -> None:
    calls = [render_tool_call(row["tool_call"]) for row in tiny_llm.rows(11)]
    passes: list[int] = []
    hook = torch_engine.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        assert torch_engine.generate(prompts[:1], 150, allowed=[calls[:1]]) == calls[:1]
        assert passes == [], "an answer that is certain was asked for"
        torch_engine.generate(prompts[:1], 150, allowed=[calls[:2]])
        assert len(passes) == 2, "the prompt's start and one decision"
    finally:
        hook.remove()


def walk(engine: TransformersEngine, prompt: str, answers: list[str]) -> str:
    """Greedy decoding over a list of answers, as text."""
    return str(engine.tokenizer.decode(walk_ids(engine, prompt, answers, 1000)))


def walk_ids(engine: TransformersEngine, prompt: str, answers: list[str] | None, longest: int) -> list[int]:
    """Greedy decoding, one full forward pass per token; over a list of answers if there is one."""
    end = engine.tokenizer.eos_token_id
    left = [[*engine.tokenise(answer), end] for answer in answers or ()]
    said: list[int] = []
    while len(said) < longest:
        logits = engine.logits([*engine.tokenise(prompt), *said])
        may = {ids[len(said)] for ids in left} if answers else range(len(logits))
        token = max(may, key=lambda token: logits[token])
        if token == end:
            break
        said.append(token)
        left = [ids for ids in left if ids[: len(said)] == said]
    return said


def test_weights_are_not_laid_out_for_the_cpu_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where llama.cpp repacks weights, the answers become those of that layout: other ones, bit by bit."""
    wide = tiny_llm.write_model(tmp_path / "wide", width=512)  # sums long enough for their order to show
    path = tmp_path / "wide-Q4_0.gguf"
    quantise_file(convert(ConvertLlm(name="wide"), merged=wide, gguf_f16=tmp_path / "f16"), path, "Q4_0")
    ids = [1, 5, 9, 40, 77, 200, 31, 8, 4]
    found = LlamaCppEngine(path, slots=1).logits(ids)
    plain = llama_cpp.LlamaModelParams
    for repack in (False, True):

        class Fixed(plain):  # type: ignore[misc, valid-type]
            """Settings of which this one keeps its value."""

            @property
            def use_extra_bufts(self) -> bool:
                return bool(plain.use_extra_bufts.__get__(self))

            @use_extra_bufts.setter
            def use_extra_bufts(self, _: bool, choice: bool = repack) -> None:
                plain.use_extra_bufts.__set__(self, choice)

        monkeypatch.setattr(llama_cpp, "LlamaModelParams", Fixed)
        forced = LlamaCppEngine(path, slots=1).logits(ids)
        if not repack:
            assert np.array_equal(found, forced)
        elif "AVX2" in instruction_sets():
            assert not np.array_equal(found, forced)


def test_shared_prefix_leaves_each_prompt_a_token() -> None:
    assert shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert shared_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_prefix([[1], [2]]) == 0


def test_a_prompt_too_long_is_said(gguf_file: Path) -> None:
    engine = LlamaCppEngine(gguf_file, slots=1, context=64)
    with pytest.raises(ModelError, match="does not fit the context of 64"):
        engine.generate(["거실 불 켜 줘 " * 40], 8)


def test_files_that_are_no_model_are_said(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(gguf_file.read_bytes()[:5000])
    for path in (tmp_path / "cut.gguf", tmp_path / "none.gguf"):
        with pytest.raises(ModelError, match=path.name):
            LlamaCppEngine(path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        TransformersEngine(tmp_path)


def test_a_transcript_is_written_with_digits_and_answered_within_the_schema(
    cpp_engine: LlamaCppEngine,
) -> None:
    tools = Tools(TOOLS)
    (said,) = answer(cpp_engine, ["거실 에어컨 온도 이십사 도로 맞춰 줘"], tools, 150)
    assert said.written == "거실 에어컨 온도 24도로 맞춰 줘"
    assert parse_tool_call(said.hypothesis, tools) is not None  # even from random weights


@pytest.fixture(scope="module")
def evaluated(merged: Path, gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's build/llm after `evaluate_llm`: prepared/, gguf/ and evaluation/."""
    build = tmp_path_factory.mktemp("evaluated")
    prepared = tiny_llm.write_prepared(build / "prepared", test=8)
    (build / "gguf").mkdir()
    shutil.copy(gguf_file, build / "gguf/malgil-llm-Q8_0.gguf")
    evaluate_base(
        examples=5, max_new_tokens=LIMIT, base=merged, prepared=prepared, out_dir=build / "base_evaluation"
    )
    evaluate(
        EvaluateLlm(examples=7, examples_beside=5, max_new_tokens=LIMIT),
        serves="Q8_0",
        base_evaluation=build / "base_evaluation",
        merged=merged,
        gguf=build / "gguf",
        prepared=prepared,
        out_dir=build / "evaluation",
    )
    return build


def test_the_base_models_figures_stand_beside_the_others(evaluated: Path, merged: Path) -> None:
    metrics = read_json(evaluated / "evaluation/metrics.json")
    assert list(metrics["exact_match"]) == ["base", "merged", "Q8_0"] == list(metrics["bytes"])
    assert metrics["exact_match"]["base"] == metrics["exact_match"]["merged"]  # the same folder here
    samples = pd.read_parquet(evaluated / "evaluation/samples.parquet").groupby("system")
    assert {name: len(rows) for name, rows in samples} == {"base": 5, "merged": 5, "Q8_0": 7}
    assert metrics["answered"] == {"base": 5, "merged": 5, "Q8_0": 7} and metrics["n"] == 7
    ids = {name: rows["id"].tolist() for name, rows in samples}
    assert ids["Q8_0"][:5] == ids["merged"] == ids["base"]
    places = {"merged": merged, "gguf": evaluated / "gguf", "prepared": evaluated / "prepared"}
    with pytest.raises(ArtifactError, match="answers to other examples"):
        evaluate(
            EvaluateLlm(examples=7, examples_beside=4, max_new_tokens=LIMIT),
            serves="Q8_0",
            base_evaluation=evaluated / "base_evaluation",
            out_dir=evaluated / "other",
            **places,
        )


def known(build: Path, limit: int = LIMIT) -> dict[str, str]:
    return known_answers(
        build / "evaluation", build / "gguf/malgil-llm-Q8_0.gguf", build / "prepared", "Q8_0", limit
    )


def test_answers_of_the_evaluation_are_taken_for_the_same_prompt_alone(
    evaluated: Path, cpp_engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = load_tools(evaluated / "prepared/tools.json")
    texts = [row["text"] for row in read_rows(evaluated / "prepared/test.jsonl", tools)]
    expected = answer(cpp_engine, texts, tools, LIMIT)
    asked: list[str] = []
    generate = cpp_engine.generate
    monkeypatch.setattr(
        cpp_engine, "generate", lambda new, *a, **k: asked.extend(new) or generate(new, *a, **k)
    )
    done: list[int] = []
    said = answer(cpp_engine, texts, tools, LIMIT, known=known(evaluated), advance=done.append)
    assert [one.hypothesis for one in said] == [one.hypothesis for one in expected]
    assert [one.known for one in said] == [True] * 7 + [False]
    assert len(asked) == 1 and sum(done) == len(texts)


def test_answers_of_another_file_limit_or_set_of_tools_are_not_taken(evaluated: Path, tmp_path: Path) -> None:
    assert len(known(evaluated)) == 7
    assert known(evaluated, limit=LIMIT + 1) == {}
    build = shutil.copytree(evaluated, tmp_path / "build")
    tools = build / "prepared/tools.json"
    before = tools.read_text()
    tools.write_text(json.dumps(json.loads(before)[:-1]))
    assert known(build) == {}
    tools.write_text(before)
    with (build / "gguf/malgil-llm-Q8_0.gguf").open("ab") as file:
        file.write(b"0")
    assert known(build) == {}


def test_the_file_that_serves_is_found_by_its_type(tmp_path: Path) -> None:
    (tmp_path / "malgil-llm-Q8_0.gguf").touch()
    assert served_file(tmp_path, "Q8_0").name == "malgil-llm-Q8_0.gguf"
    with pytest.raises(ArtifactError, match=r"0 files \*-Q4_K_M.gguf"):
        served_file(tmp_path, "Q4_K_M")
