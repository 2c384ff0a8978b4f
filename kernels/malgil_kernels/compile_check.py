"""Compiles what real launches launch, for sm_80, sm_89, sm_90 and sm_100, on a machine without a GPU.

    python -m malgil_kernels.compile_check [--op OP] [--arch 80 90] [--once] [--json FILE] [--update-baseline]

Each op folder has a `launches.py` whose `launches()` yields a row name and a call of the op. The calls run in
a process whose Triton driver has a target but no device, and whose tensors are meta tensors (shape, dtype,
strides and alignment, no storage): the launcher specialises and compiles exactly as on that GPU, and the
launch itself does nothing. A launcher that reads a tensor's values therefore fails here, as it would break a
CUDA graph. What several launches share is compiled once: Triton keeps it by source, constants and target.
`--once` compiles of each kernel only the first launch that reaches it, a twentieth of the whole.

It fails on: a launch that does not compile or needs more shared memory than the target has; more spilled
bytes than `spills.json` allows this release of Triton; a kernel of the package that no launch reaches. It
says nothing about speed or about results: those are the benchmarks' and the tests' subjects.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import multiprocessing
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from malgil_kernels.dispatch import Hardware, assume


class Target(NamedTuple):
    """What of a GPU decides whether a launch fits, and how a launcher sizes its grid."""

    shared_bytes: int  # the most that one program may have, bytes
    multiprocessors: int


# CUDA C++ programming guide, "Technical specifications per compute capability", of A100, L40S, H100, B200
TARGETS = {
    80: Target(163 * 1024, 108),
    89: Target(99 * 1024, 142),
    90: Target(227 * 1024, 132),
    100: Target(227 * 1024, 148),
}


class Built(NamedTuple):
    """One kernel of one launch, compiled. Instruction counts are of the PTX text, not of what runs."""

    op: str
    row: str
    kernel: str
    target: str
    registers: int
    spill_bytes: int  # stores + loads, per thread
    shared_bytes: int
    wgmma: int  # sm_90's and sm_100's (tcgen05) matrix instructions
    mma: int  # sm_80's matrix instruction
    cp_async: int
    tma: int

    @property
    def key(self) -> str:
        """Its name in spills.json."""
        return f"{self.op} | {self.kernel} | {self.row} | {self.target}"


class Report(NamedTuple):
    """What one op gave on one target."""

    built: list[Built]
    launched: set[str]  # full names of kernels
    errors: list[str]


class NoDevice:
    """A Triton driver that has a target and no device.

    `launched` holds (kernel, metadata) of each launch; `assembler` what Triton prints while it compiles, and
    `said` that part of it which is about one kernel, by its hash. They are of the class: Triton keeps a
    compiled kernel with its launcher for as long as the process lives, also when another op, under another
    driver, launches it again.
    """

    launched: ClassVar[list[tuple[Any, Any]]] = []
    assembler: ClassVar[io.StringIO] = io.StringIO()
    said: ClassVar[dict[str, str]] = {}

    def __init__(self, arch: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.arch, self.target = arch, GPUTarget("cuda", arch, 32)
        self.utils = self

    @staticmethod
    def is_active() -> bool:
        return True

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return self.arch  # Triton keeps compiled kernels by device: one "device" per target

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_capability(self, device: int | None = None) -> tuple[int, int]:
        return divmod(self.arch, 10)

    def get_device_properties(self, device: int) -> dict[str, int]:
        target = TARGETS[self.arch]
        return {"max_shared_mem": target.shared_bytes, "multiprocessor_count": target.multiprocessors}

    def load_binary(
        self, name: str, cubin: bytes, shared: int, device: int
    ) -> tuple[int, int, int, int, int]:
        return 0, 0, 0, 0, 1024  # module, function, registers, spills, most threads of a program

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Triton makes one launcher per compiled kernel, right after it, and calls it at each launch."""
        printed = self.assembler.getvalue()
        if f"'{metadata.name}'" in printed:  # not when the kernel came from Triton's cache
            self.said[metadata.hash] = printed
        self.assembler.seek(0)
        self.assembler.truncate()
        return lambda *_: self.launched.append((source.fn, metadata))


