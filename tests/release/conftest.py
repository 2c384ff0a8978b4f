"""A small build/ folder as the stages before the release leave it, and settings that point into it."""

import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pandas as pd
import pytest

from tasks.artifacts import sha256_file, write_json, write_parquet, write_text
from tasks.params import load
from tasks.release.registry import Registry
from tests.hub_server import Hub, start

LOCK = """schema: '2.0'
stages:
  corpus:
    deps: [{path: tasks/data, md5: 11111111111111111111111111111111.dir}]
    outs: [{path: build/corpus, md5: 22222222222222222222222222222222.dir}]
  prepare:
    deps: [{path: build/corpus, md5: 22222222222222222222222222222222.dir}]
    outs:
      - {path: build/prepared/asr, md5: 33333333333333333333333333333333.dir}
      - {path: build/prepared/llm, md5: 44444444444444444444444444444444.dir}
  export_asr:
    deps: [{path: build/prepared/asr, md5: 33333333333333333333333333333333.dir}]
    outs: [{path: build/asr/shipped, md5: 55555555555555555555555555555555.dir}]
  quantise_llm:
    deps: [{path: build/prepared/llm, md5: 44444444444444444444444444444444.dir}]
    outs: [{path: build/llm/gguf, md5: 66666666666666666666666666666666.dir}]
"""


def asr_rates(cer):
    return {
        "cer_unseen_sentences": cer, "cer_unseen_voices": cer + 0.01, "wer_unseen_sentences": 3 * cer,
        "wer_unseen_voices": 3 * cer, "cer_with_spaces_unseen_sentences": 2 * cer,
        "cer_by_voice": {"ko+f1": cer, "ko+m9": cer + 0.01}, "cer_with_silence": cer, "cer_joined": cer + 0.005,
    }  # fmt: skip


def write_asr(build: Path, *, weights=b"onnx v1", cer=0.03, edits=lambda n: n % 2, reference="거실 불 켜 줘"):
    """The recogniser's part of build/; `edits(n)` are the shipped file's errors on utterance n, of 100 characters."""
    shipped = build / "asr/shipped"
    shipped.mkdir(parents=True, exist_ok=True)
    (shipped / "model.int8.onnx").write_bytes(weights)
    write_json(shipped / "vocab.json", {"[PAD]": 0})
    write_json(shipped / "preprocessor_config.json", {"sampling_rate": 16000})
    write_json(shipped / "malgil.json", {"normaliser": "ko-1"})
    write_text(build / "asr/checkpoint/config.json", "{}")
    write_text(build / "asr/checkpoint/model.safetensors", "weights " + weights.decode())
    write_text(build / "asr/training/history.jsonl", '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 1.5}\n')
    write_json(build / "asr/training/result.json", {"steps": 2})
    sha = sha256_file(shipped / "model.int8.onnx")
    metrics = {"normaliser": "ko-1", "checkpoint": asr_rates(cer), "onnx_int8": asr_rates(cer)}
    write_json(build / "asr/evaluation/metrics.json", metrics)
    rows = [
        {
            "system": system, "condition": condition, "split": split, "utterance_id": f"{split}-{n}",
            "speaker": f"{split}-v{n % voices}", "reference": reference, "hypothesis": reference,
            "edits": edits(n), "characters": 100, "sha256": sha,
        }
        for system in ("checkpoint", "onnx_int8")
        for condition in ("plain", "silence")
        for split, voices in (("test_sentences", 20), ("test_voices", 8))
        for n in range(160)
    ]  # fmt: skip
    for first in [n for n in range(160) if n % 60 < 20 and n + 40 < 160]:  # three of one speaker
        own = [first, first + 20, first + 40]
        rows += [
            {
                "system": system, "condition": "joined", "split": "test_sentences",
                "utterance_id": "+".join(f"test_sentences-{n}" for n in own),
                "speaker": f"test_sentences-v{first % 20}", "reference": " ".join([reference] * 3),
                "hypothesis": " ".join([reference] * 3), "edits": sum(map(edits, own)), "characters": 300,
                "sha256": sha,
            }
            for system in ("checkpoint", "onnx_int8")
        ]  # fmt: skip
    write_parquet(build / "asr/evaluation/utterances.parquet", pd.DataFrame(rows))


