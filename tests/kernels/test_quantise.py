"""Quantising and dequantising: kernels against the reference bit for bit, bits against bitsandbytes and gguf."""

import hashlib
import re
from functools import partial

import gguf
import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from malgil_kernels import quantise
from malgil_kernels.quantise import codes, gguf_triton_op, nf4_triton_op, reference, triton_op, unpacking
from malgil_kernels.testing import DTYPES, poisoned

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# the interpreter cuts float32 to bfloat16 where a GPU rounds, so bfloat16 outputs are compared on a GPU only
OUTPUTS = DTYPES if DEVICE == "cuda" else (torch.float32, torch.float16)

# name: (kernel, reference)
QUANTISERS = {
    "int8": (lambda w: triton_op.quantise_rows_triton(w, False), reference.quantise_int8_reference),
    "fp8 rows": (
        lambda w: triton_op.quantise_rows_triton(w, True),
        lambda w: reference.quantise_fp8_reference(w, False),
    ),
    "fp8 blocks": (
        triton_op.quantise_fp8_blocks_triton,
        lambda w: reference.quantise_fp8_reference(w, True),
    ),
    "int4 32": (
        lambda w: triton_op.quantise_int4_triton(w, 32, True),
        lambda w: reference.quantise_int4_reference(w, 32, True),
    ),
    "int4 64 with zero": (
        lambda w: triton_op.quantise_int4_triton(w, 64, False),
        lambda w: reference.quantise_int4_reference(w, 64, False),
    ),
    "int4 128 with zero": (
        lambda w: triton_op.quantise_int4_triton(w, 128, False),
        lambda w: reference.quantise_int4_reference(w, 128, False),
    ),
    "nf4 as cpu": (
        lambda w: nf4_triton_op.quantise_nf4_triton(w.contiguous(), "cpu"),
        lambda w: reference.quantise_nf4_reference(w, "cpu"),
    ),
    "nf4 as cuda": (
        lambda w: nf4_triton_op.quantise_nf4_triton(w.contiguous(), "cuda"),
        lambda w: reference.quantise_nf4_reference(w, "cuda"),
    ),
    "q8_0": (
        lambda w: gguf_triton_op.quantise_q8_0_triton(w.contiguous()),
        reference.quantise_q8_0_reference,
    ),
    "q4_0": (
        lambda w: gguf_triton_op.quantise_q4_0_triton(w.contiguous()),
        reference.quantise_q4_0_reference,
    ),
}


