"""Broken and hostile files of weights, opened by Malgil's own loading functions: refused, or loaded.

    python benchmarks/fuzz_models.py --inputs 2000      # JSON on standard output; exit code 1 on a finding

Each input is a small model of one kind with one to three mutations drawn from its number, so that an input
can be tried again (`--kind gguf --first 17 --inputs 1`). Many are opened by one child process, under limits
on its memory and on the time of each. A finding is a traceback (any error that is not Malgil's), a process
that dies, or one that hangs. `loaded_equal` computes what the whole file does, `loaded_other`
something else: a bit of a weight, say, which only a digest can tell.
"""

import argparse
import json
import queue
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

HOSTILE = (
    0,
    1,
    2,
    3,
    7,
    31,
    33,
    127,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
HOSTILE_JSON: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 2**70, 1e308, -0.5, "", "a", "(a+)+$", "../../etc/passwd", "os.system",
    [], [1], ["a"], [[]], {}, {"a": 1}, {"a": {}},
)  # fmt: skip
MEMORY_BYTES, INPUT_SECONDS, START_SECONDS = 6 << 30, 60, 240
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "X9", "")


# Models --------------------------------------------------------------------------------------------


def make_checkpoint(folder: Path) -> None:
    from tests.asr.tiny_models import foreign_checkpoint

    foreign_checkpoint(folder)


def make_llm(folder: Path) -> None:
    from tests import tiny_llm

    tiny_llm.write_model(folder)


def make_adapter(folder: Path) -> None:
    import torch

    from tasks.inference.loading import load_model
    from tasks.llm.lora import add_lora

    make_llm(folder / "base")
    adapted = add_lora(load_model(folder / "base"), rank=4, alpha=8, dropout=0.0, seed=1)
    for name, weight in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(folder / "adapter")


def make_gguf(folder: Path) -> None:
    from tasks.gguf.convert import convert
    from tasks.settings import ConvertLlm

    make_llm(folder / "merged")
    convert(ConvertLlm(name="tiny"), merged=folder / "merged", gguf_f16=folder / "gguf")
    shutil.rmtree(folder / "merged")


def make_onnx(folder: Path) -> None:
    from tasks.asr.export import export
    from tasks.settings import ExportAsr

    make_checkpoint(folder / "checkpoint")
    export(
        ExportAsr(opset=17, max_logit_difference=1e-2, max_relative_difference_int8=0.5),
        checkpoint=folder / "checkpoint",
        out_dir=folder / "shipped",
    )
    shutil.rmtree(folder / "checkpoint")


# Opening: what it computes, as bytes ---------------------------------------------------------------


def open_checkpoint(folder: Path) -> bytes:
    from tasks.asr.checkpoints.checkpoint import load_checkpoint

    return _weights(load_checkpoint(folder).model)


def open_llm(folder: Path) -> bytes:
    from tasks.inference.loading import load_model

    return _weights(load_model(folder))


def open_adapter(folder: Path) -> bytes:
    from tasks.inference.loading import load_model
    from tasks.weights.adapters import merge_adapter

    return _weights(merge_adapter(load_model(folder / "base"), folder / "adapter"))


def open_gguf(folder: Path) -> bytes:
    from tasks.inference.llama_cpp_engine import LlamaCppEngine

    engine = LlamaCppEngine(folder / "gguf/malgil-llm-f16.gguf", slots=1, context=64)
    said = engine.generate(["<|im_start|>user\n불 켜<|im_end|>\n"], 4)
    return bytes(engine.logits([1, 5, 9]).tobytes()) + said[0].encode()


def open_folder_of_gguf(folder: Path) -> bytes:
    from safetensors.torch import load_file

    from tasks.llm.from_gguf import convert_gguf

    convert_gguf(folder / "gguf/malgil-llm-f16.gguf", folder / "back")
    weights = load_file(folder / "back/model.safetensors")
    return b"".join(weights[name].view(-1).float().numpy().tobytes() for name in sorted(weights))


def open_onnx(folder: Path) -> bytes:
    import numpy as np

    from tasks.artifacts import read_json, sha256_file, write_json
    from tasks.asr.engines.onnx_model import OnnxRecogniser

    path, about = folder / "shipped/model.int8.onnx", folder / "shipped/malgil.json"
    write_json(
        about, {**read_json(about), "sha256": sha256_file(path)}
    )  # as somebody would who made the file
    audio = np.random.default_rng(1).normal(0, 0.1, 8_000).astype(np.float32)
    recogniser = OnnxRecogniser(folder / "shipped", threads=1)
    said = recogniser.transcribe([audio])
    return bytes(recogniser.logits(audio).tobytes()) + said[0].encode()


