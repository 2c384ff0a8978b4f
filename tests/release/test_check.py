"""Real models: what is published loads, what is cut off does not, and a champion answers a new test set."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.artifacts import read_json, sha256_file, write_json, write_parquet
from tasks.data.transcripts.jamo import visible
from tasks.errors import ArtifactError, ModelError
from tasks.release.champion import Questions, ask_engine, ask_recogniser
from tasks.release.check import engine_loads, recogniser_loads
from tasks.release.decide import Answer
from tasks.release.evidence import llm_answers


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A tiny untrained recogniser, exported as the pipeline does."""
    from tasks.asr.checkpoints.checkpoint import Vocabulary, fresh_model, mini_config, save_checkpoint
    from tasks.asr.decoding import language_model
    from tasks.asr.export import export
    from tasks.asr.ngrams import symbol_ngrams
    from tasks.params import load

    folder = tmp_path_factory.mktemp("recogniser")
    vocabulary = Vocabulary.of_jamo()
    config = mini_config(len(vocabulary.symbols))
    config.update(
        {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    )
    config.update(
        {"conv_dim": [16, 16, 16, 32], "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
    )
    (folder / "checkpoint").mkdir()
    save_checkpoint(folder / "checkpoint", fresh_model(config, seed=0), vocabulary, {"normaliser": "ko-1"})
    arpa = symbol_ngrams(["거실 불 켜 줘", "문 닫아"], vocabulary)
    language_model.save(arpa, folder / "checkpoint")
    settings = load(Path(__file__).parents[2] / "params.yaml").export_asr
    export(settings, checkpoint=folder / "checkpoint", out_dir=folder / "shipped")
    return folder / "shipped"


def test_a_whole_recogniser_loads_and_a_cut_off_one_does_not(shipped, tmp_path):
    recogniser_loads(shipped)
    for path in shipped.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    onnx, about = tmp_path / "model.int8.onnx", tmp_path / "malgil.json"
    onnx.write_bytes(onnx.read_bytes()[:-5000])
    with pytest.raises(ArtifactError, match="sha256"):
        recogniser_loads(tmp_path)
    write_json(about, {**read_json(about), "sha256": sha256_file(onnx)})
    with pytest.raises(ModelError):
        recogniser_loads(tmp_path)


def test_the_lines_on_the_card_transcribe_as_malgil_does(shipped, tmp_path, capsys, params, monkeypatch):
    import soundfile

    from tasks.asr.engines.torch_model import OnnxRecogniser
    from tasks.release import card

    page = (card.TEMPLATES / "asr.md.j2").read_text(encoding="utf-8")
    code = page.partition("```python")[2].partition("```")[0]
    code = "\n".join(line for line in code.splitlines() if "snapshot_download" not in line)
    audio = np.random.default_rng(1).normal(0, 0.1, 32_000).astype(np.float32)
    soundfile.write(tmp_path / "speech.wav", audio, 16_000, subtype="FLOAT")
    monkeypatch.chdir(tmp_path)
    exec(code, {"folder": shipped})
    said = capsys.readouterr().out.strip("\n")
    expected, greedy = OnnxRecogniser(shipped).transcripts([audio])[0]
    assert expected != greedy, "the n-gram model is to be heard"
    said = visible(unicodedata.normalize("NFD", said).replace("[UNK]", ""))
    assert expected and " ".join(said.split()) == expected


def test_the_card_of_a_model_of_words_has_lines_that_decode_greedily(
    shipped, tmp_path, capsys, params, monkeypatch
):
    import soundfile

    from tasks.asr.engines.torch_model import OnnxRecogniser
    from tasks.release import card

    page = (card.TEMPLATES / "asr.md.j2").read_text(encoding="utf-8")
    code = page.split("```python")[2].partition("```")[0]
    code = "\n".join(line for line in code.splitlines() if "snapshot_download" not in line)
    audio = np.random.default_rng(1).normal(0, 0.1, 32_000).astype(np.float32)
    soundfile.write(tmp_path / "speech.wav", audio, 16_000, subtype="FLOAT")
    monkeypatch.chdir(tmp_path)
    exec(code, {"folder": shipped})
    said = unicodedata.normalize("NFD", capsys.readouterr().out).replace("[UNK]", "")
    greedy = OnnxRecogniser(shipped).transcripts([audio])[0].greedy
    assert greedy and " ".join(visible(said).split()) == greedy


def test_a_gguf_that_is_none_does_not_load(tmp_path):
    (tmp_path / "tools.json").write_text("[]")
    (tmp_path / "malgil-llm-Q8_0.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match="Q8_0"):
        engine_loads(tmp_path)


def test_a_champion_answers_the_test_set_of_today(shipped, tmp_path, params):
    rng = np.random.default_rng(0)
    rows = [
        {
            "utterance_id": f"{split}-{n}", "speaker": f"v{n % 2}", "split": split, "text": "불 켜 줘",
            "offset": (4 * index + n) * 16000, "samples": 16000, "normaliser": "ko-1",
        }
        for index, split in enumerate(("test_sentences", "test_voices"))
        for n in range(4)
    ]  # fmt: skip
    (tmp_path / "asr").mkdir()
    np.save(tmp_path / "asr/audio.npy", rng.integers(-3000, 3000, 8 * 16000).astype(np.int16))
    write_parquet(tmp_path / "asr/utterances.parquet", pd.DataFrame(rows))
    answers = ask_recogniser(shipped, Questions(tmp_path, ()), params)
    assert len(answers) == 8
    assert all(answer.units == 3 and answer.reference == "불 켜 줘" for answer in answers)
    assert json.dumps([list(answer) for answer in answers])


def test_a_whole_gguf_loads_and_answers_as_a_champion(tmp_path, params):
    from tasks.gguf.convert import FILE_NAME, convert
    from tasks.llm.chat import SYSTEM, load_tools
    from tasks.llm.evaluate import evaluate
    from tasks.llm.evaluate_base import evaluate_base
    from tasks.llm.rows import read_rows
    from tests import tiny_llm

    merged = tiny_llm.write_model(tmp_path / "merged")
    prepared = tiny_llm.write_prepared(tmp_path / "prepared/llm")
    published = tmp_path / "published"
    published.mkdir()
    settings = params.convert_llm.model_copy(update={"name": "tiny"})
    convert(settings, merged=merged, gguf_f16=published)
    (published / FILE_NAME).rename(published / "malgil-llm-Q8_0.gguf")
    (published / "tools.json").write_bytes((prepared / "tools.json").read_bytes())
    about = {"serves": "malgil-llm-Q8_0.gguf", "quantisation": "Q8_0", "system": SYSTEM}
    write_json(published / "malgil.json", about)
    engine_loads(published)
    rows = read_rows(prepared / "test.jsonl", load_tools(prepared / "tools.json"))
    items = tuple(Answer("test", row["id"], row["id"], "", 0, 1) for row in rows)
    asked = ask_engine(published, Questions(tmp_path / "prepared", items), params)
    asking = {
        "examples": params.evaluate_llm.examples_beside,
        "max_new_tokens": params.evaluate_llm.max_new_tokens,
    }
    evaluate_base(**asking, base=merged, prepared=prepared, out_dir=tmp_path / "base")
    evaluate(
        params.evaluate_llm,
        serves="Q8_0",
        base_evaluation=tmp_path / "base",
        merged=merged,
        gguf=published,
        prepared=prepared,
        out_dir=tmp_path / "out",
    )
    assert asked == llm_answers(tmp_path / "out/samples.parquet", "Q8_0")  # as the stage itself answers
