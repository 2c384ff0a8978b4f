"""Every kernel compiles for real targets without a GPU, as real launches launch it; and the check can fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]

TOY = '''"""A toy op."""

import torch
import triton
import triton.language as tl


@triton.jit
def double(x):
    return x + x


@triton.jit
def double_kernel(x_ptr, y_ptr, size, BLOCK: tl.constexpr):
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + columns, double(tl.load(x_ptr + columns, mask=columns < size)), mask=columns < size)


@triton.jit
def reverse_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    mean = tl.sum(x) / BLOCK
    tl.store(y_ptr + BLOCK - 1 - tl.arange(0, BLOCK), x - mean)


def launches():
    x = torch.empty(65536)
'''
ROWS = {
    "double": '    yield "double", lambda: double_kernel[(64,)](x, x, x.numel(), BLOCK=1024)\n',
    "reverse": '    yield "reverse", lambda: reverse_kernel[(1,)](x, x, BLOCK=1024)\n',
    "unaligned": '    yield "unaligned", lambda: double_kernel[(64,)](x[1:], x, x.numel() - 1, BLOCK=1024)\n',
    "spilling": '    yield "one warp", lambda: reverse_kernel[(1,)](x, x, BLOCK=32768, num_warps=1)\n',
    "broken": '    yield "broken", lambda: double_kernel[(64,)](x, x, x.numel(), BLOCK=1000)\n',
    "reading": '    yield "reading", lambda: double_kernel[(int(x.sum().item()),)](x, x, 1, BLOCK=1024)\n',
    "huge": '    yield "huge", lambda: double_kernel[(1,)](torch.empty(2**42), x, 2**42, BLOCK=1024)\n',
}


def compile_check(tmp_path, *arguments, package=ROOT / "kernels"):
    """Runs the command in a process of its own: a process that interprets cannot compile."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(package), str(ROOT / "kernels")])
    command = [sys.executable, "-m", "malgil_kernels.compile_check", "--json", str(tmp_path / "table.json")]
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def toy(tmp_path):
    """Checks a package with one op and the given rows."""

    def run(*rows, baseline=None, arguments=()):
        folder = tmp_path / "toy_kernels/toy"
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "__init__.py").touch()
        (folder / "__init__.py").touch()
        (folder / "launches.py").write_text(TOY + "".join(ROWS[row] for row in rows))
        if baseline is not None:
            (folder.parent / "spills.json").write_text(json.dumps(baseline))
        return compile_check(
            tmp_path, "--package", "toy_kernels", "--arch", "90", *arguments, package=tmp_path
        )

    return run


def test_every_kernel_compiles_for_a_target_and_spills_no_more_than_is_known(tmp_path):
    done = compile_check(tmp_path, "--once", "--arch", "90")
    assert done.returncode == 0, done.stdout[-4000:]  # also when no launch reaches a kernel
    built = json.loads((tmp_path / "table.json").read_text())
    assert {row["target"] for row in built} == {"sm_90"}
    assert all(row["registers"] > 0 for row in built)


@pytest.mark.slow
def test_every_launch_compiles_for_every_target_without_new_spills(tmp_path):
    done = compile_check(tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    built = json.loads((tmp_path / "table.json").read_text())
    assert {"sm_80", "sm_90"} <= {row["target"] for row in built}
    assert all(row["registers"] > 0 for row in built)


def test_a_sound_package_passes_and_alignment_makes_another_kernel(toy, tmp_path):
    done = toy("double", "reverse", "unaligned", "huge")
    assert done.returncode == 0, done.stdout
    built = {row["row"]: row for row in json.loads((tmp_path / "table.json").read_text())}
    assert set(built) == {"double", "reverse", "unaligned", "huge"}
    assert built["unaligned"]["registers"] != built["double"]["registers"]


def test_what_fails_is_named(toy):
    done = toy("double", "broken", "reading")
    assert done.returncode == 1
    assert "toy_kernels.toy.launches.reverse_kernel: no launch reaches it" in done.stdout
    assert "toy, 'broken', sm_90: CompilationError" in done.stdout
    assert "toy, 'reading', sm_90: RuntimeError" in done.stdout
    assert done.stdout.count("FAILED") == 3


def test_spills_fail_until_the_baseline_has_them(toy, tmp_path):
    assert toy("double", "spilling", arguments=["--update-baseline"]).returncode == 0
    [(compiler, spills)] = json.loads((tmp_path / "toy_kernels/spills.json").read_text()).items()
    [(key, spilled)] = spills.items()
    assert key == "toy | reverse_kernel | one warp | sm_90"
    assert toy("double", "spilling").returncode == 0
    for baseline in ({}, {compiler: {}}, {"triton 2.0": spills}):
        done = toy("double", "spilling", baseline=baseline)
        assert done.returncode == 1
        assert f"FAILED {key}: {spilled} bytes spilled, 0 allowed" in done.stdout


def test_once_compiles_each_kernel_at_its_first_launch_and_still_names_what_fails(toy, tmp_path):
    assert toy("double", "unaligned", "reverse", arguments=["--once"]).returncode == 0
    built = json.loads((tmp_path / "table.json").read_text())
    assert [row["row"] for row in built] == ["double", "reverse"]
    done = toy("double", "reading", arguments=["--once"])
    assert done.returncode == 1
    assert "reverse_kernel: no launch reaches it" in done.stdout
    assert "toy, 'reading', sm_90: RuntimeError" in done.stdout
    assert toy("double", arguments=["--once", "--update-baseline"]).returncode == 2


def test_an_unknown_op_is_named(tmp_path):
    done = compile_check(tmp_path, "--op", "rms_nrom")
    assert done.returncode == 2
    assert "--op rms_nrom: must be among" in done.stderr
