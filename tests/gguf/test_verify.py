"""A GGUF that is not the merged model is seen, whatever is wrong with it."""

import json
import shutil
from pathlib import Path

import pytest

from tasks.artifacts import read_json
from tasks.errors import ModelError
from tasks.gguf import convertible
from tasks.gguf.convert import FILE_NAME, convert
from tasks.gguf.quantise import quantise, quantise_file
from tasks.gguf.verify import margin, verify
from tasks.inference.transformers_engine import TransformersEngine
from tasks.settings import ConvertLlm, QuantiseLlm, VerifyLlm
from tests import tiny_llm

# Quantisation moves the logits of a random model (standard deviation 4) far more than those of a trained one.
PARAMS = VerifyLlm(
    prompts=8, near_tie=1.0, near_tie_quantised=5.0, min_agreement=0.75, min_agreement_quantised=0.75
)


def failed(merged: Path, gguf_f16: Path, gguf: Path, prepared: Path, tmp_path: Path) -> set[str]:
    """Names of the failed checks, as written."""
    target = tmp_path / "verification.json"
    ok = verify(PARAMS, merged=merged, gguf_f16=gguf_f16, gguf=gguf, prepared=prepared, verification=target)
    result = read_json(target)
    assert result["ok"] is ok and result["checks"]
    bad = {check["name"] for check in result["checks"] if not check["ok"]}
    assert ok is not bool(bad)
    return bad


def nothing(tmp_path: Path) -> Path:
    """A folder without quantised files: only the f16 file is checked."""
    folder = tmp_path / "gguf"
    folder.mkdir()
    return folder


def test_faithful_files_pass(
    merged: Path, gguf_f16: Path, gguf: Path, prepared: Path, tmp_path: Path
) -> None:
    assert failed(merged, gguf_f16, gguf, prepared, tmp_path) == set()
    checks = read_json(tmp_path / "verification.json")["checks"]
    assert {check["file"] for check in checks} == {
        FILE_NAME,
        "malgil-llm-Q8_0.gguf",
        "malgil-llm-Q4_K_M.gguf",
    }


def test_a_wrong_pre_tokenizer_is_seen(
    merged: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = [(description, "gpt-2") for description, _ in convertible.PRE_TOKENIZERS]
    monkeypatch.setattr(convertible, "PRE_TOKENIZERS", table)
    convert(ConvertLlm(name="tiny"), merged=merged, gguf_f16=tmp_path)
    assert "token_ids_awkward" in failed(merged, tmp_path, nothing(tmp_path), prepared, tmp_path)


def test_a_wrong_end_token_is_seen(merged: Path, prepared: Path, tmp_path: Path) -> None:
    other = shutil.copytree(merged, tmp_path / "other")
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<|endoftext|>"}))
    convert(ConvertLlm(name="tiny"), merged=other, gguf_f16=tmp_path)
    assert "end_token" in failed(merged, tmp_path, nothing(tmp_path), prepared, tmp_path)


def test_another_chat_template_is_seen(merged: Path, prepared: Path, tmp_path: Path) -> None:
    other = shutil.copytree(merged, tmp_path / "other")
    (other / "chat_template.jinja").write_text(tiny_llm.TEMPLATE.replace("assistant", "helper"))
    convert(ConvertLlm(name="tiny"), merged=other, gguf_f16=tmp_path)
    assert failed(merged, tmp_path, nothing(tmp_path), prepared, tmp_path) == {"chat_template"}


def test_answers_may_part_at_a_near_tie_alone(merged: Path) -> None:
    """The margin is what the merged model thinks of the two tokens, wherever the answers part."""
    engine = TransformersEngine(merged)
    prompt = "<|im_start|>user\n7시<|im_end|>\n"
    answer = engine.generate_ids([prompt], 6)[0]
    assert margin(engine, prompt, answer, answer) == 0.0
    for place in range(len(answer)):
        logits = engine.logits([*engine.tokenise(prompt), *answer[:place]])
        second, best = logits.argsort()[-2:].tolist()
        assert best == answer[place]
        other = [*answer[:place], second, *answer[place + 1 :]]
        assert margin(engine, prompt, answer, other) == pytest.approx(logits[best] - logits[second], abs=1e-4)
        stopped = margin(engine, prompt, answer, answer[:place])
        assert stopped == pytest.approx(logits[best] - logits[engine.tokenizer.eos_token_id], abs=1e-4)


def test_other_weights_are_seen(merged: Path, prepared: Path, tmp_path: Path) -> None:
    other = tiny_llm.write_model(tmp_path / "other", seed=9)
    convert(ConvertLlm(name="tiny"), merged=other, gguf_f16=tmp_path)
    assert failed(merged, tmp_path, nothing(tmp_path), prepared, tmp_path) == {"same_answers"}


def test_a_truncated_file_is_seen_and_not_quantised(
    merged: Path, gguf_f16: Path, gguf: Path, prepared: Path, tmp_path: Path
) -> None:
    whole = (gguf_f16 / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(whole[: len(whole) // 2])
    assert failed(merged, tmp_path, nothing(tmp_path), prepared, tmp_path) == {"loads"}
    with pytest.raises(ModelError, match="the file is cut off"):
        quantise_file(tmp_path / FILE_NAME, tmp_path / "out.gguf", "Q8_0")
    kept = shutil.copytree(gguf, tmp_path / "kept")
    with pytest.raises(ModelError, match="whole GGUF"):
        quantise(QuantiseLlm(types=("Q8_0",)), gguf_f16=tmp_path, gguf=kept)
    assert len(list(kept.iterdir())) == 2  # the folder before is as it was


def test_quantised_files_are_smaller_and_whole(gguf_f16: Path, gguf: Path) -> None:
    full = (gguf_f16 / FILE_NAME).stat().st_size
    assert all(path.stat().st_size < full for path in gguf.iterdir())
