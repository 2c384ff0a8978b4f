"""A retraining can go on from the adapter of the version that serves."""

from pathlib import Path

from tasks.release.champion_adapter import champion_adapter
from tests.release.conftest import write_llm
from tests.release.test_release import run


def test_the_adapter_is_that_of_the_version_that_serves(store, params):
    assert champion_adapter(params, Path("store")) is None
    result = run("llm", params)
    served = Path("build/llm/adapter/adapter_model.safetensors").read_bytes()
    write_llm(Path("build"), weights=b"gguf v2")  # the next training, not released yet
    found = champion_adapter(params, Path("store"))
    assert found == Path(result["published"]) / "adapter"
    assert (found / "adapter_model.safetensors").read_bytes() == served
