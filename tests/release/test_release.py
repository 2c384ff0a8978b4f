"""A release of a line against a real MLflow store: verdicts, repeats, kills, changes."""

import json
import time
from pathlib import Path

import pytest

from tasks.artifacts import sha256_file
from tasks.errors import ArtifactError, ConflictError, PublishError
from tasks.release import release as steps
from tasks.release.registry import Registry
from tests.release.conftest import with_section, write_asr, write_llm, write_road


def loads(folder):
    """The stand-in for loading: these repositories hold no real models (test_check.py loads real ones)."""
    assert (folder / "README.md").is_file()


def run(line, params, flow_run_id="flow-1", ask=None):
    where = {"build_dir": Path("build"), "store_dir": Path("store")}
    judgement = steps.decide_line(line, params, ask=ask, **where)
    published = steps.publish_line(judgement, params, check=loads, **where)
    return steps.register_line(judgement, published, params, flow_run_id=flow_run_id, **where)


def runs(params, suffix=""):
    registry = Registry(params.registry)
    return registry.client.search_runs([registry.experiment(params.registry.experiment + suffix)])


def version(params, alias="staging", model="malgil-asr"):
    return Registry(params.registry).by_alias(model, alias)


def test_a_good_version_is_published_registered_and_staged(store, params):
    result = run("asr", params)
    assert (result["verdict"], result["version"], result["alias"]) == ("promote", 1, "staging")
    assert result["reasons"][0] == "every floor holds and no version serves yet"
    folder = Path(result["published"])
    assert folder.is_relative_to("store/published/malgil-asr/versions")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "README.md", "SHA256SUMS", "lineage.json", "malgil.json", "model.int8.onnx", "preprocessor_config.json",
        "vocab.json", "checkpoint/config.json", "checkpoint/model.safetensors", "evaluation/decision.json",
        "evaluation/metrics.json", "evaluation/utterances.parquet", "evaluation/road.json",
    }  # fmt: skip
    assert Path("store/published/malgil-asr/aliases/staging").read_text().strip() == folder.name
    tags = version(params).tags
    assert tags["malgil.md5.build/corpus"] == "22222222222222222222222222222222.dir"
    assert "malgil.md5.build/prepared/llm" not in tags and "malgil.md5.tasks/data" not in tags
    assert tags["malgil.published"] == result["published"]
    assert tags["malgil.flow_run_id"] == "flow-1"
    assert tags["malgil.metric.cer_unseen_voices"] == "0.005"
    assert tags["malgil.normaliser"] == "ko-1"
    assert not Path("mlflow.db").exists() and not Path("mlruns").exists()


def test_the_run_holds_params_history_data_artifacts_and_the_logged_model(store, params):
    result = run("asr", params)
    client = Registry(params.registry).client
    found = client.get_run(result["run_id"])
    assert found.info.status == "FINISHED"
    assert found.data.params["train_asr.steps"] == str(params.train_asr.steps)
    assert found.data.metrics["onnx_int8.cer_unseen_sentences"] == 0.03
    assert [m.value for m in client.get_metric_history(result["run_id"], "loss")] == [2.5, 1.5]
    data = {d.dataset.name: d.dataset.digest for d in found.inputs.dataset_inputs}
    assert data["corpus"] == "22222222222222222222222222222222.dir"
    assert {a.path for a in client.list_artifacts(result["run_id"])} >= {
        "README.md",
        "decision.json",
        "shipped",
        "dvc.lock",
    }
    kept = client.download_artifacts(result["run_id"], "dvc.lock")
    assert sha256_file(Path(kept)) == found.data.tags["malgil.dvc_lock"]
    (model,) = client.search_logged_models([found.info.experiment_id])
    assert str(model.status) == "READY" and model.source_run_id == result["run_id"]
    assert client.get_model_version("malgil-asr", "1").source == f"models:/{model.model_id}"
    assert Path("store/mlflow-artifacts").is_dir()


def test_the_language_model_is_released_with_its_tools_and_system_prompt(store, params):
    result = run("llm", params)
    folder = Path(result["published"])
    about = json.loads((folder / "malgil.json").read_text())
    assert about["serves"] == "malgil-llm-Q8_0.gguf" and about["system"]
    assert (folder / "adapter/adapter_model.safetensors").is_file() and (folder / "tools.json").is_file()
    assert version(params, model="malgil-llm").number == 1


def test_a_second_run_with_nothing_changed_does_nothing_and_says_the_same(store, params):
    first = run("asr", params)
    before = {p: p.stat().st_mtime_ns for p in Path("store/published").rglob("*")}
    began = time.process_time()
    again = run("asr", params, ask=None)
    assert time.process_time() - began < 5
    assert again == {**first, "already": True}
    assert {p: p.stat().st_mtime_ns for p in Path("store/published").rglob("*")} == before
    assert len(runs(params)) == 1 and len(runs(params, "-releases")) == 1


