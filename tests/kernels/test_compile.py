"""Every kernel compiles for real targets without a GPU, with the divisibility that real launches have."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# a process of its own: a process that interprets cannot compile
PROGRAM = """
import json, os, re, subprocess, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from malgil_kernels.rms_norm import triton_op

def source(kernel, types, constants):
    names = kernel.arg_names
    signature = {n: ("constexpr" if n in constants else types[n]) for n in names}
    aligned = [i for i, n in enumerate(names) if n.endswith(("_ptr", "_stride")) or n == "hidden"]
    attrs = {(i,): [["tt.divisibility", 16]] for i in aligned}
    return ASTSource(kernel, signature, {(names.index(k),): v for k, v in constants.items()}, attrs)

def spilled_bytes(ptx, arch):
    # the ptxas that ships inside triton's wheel says what the assembler had to spill
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    name = {80: "sm_80", 90: "sm_90a"}[arch]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [ptxas, "-v", f"--gpu-name={name}", file.name, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(int(n) for n in re.findall("([0-9]+) bytes spill", said))

forward = dict(x_ptr="*bf16", w_ptr="*bf16", y_ptr="*bf16", r_ptr="*fp32")
forward |= dict(x_stride="i32", y_stride="i32", hidden="i32", eps="fp32")
backward = dict(dy_ptr="*bf16", x_ptr="*bf16", w_ptr="*bf16", r_ptr="*fp32", dx_ptr="*bf16", dw_ptr="*fp32")
backward |= dict(dy_stride="i32", x_stride="i32", dx_stride="i32", rows="i32", hidden="i32")
out = {}
for arch in (80, 90):
    target = GPUTarget("cuda", arch, 32)
    kernels = (triton_op.rms_norm_forward_kernel, triton_op.rms_norm_backward_kernel)
    for kernel, types in zip(kernels, (forward, backward)):
        built = triton.compile(source(kernel, types, {"BLOCK": 4096}), target, {"num_warps": 16})
        facts = {"cubin_bytes": len(built.asm["cubin"]), "spills": spilled_bytes(built.asm["ptx"], arch)}
        out[f"{kernel.__name__} sm_{arch}"] = facts
print(json.dumps(out))
"""


def test_kernels_compile_for_ampere_and_hopper_without_spills(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": "kernels"}
    (tmp_path / "compile_all.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "compile_all.py")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert len(built) == 4
    for name, facts in built.items():
        assert facts["cubin_bytes"] > 0, name
        assert facts["spills"] == 0, name
