"""The check that a GGUF is the merged model: same tokens, same prompts, same answers.

Two answers count as the same when they are equal, or when they part at a token between which the merged
model itself hardly chooses (a near tie): rounding decides there, and a share of equal texts would say more
about how sure the model is than about the file.

    python -m tasks.gguf.verify

Writes verification.json; a check that fails does not stop the stage, it makes the gate reject the
version (`tasks.release.decide`), so that the report shows what was wrong.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.artifacts import write_json
from tasks.errors import ModelError
from tasks.gguf.convert import FILE_NAME
from tasks.inference.llama_cpp_engine import LlamaCppEngine
from tasks.inference.transformers_engine import TransformersEngine
from tasks.llm.chat import load_tools, messages, render_prompt
from tasks.llm.rows import read_rows
from tasks.progress import Progress
from tasks.settings import VerifyLlm
from tasks.stage import run_stage

AWKWARD = (
    "",
    " ",
    "a",
    " 7",
    "  12  ",
    "알람  7시 30분",
    "12345678901234567890",
    "줄\n바꿈\n\n두 번\r\n탭\t끝 ",
    "   앞 공백 셋",
    "거실 불 좀 켜 줘",
    "뷁 쀍 ㄱㄴㄷ ㅏㅑ 가나다",
    "e\u0301 한글 NFD",
    "🙂👩‍👩‍👧‍👦 🇰🇷",
    '{"name":"set_light","arguments":{"room":"거실","power":"on"}}',
    "It's 3.14, isn't it? I'll say: \"'tis\"!!! …",
    "漢字 かな mixed العربية",
    "<b>html</b> & <|not special|>",
)
LOSSLESS = ("f16", "Q8_0")
MAX_ANSWER_TOKENS = 64
log = logging.getLogger("malgil.verify")


@dataclass(frozen=True)
class Check:
    """One named check of one file."""

    name: str
    ok: bool
    detail: str
    file: str


def verify(
    params: VerifyLlm, *, merged: Path, gguf_f16: Path, gguf: Path, prepared: Path, verification: Path
) -> bool:
    """Compares every GGUF with the merged model; writes and returns whether all checks hold.

    Raises:
        ModelError: the merged model cannot be read. A GGUF that cannot be read is a failed check.
    """
    rows = read_rows(prepared / "validation.jsonl", load_tools(prepared / "tools.json"))[: params.prompts]
    engine = TransformersEngine(merged)
    prompts = [render_prompt(engine.tokenizer, row["written"]) for row in rows]
    files = [gguf_f16 / FILE_NAME, *sorted(gguf.glob("*.gguf"))]
    checks: list[Check] = []
    with Progress("verify", len(prompts) * (1 + len(files)), "answers") as progress:
        answers = engine.generate_ids(prompts, MAX_ANSWER_TOKENS, advance=progress.advance)
        for path in files:
            checks += check_file(path, engine, prompts, answers, params, progress.advance)
    for check in checks:
        if not check.ok:
            log.warning("%s: %s failed: %s", check.file, check.name, check.detail)
    ok = all(check.ok for check in checks)
    write_json(verification, {"ok": ok, "checks": [asdict(check) for check in checks]})
    return ok


def check_file(
    path: Path,
    merged: TransformersEngine,
    prompts: Sequence[str],
    answers: Sequence[Sequence[int]],
    params: VerifyLlm,
    advance: Callable[[int], None] | None = None,
) -> list[Check]:
    """Every check of one GGUF against the merged model and its `answers` to the `prompts`."""
    try:
        engine = LlamaCppEngine(path)
    except ModelError as error:
        return [Check("loads", False, str(error), path.name)]
    checks = [Check("loads", True, "llama.cpp loads it", path.name)]
    for name, ok, detail in (
        *_tokens(engine, merged.tokenizer, prompts),
        *_template(engine, merged.tokenizer),
    ):
        checks.append(Check(name, ok, detail, path.name))
    finite, detail = _finite(engine, prompts[0])
    checks.append(Check("finite_logits", finite, detail, path.name))
    if finite:
        said = engine.generate_ids(prompts, MAX_ANSWER_TOKENS, advance=advance)
        lossless = path.stem.endswith(LOSSLESS)
        needed = params.min_agreement if lossless else params.min_agreement_quantised
        near_tie = params.near_tie if lossless else params.near_tie_quantised
        margins = [margin(merged, *each) for each in zip(prompts, answers, said, strict=True)]
        same = sum(value <= near_tie for value in margins)
        detail = (
            f"{margins.count(0.0)} of {len(answers)} answers equal the merged model's, {same} but for near "
            f"ties (at most {near_tie:g} nats); needed {needed:.0%}; widest margin {max(margins):.2f} nats"
        )
        checks.append(Check("same_answers", same >= needed * len(answers), detail, path.name))
    return checks


def margin(merged: TransformersEngine, prompt: str, answer: Sequence[int], said: Sequence[int]) -> float:
    """How much likelier `merged` finds its own `answer` than `said` at the token where they part, in nats.

    The difference of the two tokens' logits; 0 for equal answers. Both are token ids without the end.
    """
    end = merged.tokenizer.eos_token_id
    own, other = [*answer, end], [*said, end]
    if own == other:
        return 0.0
    place = next(place for place, (a, b) in enumerate(zip(own, other, strict=False)) if a != b)
    logits = merged.logits([*merged.tokenise(prompt), *own[:place]])
    return float(logits[own[place]] - logits[other[place]])


def _tokens(
    engine: LlamaCppEngine, tokenizer: Any, prompts: Sequence[str]
) -> Iterator[tuple[str, bool, str]]:
    """Token ids, the end-of-turn token, and no doubled start token."""
    for name, texts in (("token_ids_awkward", AWKWARD), ("token_ids_prompts", tuple(prompts))):
        wrong = [
            text
            for text in texts
            if engine.tokenise(text) != tokenizer(text, add_special_tokens=False)["input_ids"]
        ]
        yield name, not wrong, f"{len(texts) - len(wrong)} of {len(texts)} texts alike" + _first(wrong)
    size = len(tokenizer.get_vocab())
    yield (
        "vocabulary",
        engine.vocabulary_size() >= size,
        f"{engine.vocabulary_size()} tokens, tokenizer {size}",
    )
    told = engine.end_token()
    end = tokenizer.eos_token_id
    yield "end_token", told == end and engine.ends_answer(end), f"end of turn {told}, tokenizer {end}"
    served = engine.tokenise_as_server(prompts[0])
    start = tokenizer.bos_token_id
    doubled = start is not None and served[:2] == [start, start]
    like = served == list(tokenizer(prompts[0], add_special_tokens=False)["input_ids"])  # as in training
    yield (
        "start_token",
        like and not doubled,
        "a server tokenises the prompt " + ("alike" if like else "otherwise"),
    )


def _first(wrong: Sequence[str]) -> str:
    return f"; first unlike: {wrong[0]!r}" if wrong else ""


def _template(engine: LlamaCppEngine, tokenizer: Any) -> Iterator[tuple[str, bool, str]]:
    """The chat template in the file renders what the tokenizer's renders."""
    conversations = (messages("거실 불 켜 줘"), [{"role": "user", "content": "7시"}])
    try:
        alike = all(
            engine.render(c) == tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True)
            for c in conversations
        )
    except ModelError as error:
        yield "chat_template", False, str(error)
        return
    yield "chat_template", alike, "renders alike" if alike else "renders otherwise than the tokenizer's"


def _finite(engine: LlamaCppEngine, prompt: str) -> tuple[bool, str]:
    logits = engine.logits(engine.tokenise(prompt))
    spread = float(logits.std())
    ok = bool(np.isfinite(logits).all()) and spread > 0
    return ok, f"{logits.size} logits, standard deviation {spread:.2f}"


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.gguf.verify",
            "verify_llm",
            verify,
            inputs={
                "merged": Path("build/llm/merged"),
                "gguf_f16": Path("build/llm/gguf_f16"),
                "gguf": Path("build/llm/gguf"),
                "prepared": Path("build/prepared/llm"),
            },
            outputs={"verification": Path("build/llm/verification.json")},
        )
    )