def write_llm(build: Path, *, weights=b"gguf v1", exact=0.97, right=lambda n: n % 40 != 0, ok=True):
    """The language model's part of build/."""
    for name in ("Q8_0", "Q4_K_M"):
        write_text(build / f"llm/gguf/malgil-llm-{name}.gguf", f"{name} {weights.decode()}")
    write_text(build / "llm/adapter/adapter_model.safetensors", weights.decode())
    write_json(build / "llm/adapter/adapter_config.json", {"r": 16})
    write_text(build / "llm/training/history.jsonl", '{"step": 1, "loss": 2.5}\n')
    rates = {"base": 0.0, "merged": exact, "Q8_0": exact, "Q4_K_M": exact - 0.05}
    metrics = {"exact_match": rates, "bytes": {"Q8_0": 10}, "tokens_per_s": {"Q8_0": 99.0}, "n": 300}
    files = (build / "llm/gguf").glob("*.gguf")
    metrics["sha256"] = {path.stem.rpartition("-")[2]: sha256_file(path) for path in files}
    write_json(build / "llm/evaluation/metrics.json", metrics)
    rows = [
        {
            "system": system, "id": f"s{n:05d}", "written": f"{n}번 불 켜 줘", "intent": "set_light",
            "reference": '{"arguments":{},"name":"set_light"}', "hypothesis": "{}", "exact": bool(right(n)),
        }
        for system in ("base", "merged", "Q8_0", "Q4_K_M")
        for n in range(300)
    ]  # fmt: skip
    write_parquet(build / "llm/evaluation/samples.parquet", pd.DataFrame(rows))
    check = {"name": "tokens", "ok": ok, "detail": "3 prompts differ", "file": "malgil-llm-Q8_0.gguf"}
    write_json(build / "llm/verification.json", {"ok": ok, "checks": [check]})


def write_road(build: Path, *, wrong=lambda n: n < 8):
    """The road, measured through the files in `build`: 160 commands of each split by 8 voices in turn."""
    rows = [
        {
            "split": split, "utterance_id": f"{split}-{n}", "speaker": f"{split}-v{n % 8}",
            "transcript_reference": f"{n}번 불 켜 줘", "exact": not wrong(n),
        }
        for split in ("test_sentences", "test_voices")
        for n in range(160)
    ]  # fmt: skip
    write_parquet(build / "road/samples.parquet", pd.DataFrame(rows))
    exact = sum(not wrong(n) for n in range(160)) / 160
    write_json(
        build / "road/metrics.json",
        {
            "exact_match_unseen_sentences": exact, "exact_match_unseen_voices": exact, "quantisation": "Q8_0",
            "asr": sha256_file(build / "asr/shipped/model.int8.onnx"),
            "llm": sha256_file(build / "llm/gguf/malgil-llm-Q8_0.gguf"),
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An MLflow database made once by MLflow itself: making its tables takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    settings = load(Path(__file__).parents[2] / "params.yaml").registry
    settings = settings.model_copy(update={"tracking_uri": f"sqlite:///{path}"})
    Registry(settings).client.search_registered_models()
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder, made the current one; its build/ holds one run of both lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    build = tmp_path / "build"
    write_text(tmp_path / "dvc.lock", LOCK)
    write_text(tmp_path / "constraints.txt", "numpy==2.4.6\n")
    write_text(build / "params.yaml", "corpus: {}\n")
    write_parquet(
        build / "corpus/manifest.parquet", pd.DataFrame({"utterance_id": ["u1"], "duration_s": [1.5]})
    )
    write_parquet(build / "prepared/asr/utterances.parquet", pd.DataFrame({"utterance_id": ["u1"]}))
    rows = [{"id": f"s{n:05d}", "written": "불 켜", "tool_call": {"name": "set_light"}} for n in range(3)]
    write_text(build / "prepared/llm/train.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    write_json(build / "prepared/llm/tools.json", [])
    write_asr(build)
    write_llm(build)
    write_road(build)
    return tmp_path


@pytest.fixture
def store(project, empty_store):
    """The project with an empty MLflow store."""
    (project / "store").mkdir()
    shutil.copyfile(empty_store, project / "store/mlflow.db")
    return project


@pytest.fixture
def params():
    """The settings of params.yaml; relative paths lie in the current folder."""
    return load(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture(scope="session")
def server():
    hub = Hub()
    running, address = start(hub)
    yield hub, address
    running.should_exit = True


@pytest.fixture
def hub(server, monkeypatch):
    state, address = server
    state.repos.clear(), state.objects.clear(), state.log.clear(), state.faults.clear()
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    return state


def with_section(params, name, **values):
    """`params` with other values in one section."""
    return params.model_copy(update={name: getattr(params, name).model_copy(update=values)})
