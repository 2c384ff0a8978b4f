"""Which instruction sets a CPU is said to have, from texts of /proc/cpuinfo."""

import pytest

from tasks.cpu import describe_cpu, instruction_sets, model_name, sums_in_32_bits

EPYC_MILAN = """\
processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC 7763 64-Core Processor
flags		: fpu sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c bmi1 avx2 bmi2 sha_ni vaes vpclmulqdq
"""
XEON_SAPPHIRE_RAPIDS = """\
processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8480C
flags		: fpu ssse3 avx avx2 avx512f avx512dq avx512bw avx512vl avx_vnni avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8
"""
XEON_SKYLAKE = "flags : fpu ssse3 avx2 avx512f avx512dq avx512cd avx512bw avx512vl\n"
KNIGHTS_LANDING = "flags : fpu ssse3 avx2 avx512f avx512cd avx512er avx512pf\n"
ALDER_LAKE = "flags : fpu ssse3 avx2 avx_vnni\n"
LUNAR_LAKE = "flags : fpu ssse3 avx2 avx_vnni avx_vnni_int8\n"
NEHALEM = "model name : Intel(R) Xeon(R) CPU X5570\nflags : fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt\n"
GRAVITON_2 = """\
processor	: 0
BogoMIPS	: 243.75
Features	: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
"""
GRAVITON_3 = "Features : fp asimd asimddp sve i8mm svei8mm bf16\n"
# the small cores of a phone lack what the large ones have: a kernel must run on all of them
TWO_KINDS_OF_CORES = "Features : fp asimd\n\nFeatures : fp asimd asimddp i8mm\n"
RISC_V = "processor : 0\nisa : rv64imafdc\nmmu : sv39\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (EPYC_MILAN, "AVX2"),
        (XEON_SAPPHIRE_RAPIDS, "AVX2, AVX-VNNI, AVX512BW, AVX512-VNNI, AVX512-BF16, AMX-INT8"),
        (XEON_SKYLAKE, "AVX2, AVX512BW"),
        (KNIGHTS_LANDING, "AVX2, AVX512F"),
        (ALDER_LAKE, "AVX2, AVX-VNNI"),
        (LUNAR_LAKE, "AVX2, AVX-VNNI, AVX-VNNI-INT8"),
        (NEHALEM, "SSSE3"),
        (GRAVITON_2, "NEON, NEON dotprod"),
        (GRAVITON_3, "NEON, NEON dotprod, NEON i8mm, SVE, SVE i8mm"),
        (TWO_KINDS_OF_CORES, "NEON"),
        (RISC_V, "unknown"),
        ("", "unknown"),
    ],
)
def test_the_instruction_sets_for_8_bit_products_are_named(cpuinfo: str, expected: str) -> None:
    assert describe_cpu(cpuinfo) == expected
    assert ", ".join(instruction_sets(cpuinfo)) == (expected if expected != "unknown" else "")


@pytest.mark.parametrize(
    ("cpuinfo", "exact"),
    [
        (EPYC_MILAN, False),
        (XEON_SKYLAKE, False),
        (ALDER_LAKE, True),
        (XEON_SAPPHIRE_RAPIDS, True),
        (GRAVITON_2, True),
        (TWO_KINDS_OF_CORES, True),
        ("", False),  # not known to be exact
    ],
)
def test_products_of_signed_weights_are_trusted_only_where_they_are_exact(cpuinfo: str, exact: bool) -> None:
    assert sums_in_32_bits(cpuinfo) == exact


def test_a_cpu_without_a_name_goes_by_its_architecture() -> None:
    assert model_name(EPYC_MILAN) == "AMD EPYC 7763 64-Core Processor"
    assert model_name(GRAVITON_2)  # ARM's cpuinfo has no name


def test_elsewhere_than_on_linux_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.cpu._CPUINFO", __import__("pathlib").Path("/no/such/file"))
    assert describe_cpu() == "unknown"
    assert not sums_in_32_bits()