def _weights(model: Any) -> bytes:
    return b"".join(value.float().numpy().tobytes() for _, value in sorted(model.state_dict().items()))


# Mutations -----------------------------------------------------------------------------------------


def mutate_bytes(rng: random.Random, data: bytearray, header: int) -> bytearray:
    """One change of bytes: mostly within the first `header` of them."""
    place = rng.randrange(max(1, min(header, len(data)) if rng.random() < 0.9 else len(data)))
    kind = rng.randrange(6)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[place] = rng.randrange(256)
    elif kind == 2:
        data[place : place + 8] = struct.pack("<Q", rng.choice(HOSTILE))
    elif kind == 3:
        data[place : place + 4] = struct.pack("<I", rng.choice(HOSTILE) & 0xFFFFFFFF)
    elif kind == 4:
        del data[place : place + rng.choice((1, 4, 8, 100, len(data)))]
    else:
        data[place:place] = rng.randbytes(rng.choice((1, 8, 64)))
    return data


def mutate_safetensors(rng: random.Random, path: Path) -> None:
    """Length, JSON, names, types, shapes or offsets of the header."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", bytes(data[:8]).ljust(8, b"\0"))
    kind = rng.randrange(9)
    if kind < 2 or length > len(data) - 8:
        path.write_bytes(mutate_bytes(rng, data, 8 if kind else 8 + length))
        return
    try:
        header = json.loads(data[8 : 8 + length])
        names = [name for name in header if name != "__metadata__"]
        name = rng.choice(names)
        tensor = header[name]
        if kind == 2:
            tensor["dtype"] = rng.choice(DTYPES)
        elif kind == 3:
            shape = tensor["shape"]
            tensor["shape"] = rng.choice(
                (shape[::-1], [*shape, 1], [], [rng.choice(HOSTILE)], [-1], [2**40, 2**40], ["a"], None)
            )
        elif kind == 4:
            other = header[rng.choice(names)]["data_offsets"]
            tensor["data_offsets"] = rng.choice(
                (other, other[::-1], [0, 2**63], [-8, 0], [0], [0.5, 1], None, [1, 1])
            )
        elif kind == 5:
            del header[name]
        elif kind == 6:
            header[rng.choice((name + "x", name.replace("layers.0", "layers.7"), "", "a" * 5000, "\0"))] = (
                header.pop(name)
            )
        elif kind == 7:
            header["__metadata__"] = rng.choice(HOSTILE_JSON)
        else:
            header[name] = rng.choice(HOSTILE_JSON)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        path.write_bytes(mutate_bytes(rng, data, 8 + length))  # broken by an earlier mutation
        return
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def mutate_weights(rng: random.Random, folder: Path) -> None:
    mutate_safetensors(rng, folder / "model.safetensors")


def mutate_adapter(rng: random.Random, folder: Path) -> None:
    path = folder / "adapter/adapter_config.json"
    if rng.random() < 0.4:
        mutate_safetensors(rng, folder / "adapter/adapter_model.safetensors")
    elif rng.random() < 0.2:
        path.write_bytes(mutate_bytes(rng, bytearray(path.read_bytes()), 4_000))
    else:
        try:
            config = json.loads(path.read_text("utf-8"))
            extra = (
                "megatron_config", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
                "new_setting", "trainable_token_indices", "modules_to_save", "target_parameters", "use_dora",
                "init_lora_weights", "r", "lora_alpha", "target_modules",
            )  # fmt: skip
            config[rng.choice([*config, *extra])] = rng.choice(HOSTILE_JSON)
            path.write_text(json.dumps(config), encoding="utf-8")
        except (ValueError, TypeError):
            path.write_text(json.dumps(rng.choice(HOSTILE_JSON)), encoding="utf-8")


def mutate_gguf(rng: random.Random, folder: Path) -> None:
    path = folder / "gguf/malgil-llm-f16.gguf"
    data = bytearray(path.read_bytes())
    kind = rng.randrange(4)
    if kind < 2:
        # the metadata of numbers, the tokenizer's lists, and the tensors, which lie behind each other
        regions = [
            0,
            24,
            data.find(b"tokenizer.ggml.model"),
            data.find(b"tokenizer.chat_template"),
            data.find(b"token_embd"),
            data.find(b"blk.1.ffn_up"),
        ]
        start = max(0, rng.choice(regions))
        part = mutate_bytes(rng, data[start:], 1_500)
        path.write_bytes(bytes(data[:start]) + bytes(part))
        return
    keys = (b"llama.", b"tokenizer.ggml.", b"general.")
    places = [at for key in keys for at in _all(data, key)]
    if not places:
        path.write_bytes(mutate_bytes(rng, data, 1_000))
        return
    at = rng.choice(places)
    (length,) = struct.unpack("<Q", data[at - 8 : at])  # of the key
    value = at + min(length, 200)  # the type of the value, and then the value
    if kind == 2:
        data[value : value + 4] = struct.pack("<I", rng.choice((*range(14), 99)))
    else:
        data[value + 4 : value + 8] = struct.pack("<I", rng.choice(HOSTILE) & 0xFFFFFFFF)
    path.write_bytes(data)


def mutate_onnx(rng: random.Random, folder: Path) -> None:
    import onnx
    from google.protobuf.message import DecodeError

    path = folder / "shipped/model.int8.onnx"
    data = bytearray(path.read_bytes())
    if rng.random() < 0.4:
        path.write_bytes(mutate_bytes(rng, data, len(data)))
        return
    try:
        model = onnx.load_from_string(bytes(data))
        graph, kind = model.graph, rng.randrange(9)
        weight, node = rng.choice(graph.initializer), rng.choice(graph.node)
        if kind == 0:
            graph.initializer.remove(weight)
        elif kind == 1:
            weight.data_location = onnx.TensorProto.EXTERNAL
            entry = weight.external_data.add()
            entry.key, entry.value = (
                "location",
                rng.choice(("../../etc/passwd", "/etc/passwd", "weights.bin")),
            )
            weight.ClearField("raw_data")
        elif kind == 2:
            weight.dims[:] = rng.choice(
                ([2**40], [-1], [0], list(weight.dims)[::-1], [*weight.dims, 2], [2**62, 2**62])
            )
        elif kind == 3:
            weight.data_type = rng.randrange(30)
        elif kind == 4:
            node.op_type = rng.choice([other.op_type for other in graph.node] + ["Loop", "Nothing", ""])
        elif kind == 5:
            (rng.choice((graph.input, graph.output)))[0].name = rng.choice(("x", "", "logits"))
        elif kind == 6:
            entry = rng.choice(model.metadata_props)
            entry.value = rng.choice(
                ("", "null", "[]", "{", "{}", "-1", entry.value[: len(entry.value) // 2])
            )
        elif kind == 7 and node.attribute:
            attribute = rng.choice(node.attribute)
            attribute.i = rng.choice((0, -1, 1, 2**31, 2**62))
            attribute.ints[:] = [rng.choice((0, -1, 1, 2**31, 2**62)) for _ in attribute.ints]
        else:
            node.input[:] = rng.choice((list(node.input)[::-1], ["nowhere"], [], [*node.input, *node.output]))
        path.write_bytes(model.SerializeToString())
    except (ValueError, IndexError, TypeError, KeyError, DecodeError):
        path.write_bytes(mutate_bytes(rng, data, len(data)))  # broken by an earlier mutation


def _all(data: bytes | bytearray, key: bytes) -> list[int]:
    places, at = [], data.find(key)
    while at >= 0:
        places.append(at)
        at = data.find(key, at + 1)
    return [at for at in places if at >= 8]


KINDS: dict[
    str, tuple[Callable[[Path], None], Callable[[random.Random, Path], None], Callable[[Path], bytes]]
] = {
    "safetensors_asr": (make_checkpoint, mutate_weights, open_checkpoint),
    "safetensors_llm": (make_llm, mutate_weights, open_llm),
    "adapter": (make_adapter, mutate_adapter, open_adapter),
    "gguf": (make_gguf, mutate_gguf, open_gguf),
    "gguf_to_folder": (make_gguf, mutate_gguf, open_folder_of_gguf),
    "onnx": (make_onnx, mutate_onnx, open_onnx),
}


# Processes -----------------------------------------------------------------------------------------


def child(plan: list[tuple[str, int, int]], models: Path) -> None:
    """Opens inputs one after the other; a line when one begins, and a line with what came of it."""
    limited = False
    for kind, first, count in plan:
        make, _, opens = KINDS[kind]
        model = models / kind
        if not (model / "made").exists():
            make(model)
            (model / "made").touch()
        with tempfile.TemporaryDirectory() as scratch:
            whole = opens(Path(shutil.copytree(model, Path(scratch) / "whole")))
            if not limited:
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                most = pages * resource.getpagesize() + MEMORY_BYTES
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
                limited = True
            for number in range(first, first + count):
                _say({"begins": number, "kind": kind})
                outcome, what = _open(kind, number, model, Path(scratch) / "input", whole)
                _say({"ended": number, "kind": kind, "outcome": outcome, "what": what[:300]})


def _open(kind: str, number: int, model: Path, folder: Path, whole: bytes) -> tuple[str, str]:
    """Makes one input, opens it, and says what came of it."""
    from tasks.errors import MalgilError

    _, mutate, opens = KINDS[kind]
    rng = random.Random(f"{kind} {number}")
    shutil.copytree(model, folder)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutate(rng, folder)
    try:
        return ("loaded_equal" if opens(folder) == whole else "loaded_other"), ""
    except MalgilError as error:
        complete = error.exit_code and error.what and error.rule and error.next_step
        return ("refused" if complete else "traceback"), f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001 - this is what is looked for
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)


def _say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def opened(plan: list[tuple[str, int, int]], models: Path) -> list[dict[str, Any]]:
    """What came of every input; a child that dies or hangs is an outcome, and another goes on behind it."""
    found: list[dict[str, Any]] = []
    while plan:
        rows, ended = _run(plan, models)
        for row in rows:
            if "ended" in row:
                found.append(row)
                plan = _without(plan, row)
        begun = next((row for row in rows[::-1] if "begins" in row), None)
        if plan and (begun is None or _ends(rows, begun)):
            raise SystemExit(f"the child did not begin {plan[0]}: {ended}")
        if plan and begun is not None:
            outcome = "hang" if ended.startswith("no answer") else "crash"
            row = {"ended": begun["begins"], "kind": begun["kind"], "outcome": outcome, "what": ended}
            found.append(row)
            plan = _without(plan, row)
    return found


def _run(plan: list[tuple[str, int, int]], models: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows that one child writes until it ends, and how it ended."""
    command = [sys.executable, __file__, "--child", json.dumps(plan), str(models)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        rows: list[dict[str, Any]] = []
        hung = False
        while True:
            try:
                busy = bool(rows) and "begins" in rows[-1]
                line = lines.get(timeout=INPUT_SECONDS if busy else START_SECONDS)
            except queue.Empty:
                hung = True
                process.kill()
                break
            if line is None:
                break
            if line.startswith('{"'):  # else of a native library
                rows.append(json.loads(line))
        code = process.wait()
        errors.seek(0)
        said = errors.read()[-600:]
    how = "no answer" if hung else signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return rows, f"{how}; {said}"


def _read(stream: Any, lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _ends(rows: list[dict[str, Any]], begun: dict[str, Any]) -> bool:
    return any(row.get("ended") == begun["begins"] and row["kind"] == begun["kind"] for row in rows)


def _without(plan: list[tuple[str, int, int]], row: dict[str, Any]) -> list[tuple[str, int, int]]:
    """What is left behind an input that is through."""
    kind, first, count = plan[0]
    assert (kind, first) == (row["kind"], row["ended"])
    return ([(kind, first + 1, count - 1)] if count > 1 else []) + plan[1:]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=2_000, help="of all kinds together, or of --kind")
    parser.add_argument("--kind", choices=list(KINDS), help="this one alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--verbose", action="store_true", help="every outcome, not findings alone")
    options = parser.parse_args()
    kinds, started = [options.kind] if options.kind else list(KINDS), time.monotonic()
    share, rest = divmod(options.inputs, len(kinds))
    plan = [(kind, options.first, share + (place < rest)) for place, kind in enumerate(kinds)]
    with tempfile.TemporaryDirectory() as models:
        found = opened([part for part in plan if part[2]], Path(models))
    findings = [row for row in found if row["outcome"] in ("traceback", "crash", "hang")]
    report = {
        "inputs": len(found),
        "seconds": round(time.monotonic() - started, 1),
        "outcomes": dict(Counter(row["outcome"] for row in found)),
        "by_kind": {
            kind: dict(Counter(row["outcome"] for row in found if row["kind"] == kind)) for kind in kinds
        },
        "findings": findings,
    }
    print(json.dumps(report | ({"all": found} if options.verbose else {}), ensure_ascii=False, indent=2))
    return 1 if findings else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child([tuple(part) for part in json.loads(sys.argv[2])], Path(sys.argv[3]))
        raise SystemExit(0)
    raise SystemExit(main())