class Once:
    """Triton's hook before a compilation: refuses a kernel that was compiled before for other arguments."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, *, fn: Any, **_: Any) -> bool:
        name = full_name(fn.jit_function)
        known = name in self.seen
        self.seen.add(name)
        return known


def check_op(op: str, package: str, arch: int, once: bool) -> Report:
    """Runs `launches()` of one op under one target; needs a process without TRITON_INTERPRET."""
    import torch
    from triton import knobs
    from triton.runtime import driver

    no_device = NoDevice(arch)
    driver.set_active(no_device)
    os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"  # printed, and caught below: registers and spills
    knobs.runtime.jit_cache_hook = Once() if once else None
    assume(Hardware(capability=arch, multiprocessors=TARGETS[arch].multiprocessors))
    built: dict[str, Built] = {}
    launched, errors = set(), []
    with torch.device("meta"):
        for row, launch in importlib.import_module(f"{package}.{op}.launches").launches():
            no_device.launched.clear()
            try:
                with contextlib.redirect_stdout(no_device.assembler):
                    launch()
            except Exception as error:  # noqa: BLE001 — the compiler raises many kinds; each fails the check by name
                errors.append(f"{op}, {row!r}, sm_{arch}: {type(error).__name__}: {error}")
            else:
                if not no_device.launched and not once:
                    errors.append(f"{op}, {row!r}, sm_{arch}: launched nothing")
            for kernel, metadata in no_device.launched:
                launched.add(full_name(kernel))
                result = facts(op, row, metadata, arch)
                built.setdefault(f"{result.key} {metadata.hash}", result)
    return Report(list(built.values()), launched, errors)


def facts(op: str, row: str, metadata: Any, arch: int) -> Built:
    """Reads the PTX in Triton's cache and what the assembler said about it."""
    from triton.runtime.cache import get_cache_manager

    cache = get_cache_manager(metadata.hash)
    ptx = Path(cache.get_file(f"{metadata.name[:150]}.ptx")).read_text()
    known = cache.get_file("ptxas.txt")
    said = Path(known).read_text() if known else NoDevice.said.get(metadata.hash) or assemble(ptx, arch)
    if not known:
        cache.put(said, "ptxas.txt", binary=False)
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", said)]
    return Built(
        op,
        row,
        metadata.name,
        f"sm_{arch}",
        registers=max(registers),
        spill_bytes=sum(int(n) for n in re.findall(r"(\d+) bytes spill", said)),
        shared_bytes=metadata.shared,
        wgmma=len(re.findall(r"wgmma\.mma_async|tcgen05\.mma", ptx)),
        mma=len(re.findall(r"\bmma\.sync", ptx)),
        cp_async=len(re.findall(r"cp\.async\.c[ag]", ptx)),
        tma=len(re.findall(r"cp\.async\.bulk|cp\.reduce\.async\.bulk", ptx)),
    )


def assemble(ptx: str, arch: int) -> str:
    """What `ptxas -v` of Triton's wheel says, called as Triton calls it: of what its cache held."""
    import triton
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    # from 3.7 on Triton passes this to work around a bug of ptxas 13
    newer = tuple(int(n) for n in triton.__version__.split(".")[:2]) >= (3, 7)
    options = ["-lineinfo", "-v", *(["--regAllocOptLevel=2"] if newer else [])]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        name = f"--gpu-name={sm_arch_from_capability(arch)}"
        command = [get_ptxas(arch).path, *options, name, file.name, "-o", os.devnull]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def full_name(kernel: Any) -> str:
    """malgil_kernels.rms_norm.triton_op.rms_norm_forward_kernel"""
    return f"{kernel.fn.__module__}.{kernel.fn.__qualname__}"


def kernels_of(package: str) -> set[str]:
    """Full names of the package's kernels: `@triton.jit` functions that no other one of them calls."""
    from triton.runtime import JITFunction

    found: dict[str, Any] = {}
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        if not info.name.endswith("__main__"):
            members = vars(importlib.import_module(info.name)).values()
            found |= {full_name(f): f for f in members if isinstance(f, JITFunction)}
    ours = {name: f for name, f in found.items() if name.startswith(f"{package}.")}
    called: set[str] = set()
    for kernel in ours.values():
        for word in set(re.findall(r"\b\w+(?=\()", kernel.src)) - {kernel.fn.__name__}:
            helper = kernel.fn.__globals__.get(word)
            if isinstance(helper, JITFunction):
                called.add(full_name(helper))
    return set(ours) - called


def ops_of(package: str) -> list[str]:
    """Op folders that say how they are launched."""
    root = importlib.import_module(package)
    names = [info.name for info in pkgutil.iter_modules(root.__path__) if info.ispkg]
    return sorted(n for n in names if importlib.util.find_spec(f"{package}.{n}.launches"))