def test_a_better_version_takes_the_alias_and_the_one_before_stays_reachable(store, params):
    first = run("asr", params)
    write_asr(Path("build"), weights=b"onnx v2", cer=0.02, edits=lambda n: 0)
    write_road(Path("build"))
    second = run("asr", params)
    assert (second["verdict"], second["version"]) == ("promote", 2)
    assert "better than the champion" in second["reasons"][0]
    assert version(params).number == 2 and version(params, "previous-staging").number == 1
    aliases = Path("store/published/malgil-asr/aliases")
    assert (aliases / "previous-staging").read_text().strip() == Path(first["published"]).name
    ledger = {r.data.params["to"]: r.data.params for r in runs(params, "-releases")}
    assert ledger["2"]["from"] == "1" and "from" not in ledger["1"]


def test_a_worse_version_is_rejected_and_leaves_only_a_run_and_a_ledger_entry(store, params):
    run("asr", params)
    write_asr(Path("build"), weights=b"onnx v2", edits=lambda n: 2)
    write_road(Path("build"))
    result = run("asr", params)
    assert result["reasons"][0].startswith("worse than the champion")
    assert (result["verdict"], result["version"], result["published"], result["alias"]) == (
        "reject",
        *[None] * 3,
    )
    assert version(params).number == 1
    assert len(list(Path("store/published/malgil-asr/versions").iterdir())) == 1
    assert len(runs(params)) == 2
    again = run("asr", params)
    assert again == {**result, "already": True, "run_id": again["run_id"]}
    assert len(runs(params)) == 2 and len(runs(params, "-releases")) == 2


def test_an_inconclusive_version_is_kept_without_the_alias_once(store, params):
    params = with_section(params, "decide", max_cer_unseen_sentences=0.5, max_cer_unseen_voices=0.5)
    run("asr", params)
    write_asr(Path("build"), weights=b"onnx v2", edits=lambda n: 10 if n % 20 < 2 else 0)
    write_road(Path("build"))
    result = run("asr", params)
    assert (result["verdict"], result["version"], result["alias"]) == ("hold", 2, None)
    assert version(params).number == 1
    assert run("asr", params) == {**result, "already": True}


def test_a_version_whose_floor_is_not_proven_is_kept_without_the_alias(store, params):
    """96% of 300 may come from a model under 95%: published for a person to look at, not moved to staging."""
    write_llm(Path("build"), right=lambda n: n >= 12)
    result = run("llm", params)
    assert (result["verdict"], result["version"], result["alias"]) == ("hold", 1, None)
    assert result["reasons"][0].startswith("1 of 4 floors is not proven")
    floor = next(f for f in result["floors"] if f.get("setting") == "min_exact_match")
    assert (floor["outcome"], floor["n"], floor["value"]) == ("unproven", 300, 0.96)
    card = (Path(result["published"]) / "README.md").read_text()
    assert "| exact match, Q8_0 | 96.00% | 300 | " in card and "| ≥ 95.00% | unproven |" in card
    assert run("llm", params) == {**result, "already": True}


def test_a_failed_verification_refuses_publishing(store, params):
    write_llm(Path("build"), ok=False)
    result = run("llm", params)
    assert result["verdict"] == "reject"
    assert any(
        "publishing refused" in reason and "3 prompts differ" in reason for reason in result["reasons"]
    )
    assert not Path("store/published").exists()


def test_other_rules_judge_the_same_bytes_again_without_a_new_version(store, params):
    run("asr", params)
    result = run("asr", with_section(params, "decide", max_cer_unseen_voices=0.001))
    assert (result["verdict"], result["already"]) == ("reject", False)
    assert version(params).number == 1


KILLS = {
    "before the run ends": "client.set_terminated",
    "before the model is ready": "client.finalize_logged_model",
    "before the version": "client.create_model_version",
    "before the alias": "client.set_registered_model_alias",
}


def test_what_a_killed_run_left_running_is_marked_as_killed(store, params):
    registry = Registry(params.registry)
    experiment = registry.experiment(params.registry.experiment)
    hours_ago = int((time.time() - 7200) * 1000)
    begin = registry.client.create_run
    left = begin(experiment, hours_ago, {"malgil.key": "of an evidence that never came again"}).info.run_id
    young = begin(experiment, None, {"malgil.key": "somebody registers it right now"}).info.run_id
    others = begin(experiment, hours_ago, {}).info.run_id
    run("asr", params)
    status = {each.info.run_id: each.info.status for each in runs(params)}
    assert [status[each] for each in (left, young, others)] == ["KILLED", "RUNNING", "RUNNING"]


