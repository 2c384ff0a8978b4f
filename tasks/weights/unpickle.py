"""The child that reads one pickled file of weights and writes it as safetensors: `pickled.py` starts it.

    python -P tasks/weights/unpickle.py SOURCE TARGET BYTES SECONDS

It imports nothing of the project. Before it opens the file it takes a limit on its own memory (what it has
already, and BYTES) and on its time. torch reads the file with `weights_only`, so that nothing in it is
called; what it then holds must be tensors by name. One line of JSON on standard output says what came of it:
`tensors` and `peak_bytes`, or `kind` and `why`.
"""

import json
import re
import resource
import signal
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

_MOST_FILES = 500_000
_SLACK_BYTES = 1 << 26
REFUSED = 3


class _Refusal(Exception):
    """What the file is instead of weights: a kind and a sentence."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind, self.why = kind, why


def convert(source: Path, target: Path) -> int:
    """Writes the tensors of `source` to `target`; returns how many."""
    zipped = zipfile.is_zipfile(source)
    if zipped:
        _check_archive(source)
    weights = torch.load(source, map_location="cpu", weights_only=True, mmap=zipped)
    tensors = _own_storage(_tensors(weights), source.stat().st_size)
    save_file(tensors, target, {"format": "pt"})
    return len(tensors)


def _check_archive(source: Path) -> None:
    """torch stores its records as they are: a compressed one is no record of weights, and may be a bomb."""
    with zipfile.ZipFile(source) as archive:
        files = archive.infolist()
    if len(files) > _MOST_FILES:
        raise _Refusal("archive", f"is an archive of {len(files)} files")
    packed = [file.filename for file in files if file.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise _Refusal("archive", f"is an archive with compressed records ({packed[0]!r})")
    if sum(file.file_size for file in files) > source.stat().st_size:
        raise _Refusal("archive", "is an archive whose records take more bytes than it has")
    if any(file.filename.endswith("/constants.pkl") for file in files):
        raise _Refusal("program", "is a TorchScript program")


def _tensors(weights: Any) -> dict[str, torch.Tensor]:
    if not isinstance(weights, Mapping):
        raise _Refusal("content", f"holds a {type(weights).__name__} and not tensors by name")
    others = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if others or not weights:
        shown = ", ".join(repr(name) for name in others[:5]) or "nothing"
        raise _Refusal("content", f"holds {shown} and not tensors alone, as a training's checkpoint does")
    if not all(isinstance(name, str) and name != "__metadata__" for name in weights):
        raise _Refusal("content", "holds tensors that have no names")
    for name, value in weights.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise _Refusal("content", f"holds {name}, which is sparse, quantised or without values")
    return {name: value.detach() for name, value in weights.items()}


def _own_storage(weights: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """Contiguous tensors that share nothing: safetensors keeps no aliases; a tied one is written twice."""
    needed = sum(value.numel() * value.element_size() for value in weights.values())
    if needed > 2 * size + _SLACK_BYTES:
        raise _Refusal("archive", f"holds tensors of {needed} bytes in a file of {size}")
    seen: set[int] = set()
    own = {}
    for name, value in weights.items():
        storage = value.untyped_storage().data_ptr()
        own[name] = (
            value.clone(memory_format=torch.contiguous_format) if storage in seen else value.contiguous()
        )
        seen.add(storage)
    return own


def _limit(more_bytes: int, seconds: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.alarm(seconds)


def _explained(error: BaseException) -> dict[str, str]:
    said = " ".join(str(error).split())
    if isinstance(error, _Refusal):
        return {"kind": error.kind, "why": error.why}
    if isinstance(error, MemoryError) or "alloc" in said or "not enough memory" in said:
        return {"kind": "memory", "why": "asks for more memory than weights of its size need"}
    if "os error 28" in said or getattr(error, "errno", None) == 28:
        return {"kind": "full", "why": "no space left"}
    wanted = re.search(
        r"GLOBAL ([\w.]+)|global ['\"]?([\w.]+\.\w+)|Unsupported (?:class|type) ([\w.]+)", said
    )
    if wanted:
        name = next(part for part in wanted.groups() if part)
        return {"kind": "global", "why": f"asks for {name}, which weights do not need"}
    return {"kind": "broken", "why": f"is cut off or no file of torch ({type(error).__name__}: {said[:160]})"}


def main(argv: list[str]) -> int:
    """See the module."""
    source, target, more_bytes, seconds = argv
    _limit(int(more_bytes), int(seconds))
    try:
        count = convert(Path(source), Path(target))
    except BaseException as error:  # noqa: BLE001 - whatever ends it is told to the parent
        print(json.dumps(_explained(error)))
        return REFUSED
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tensors": count, "peak_bytes": peak}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