def supported(arch: int) -> bool:
    """Whether the assembler in Triton's wheel knows this target."""
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    try:
        said = subprocess.run([get_ptxas(arch).path, "--help"], capture_output=True, text=True, check=True)
    except (RuntimeError, OSError):
        return False
    return sm_arch_from_capability(arch) in said.stdout


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compiler() -> str:
    """Whose spills are counted: Triton's releases differ in them, its patches do not."""
    import triton

    return "triton " + ".".join(triton.__version__.split(".")[:2])


def problems(
    built: Sequence[Built], launched: set[str], wanted: set[str], baseline: dict[str, int]
) -> Iterator[str]:
    """What fails the check besides errors of the compiler: spills over the baseline, unreached kernels."""
    for one in built:
        allowed = baseline.get(one.key, 0)
        if one.spill_bytes > allowed:
            spilled = f"{one.spill_bytes} bytes spilled, {allowed} allowed"
            yield f"{one.key}: {spilled}. Next: smaller blocks or more warps"
    for name in sorted(wanted - launched):
        yield f"{name}: no launch reaches it. Next: add one to its op's launches.py"


def table(built: Sequence[Built]) -> str:
    """Plain text, one row per kernel of a launch."""
    titles = (
        "op",
        "row",
        "kernel",
        "target",
        "registers",
        "spills",
        "shared",
        "wgmma",
        "mma",
        "cp.async",
        "tma",
    )
    rows = [titles, *(tuple(str(value) for value in one) for one in built)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    return "\n".join(
        "  ".join(
            v.ljust(w) if i < 4 else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def check(
    ops: Sequence[str], archs: Sequence[int], package: str, once: bool, file: Path, update: bool
) -> tuple[list[Built], list[str]]:
    """Compiles the launches of `ops`; what was built and what fails. `file` holds the allowed spills."""
    jobs = [(op, package, arch, once) for op in ops for arch in archs]
    if len(jobs) == 1:
        reports = [check_op(*jobs[0])]
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(cores(), len(jobs)), mp_context=spawn) as pool:
            reports = list(pool.map(check_op, *zip(*jobs, strict=True)))
    built = [one for report in reports for one in report.built]
    baselines: dict[str, dict[str, int]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    baseline = baselines.get(compiler(), {})
    if update:
        now = {(op, f"sm_{arch}") for op, _, arch, _ in jobs}
        baseline = {
            key: n for key, n in baseline.items() if (key.split(" | ")[0], key.split(" | ")[-1]) not in now
        }
        baseline |= {one.key: one.spill_bytes for one in built if one.spill_bytes}
        baselines[compiler()] = baseline
        file.write_text(json.dumps(baselines, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    launched = {name for report in reports for name in report.launched}
    wanted = kernels_of(package)
    if set(ops) != set(ops_of(package)):  # other ops may launch what lies elsewhere in the package
        wanted = {name for name in wanted if name.startswith(tuple(f"{package}.{op}." for op in ops))}
    errors = [error for report in reports for error in report.errors]
    return built, errors + list(problems(built, launched, wanted, baseline))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 1 when something fails."""
    parser = argparse.ArgumentParser(prog="python -m malgil_kernels.compile_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--op", nargs="+", help="ops to check (without it all)")
    parser.add_argument("--arch", nargs="+", type=int, choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--once", action="store_true", help="of each kernel only the first launch")
    parser.add_argument("--json", type=Path, help="file for the table as JSON")
    parser.add_argument("--update-baseline", action="store_true", help="write spills.json from this run")
    parser.add_argument(
        "--package", default="malgil_kernels", help="the package whose op folders are checked"
    )
    given = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        parser.error("TRITON_INTERPRET is set: a process that interprets cannot compile. Next: unset it")
    if given.once and given.update_baseline:
        parser.error("--once leaves launches out, --update-baseline writes the spills of all. Next: drop one")
    known = ops_of(given.package)
    ops = given.op or known
    if unknown := sorted(set(ops) - set(known)):
        parser.error(f"--op {' '.join(unknown)}: must be among {', '.join(known)}")
    archs = [arch for arch in given.arch if supported(arch)]
    for arch in sorted(set(given.arch) - set(archs)):
        print(f"sm_{arch}: left out, the assembler of this Triton does not know it")
    file = Path(str(importlib.import_module(given.package).__file__)).parent / "spills.json"
    built, failures = check(ops, archs, given.package, given.once, file, given.update_baseline)
    if given.json:
        given.json.write_text(json.dumps([one._asdict() for one in built], indent=1), "utf-8")
    print(table(built))
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