@pytest.mark.parametrize("when", KILLS)
def test_killed_while_registering_and_started_again(store, params, monkeypatch, when):
    class Killed(BaseException):
        pass

    def die(*arguments, **named):
        raise Killed

    name = KILLS[when].removeprefix("client.")
    with monkeypatch.context() as patch:
        patch.setattr(f"mlflow.MlflowClient.{name}", die)
        with pytest.raises(Killed):
            run("asr", params)
    assert version(params) is None
    result = run("asr", params)
    assert (result["verdict"], result["version"], result["alias"]) == ("promote", 1, "staging")
    client = Registry(params.registry).client
    assert len(runs(params)) == 1 and len(client.search_model_versions("name = 'malgil-asr'")) == 1
    assert len(client.search_logged_models([runs(params)[0].info.experiment_id])) == 1
    assert len(client.get_metric_history(result["run_id"], "loss")) == 2
    assert len(runs(params, "-releases")) == 1


def test_a_changed_test_set_asks_the_champion_again_once(store, params):
    run("asr", params)
    write_asr(Path("build"), weights=b"onnx v2", reference="안방 불 꺼 줘", edits=lambda n: 0)
    write_road(Path("build"))
    asked = []

    def ask(folder, tests, params):
        asked.append((folder / "model.int8.onnx").read_bytes())
        return tuple(answer._replace(errors=1.0) for answer in tests.items)

    first = steps.decide_line("asr", params, build_dir=Path("build"), store_dir=Path("store"), ask=ask)
    second = steps.decide_line("asr", params, build_dir=Path("build"), store_dir=Path("store"), ask=ask)
    assert asked == [b"onnx v1"]
    assert first.decision == second.decision
    assert "0.00% against 1.00%" in first.decision.reasons[1]


def test_other_bytes_than_those_measured_are_not_judged(store, params):
    Path("build/asr/shipped/model.int8.onnx").write_bytes(b"tampered")
    with pytest.raises(ArtifactError, match="byte for byte"):
        run("asr", params)


def test_a_road_measured_with_other_files_does_not_count(store, params):
    write_asr(Path("build"), weights=b"onnx v2")
    result = run("asr", params)
    assert any("not measured through these files" in reason for reason in result["reasons"])


def test_a_champion_that_was_tampered_with_is_not_compared_with(store, params):
    first = run("asr", params)
    (Path(first["published"]) / "evaluation/metrics.json").write_text("{}")
    write_asr(Path("build"), weights=b"onnx v2")
    with pytest.raises(PublishError, match="other bytes than were published"):
        run("asr", params)


def test_a_release_to_the_hub_moves_its_tags_and_repeats_without_a_word(store, params, hub):
    params = with_section(params, "publish", target="hub")
    first = run("asr", params)
    repo = hub.repos["malgil/malgil-asr"]
    assert first["published"].startswith("malgil/malgil-asr@v-")
    assert repo.tags["staging"] == first["revision"] == version(params).tags["malgil.revision"]
    hub.log.clear()
    assert run("asr", params) == {**first, "already": True}
    assert not hub.log  # an unchanged release needs no network
    write_asr(Path("build"), weights=b"onnx v2", edits=lambda n: 0)
    write_road(Path("build"))
    second = run("asr", params)
    assert second["verdict"] == "promote"
    assert (repo.tags["staging"], repo.tags["previous-staging"]) == (second["revision"], first["revision"])
    assert "hf_writer" not in "".join(
        path.read_text(errors="ignore") for path in Path("store").rglob("*.json")
    )


def test_missing_evidence_names_the_file(store, params):
    Path("build/llm/verification.json").unlink()
    with pytest.raises(ArtifactError, match=r"verification\.json does not exist"):
        run("llm", params)
    assert not Path("store/published").exists()


def test_a_locked_store_says_so(store, params, monkeypatch):
    import sqlite3

    run("asr", params)
    monkeypatch.setattr("tasks.release.registry.LOCK_WAIT_S", 0.2)
    holder = sqlite3.connect("store/mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConflictError, match="is locked"):
        run("asr", params)
    holder.execute("ROLLBACK")
    assert run("asr", params)["already"]


def test_a_damaged_and_an_unreachable_store_say_so(store, params, monkeypatch):
    Path("store/mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(PublishError, match="is damaged"):
        run("asr", params)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PublishError, match=r"127\.0\.0\.1:9 cannot be reached"):
        run("asr", params)


def test_the_report_is_attached_once(store, params):
    results = {"asr": run("asr", params)}
    Path("report.html").write_text("<html>", encoding="utf-8")
    steps.attach_report(results, Path("report.html"), params)
    steps.attach_report(results, Path("report.html"), params)
    found = Registry(params.registry).client.list_artifacts(results["asr"]["run_id"])
    assert "report.html" in {entry.path for entry in found}