def matrix(rows, columns, dtype=torch.float32):
    """Normal values with what breaks quantisers: a zero row, a large value, halves."""
    generator = torch.Generator().manual_seed(rows * 7919 + columns)
    w = torch.randn(rows, columns, generator=generator) * 0.05
    w[-1, : columns // 2] = (w[-1, : columns // 2] * 64).round() / 128
    if rows > 2:
        w[1] = 0
        w[2, columns // 2] = 30
    return w.to(dtype).to(DEVICE)


def assert_same_bits(found, wanted):
    assert (found.shape, found.dtype, found.format) == (wanted.shape, wanted.dtype, wanted.format)
    assert found.tensors().keys() == wanted.tensors().keys()
    for name, tensor in wanted.tensors().items():
        other = found.tensors()[name]
        assert other.shape == tensor.shape and other.dtype == tensor.dtype, name
        different = other.contiguous().view(torch.uint8) != tensor.contiguous().view(torch.uint8)
        assert not different.any(), f"{name}: {int(different.sum())} of {different.numel()} bytes differ"


@pytest.mark.parametrize("name", QUANTISERS)
@pytest.mark.parametrize(
    ("rows", "columns", "dtype"),
    [
        (1, 63, torch.float32),
        (3, 500, torch.bfloat16),
        (5, 100, torch.float16),
        (130, 32, torch.float32),
        (4, 160, torch.float32),
    ],
    ids=str,
)
def test_kernels_give_the_references_bits(name, rows, columns, dtype):
    if name in ("q8_0", "q4_0"):
        columns = -(-columns // 32) * 32
    kernel, truth = QUANTISERS[name]
    w = matrix(rows, columns, dtype)
    strided = torch.cat([w, w.new_ones(rows, 8)], dim=1)[:, :columns]
    with poisoned():
        found = kernel(strided)
    wanted = truth(w)
    assert_same_bits(found, wanted)
    for out in OUTPUTS:
        by_kernel = (
            gguf_triton_op.dequantise_gguf_triton if name in ("q8_0", "q4_0") else triton_op.dequantise_triton
        )
        with poisoned():
            got = by_kernel(found, out)
        assert torch.equal(got, reference.dequantise_reference(wanted, out)), out


@pytest.mark.parametrize("name", ["int8", "int4 64 with zero", "nf4 as cuda", "fp8 blocks"])
def test_a_window_is_the_same_part_of_the_whole(name):
    weight = QUANTISERS[name][1](matrix(20, 320))
    whole = reference.dequantise_reference(weight, torch.float32)
    with poisoned():
        window = torch.empty(7, 100, device=DEVICE)
        triton_op.launch_dequantise(weight, window, 5, 128)
    assert torch.equal(window, whole[5:12, 128:228])


@pytest.mark.parametrize("name", QUANTISERS)
def test_what_comes_back_is_near(name):
    w = torch.randn(8, 256, generator=torch.Generator().manual_seed(9)) * 0.05
    back = QUANTISERS[name][1](w).dequantise(torch.float64)
    # half of a step: of 127, of 7 (a float16 scale), of NF4's widest gap, of e4m3's 3 bits
    step = {"int8": 1 / 254, "q8_0": 1 / 250, "fp8": 1 / 16, "int4": 1 / 13.9, "q4_0": 1 / 7.9, "nf4": 0.16}
    bound = step[re.split(r"[ ]", name)[0]]
    largest = w.double().abs().amax(1, keepdim=True)
    assert ((back - w.double()).abs() <= largest * bound + 1e-3).all()


def pattern(rows, columns):
    """The input of the known answers: multiples of 2⁻¹⁴ with an exact sum, the same on every machine."""
    i = torch.arange(rows * columns, dtype=torch.int64)
    base = ((i * 7919 + (i // 64) * 104729) % 2039 - 1019).float() / 1024
    return (base * (1 + (i // 64 * 37 % 19).float() / 16)).view(rows, columns)


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().cpu().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


# What bitsandbytes 0.50.2 (CPU build) gave for `pattern` by quantize_4bit(blocksize=64, compress_statistics=True,
# quant_type="nf4") and dequantize_4bit: sha256 of packed, absmax, nested absmax, offset, dequantised. 80 × 256 has
# a row of zeros.
KNOWN = {
    (
        3,
        190,
        "float32",
    ): "da345ea1ed8bfeaf 25a0b97387d14f60 7d60c7308830c444 d61699d1a29262bf 99fbd88d2d18beb0",
    (
        3,
        190,
        "bfloat16",
    ): "e8f9b3a95b80a392 1d3841a73f20a996 d673aef79c455224 147cb6245d2bba6f 268cfff04c6e2e80",
    (
        3,
        190,
        "float16",
    ): "da345ea1ed8bfeaf 17f40ef9d59847a0 797a6cc6033b8bff 63e1a069dcea35d4 3c4c4da521590d3a",
    (
        80,
        256,
        "float32",
    ): "68b523c2b71891c1 a6ceea671b407205 29856655a746f5e2 c8e1d726393ce445 bfa9b1d546c29e22",
    (
        80,
        256,
        "bfloat16",
    ): "5fd46ae32c840c4c c8addb1360007f2d dcb7b00cbecdd7f1 69f89b37e1c158bf 857fc498a56da6d3",
    (
        80,
        256,
        "float16",
    ): "19520d4915002448 ca068126f8fe8848 67f377a0b506283e 67cbdc55b44d9b5c e1dafd03313797ea",
}


@pytest.mark.parametrize("case", KNOWN, ids=str)
def test_nf4_is_what_bitsandbytes_gave(case):
    rows, columns, dtype = case
    w = pattern(rows, columns).to(getattr(torch, dtype)).to(DEVICE)
    if rows == 80:
        w[5] = 0
    weight = quantise.quantise_nf4(w, match="cpu")
    parts = (weight.packed, weight.absmax, weight.statistics, weight.offset, weight.dequantise())
    assert " ".join(digest(part) for part in parts) == KNOWN[case]


def test_the_first_known_bytes_can_be_read():
    weight = quantise.quantise_nf4(pattern(3, 190), match="cpu")
    assert weight.packed[:16].numpy().tobytes().hex() == "0edb85310feca74210edb86321feca75"
    assert weight.absmax.numpy().tobytes().hex() == "00d4cdc8c5b95c4d3d"
    assert [value.hex() for value in weight.statistics.tolist()] == ["0x1.91f0e40000000p-1"]
    assert weight.offset.item().hex() == "0x1.c7b8720000000p+0"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(256, 1024), (5, 100), (3, 65)])
def test_nf4_is_what_bitsandbytes_gives(rows, columns, dtype):
    functional = pytest.importorskip("bitsandbytes").functional
    w = matrix(rows, columns, dtype)
    if DEVICE == "cuda" and rows > 2:
        w[1] = 1  # its CUDA build stores a block of zeros as −1 · 0
    packed, state = functional.quantize_4bit(w, blocksize=64, compress_statistics=True, quant_type="nf4")
    weight = quantise.quantise_nf4(w)
    assert_same_bits(weight, quantise.nf4_from_bitsandbytes(packed, state))
    assert torch.equal(weight.dequantise(), functional.dequantize_4bit(packed, state).view(rows, columns))


def test_nearest_statistics_are_the_nearest():
    centred = torch.randn(1000, generator=torch.Generator().manual_seed(3))
    found, statistics = reference.quantise_statistics_reference(centred, "cuda")
    scaled = centred * (1 / statistics).repeat_interleave(256)[:1000]
    distance = (scaled[:, None] - codes.statistics_code(torch.device("cpu"))).abs()
    assert torch.equal(distance.argmin(1).to(torch.uint8), found)
    by_grid, _ = reference.quantise_statistics_reference(centred, "cpu")
    assert (by_grid.int() - found.int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0"])
def test_blocks_are_ggufs(name):
    kind = gguf.GGMLQuantizationType[name]
    w = matrix(64, 512)
    w[3, :32] = 0.25  # equals
    w[4, :32] = torch.tensor([0.5, -0.5] * 16)  # the first of equal magnitudes decides the sign
    wanted = gguf.quants.quantize(w.cpu().numpy(), kind)
    weight = getattr(quantise, f"quantise_{name.lower()}")(w)
    assert np.array_equal(weight.blocks.cpu().numpy(), wanted)
    assert np.array_equal(
        weight.dequantise(torch.float32).cpu().numpy(), gguf.quants.dequantize(wanted, kind)
    )


def test_every_e4m3_byte_decodes_and_encodes():
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    finite = values[~values.isnan()]
    w = torch.cat([finite, finite + 1e-3, (finite[1:] + finite[:-1]) / 2])[None]
    w = w[:, w[0].abs() <= 448].contiguous().to(DEVICE)
    weight = triton_op.quantise_rows_triton(w, True)
    assert weight.scale.item() == 1.0
    assert torch.equal(weight.values.float(), w.to(torch.float8_e4m3fn).float())
    assert torch.equal(triton_op.dequantise_triton(weight, torch.float32), weight.values.float())


def run_ptx(text, word):
    """Executes `unpacking`'s instructions for one 32-bit word, by the PTX manual's definitions."""
    values = {"$4": word}

    def read(name):
        return values[name] if name in values else int(name, 0)

    def prmt(a, b, selector):
        pool = (a | b << 32).to_bytes(8, "little")
        out = 0
        for place in range(4):
            nibble = selector >> 4 * place & 15
            byte = pool[nibble & 7]
            out |= (255 * (byte >> 7) if nibble & 8 else byte) << 8 * place
        return out

    def halves(kind, a, b, c):
        dtype = torch.bfloat16 if kind.startswith("bf") else torch.float16
        x, y, z = (
            torch.tensor([v & 0xFFFF, v >> 16], dtype=torch.int32).to(torch.int16).view(dtype).double()
            for v in (a, b, c)
        )
        low, high = (x * y + z).to(dtype).view(torch.int16).tolist()
        return low & 0xFFFF | (high & 0xFFFF) << 16

    for line in text.strip("{}\n").splitlines():
        if line.startswith(".reg"):
            continue
        operation, target, *rest = re.split(r"[ ,;]+", line.strip(" ;"))
        given = [read(value) for value in rest]
        values[target] = {
            "and": lambda a, b: a & b,
            "or": lambda a, b: a | b,
            "shr": lambda a, b: a >> b,
            "mov": lambda a: a,
            "prmt": prmt,
            "lop3": lambda a, b, c, table: (a & b | c) if table == 0xEA else pytest.fail("another table"),
            "fma": partial(halves, operation.split(".")[-1]),
        }[operation.split(".")[0]](*given)
    return [values[f"${place}"] for place in range(4)]


@pytest.mark.parametrize("planes", [2, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("form", ["nf4", "int4"])
def test_the_assembly_decodes_every_byte(form, dtype, planes):
    text = unpacking.assembly(form, dtype, planes)
    table = torch.tensor(codes.NF4) if form == "nf4" else torch.arange(16.0) - 8
    table = table.to(dtype)
    for first in range(0, 256, 4):
        b = [first, first + 1, 255 - first, first ^ 0x5A]
        words = run_ptx(text, int.from_bytes(bytes(b), "little"))
        halves = [word >> shift & 0xFFFF for word in words for shift in (0, 16)]
        found = torch.tensor(halves, dtype=torch.int32).to(torch.int16).view(dtype)
        high, low = [byte >> 4 for byte in b], [byte & 15 for byte in b]
        wanted = high + low if planes == 2 else high[::2] + low[::2] + high[1::2] + low[1::2]
        assert torch.equal(found, table[wanted]), b


@pytest.mark.parametrize(
    ("name", "rows"),
    [("int8", (3, 5)), ("int4 32", (3, 5)), ("nf4 as cuda", (256, 3)), ("fp8 blocks", (128, 5))],
)
def test_a_stack_is_the_weights_under_one_another(name, rows):
    parts = [QUANTISERS[name][1](matrix(count, 64)) for count in rows]
    stack = quantise.stack_rows(parts)
    wanted = torch.cat([part.dequantise(torch.float32) for part in parts])
    assert torch.equal(stack.dequantise(torch.float32), wanted)
    assert torch.equal(triton_op.dequantise_triton(stack, torch.float32), wanted)


def test_a_stack_that_would_cut_a_block_is_refused():
    parts = [QUANTISERS["nf4 as cuda"][1](matrix(count, 64)) for count in (3, 256)]
    with pytest.raises(ValueError, match="multiple of 16384"):
        quantise.stack_rows(parts)
    with pytest.raises(ValueError, match="int8 with 64 columns"):
        quantise.stack_rows([parts[0], QUANTISERS["int8"][1](matrix(3, 64))])
    with pytest.raises(TypeError, match="Q8_0Weight"):
        quantise.stack_rows([quantise.quantise_q8_0(matrix(3, 64))])
    with pytest.raises(ValueError, match="empty"):
        quantise.stack_rows([])


def test_a_row_beyond_two_to_the_31_elements():
    storage = torch.empty(2**31 + 4096, dtype=torch.int8)  # pages that nobody touches take no memory
    w = storage.view(torch.float16).as_strided((2, 256), (2**30 + 1024, 1))
    w.copy_(matrix(2, 256, torch.float16))
    far = w.as_strided((2, 256), (2**30 + 1024, 1))
    assert_same_bits(triton_op.quantise_rows_triton(far, False), reference.quantise_int8_reference(far))


@pytest.mark.parametrize("name", ["int8", "fp8 rows", "fp8 blocks", "int4 32"])
def test_no_rows_give_no_rows(name):
    weight = QUANTISERS[name][0](torch.empty(0, 64, device=DEVICE))
    assert weight.dequantise().shape == (0, 64)


def test_a_container_says_its_size_and_moves():
    weight = quantise.quantise_nf4(matrix(64, 256))
    assert weight.nbytes == 64 * 256 // 2 + 256 + 4 + 4
    assert weight.dequantise().dtype == torch.float32
    assert_same_bits(weight.to("cpu").to(DEVICE), weight)
    assert weight.device.type == DEVICE


def test_wrong_arguments_are_named():
    w = torch.ones(2, 48)
    with pytest.raises(ValueError, match=r"w has shape \(4,\)"):
        quantise.quantise_int8(torch.ones(4))
    with pytest.raises(ValueError, match=r"w is torch.int32"):
        quantise.quantise_fp8(torch.ones(4, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantise.quantise_nf4(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="group is 48"):
        quantise.quantise_int4(w, group=48)
    with pytest.raises(ValueError, match="match is 'gpu'"):
        quantise.quantise_nf4(w, match="gpu")
    with pytest.raises(ValueError, match="needs one"):
        quantise.quantise_nf4(torch.empty(0, 64))
    for refused in (quantise.quantise_q8_0, quantise.quantise_q4_0):
        with pytest.raises(ValueError, match="48 columns"):
            refused(w)
    with pytest.raises(ValueError, match=r"dtype is torch.int8"):
        quantise.quantise_int8(w).dequantise(torch.int8)


def test_a_state_that_is_not_nested_nf4_is_named():
    state = type("State", (), {"quant_type": "fp4", "blocksize": 128, "state2": None, "shape": (2, 2)})
    with pytest.raises(ValueError, match=r"\('fp4', 128, None, 2\)"):
        quantise.nf4_from_bitsandbytes(torch.zeros(2, dtype=torch.uint8), state)
