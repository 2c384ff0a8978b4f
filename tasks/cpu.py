"""Which instructions this CPU has for products of 8-bit integers. No command; `malgil doctor` shows it.

ONNX Runtime, llama.cpp and others choose their kernels by these, so a figure says on which it was measured.
Read from /proc/cpuinfo, which Linux alone has: elsewhere the answer is "unknown".
"""

import platform
from pathlib import Path

UNKNOWN = "unknown"
_CPUINFO = Path("/proc/cpuinfo")
# A flag of /proc/cpuinfo to its usual name, in the order in which they are told; x86, then ARM.
_NAMES = {
    "ssse3": "SSSE3",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx_vnni_int8": "AVX-VNNI-INT8",
    "avx512f": "AVX512F",
    "avx512bw": "AVX512BW",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "asimddp": "NEON dotprod",
    "i8mm": "NEON i8mm",
    "sve": "SVE",
    "svei8mm": "SVE i8mm",
    "sme": "SME",
}
_REPLACED = {"SSSE3": "AVX2", "AVX512F": "AVX512BW"}  # what says nothing beside the newer one
# Products of u8 by s8 are summed up in 32 bits at once; other x86 CPUs sum pairs in 16 bits, and saturate.
_SUMS_IN_32_BITS = {"AVX-VNNI", "AVX512-VNNI", "NEON"}


def instruction_sets(cpuinfo: str | None = None) -> tuple[str, ...]:
    """The instruction sets that matter for 8-bit products; empty where nothing is known of the CPU.

    Args:
        cpuinfo: the text of a /proc/cpuinfo; this machine's if None. A CPU whose cores differ has what all
            of them have.
    """
    text = _read() if cpuinfo is None else cpuinfo
    cores = [
        set(line.partition(":")[2].lower().split())
        for line in text.splitlines()
        if line.partition(":")[0].strip().lower() in ("flags", "features")
    ]
    flags = set.intersection(*cores) if cores else set()
    found = [name for flag, name in _NAMES.items() if flag in flags]
    return tuple(name for name in found if _REPLACED.get(name) not in found)


def describe_cpu(cpuinfo: str | None = None) -> str:
    """Those instruction sets as text, "unknown" where there are none."""
    return ", ".join(instruction_sets(cpuinfo)) or UNKNOWN


def sums_in_32_bits(cpuinfo: str | None = None) -> bool:
    """Whether ONNX Runtime's products of unsigned by signed bytes are known to be exact on this CPU."""
    return bool(_SUMS_IN_32_BITS & set(instruction_sets(cpuinfo)))


def measured_on() -> dict[str, str]:
    """What an evaluation writes down of the CPU that it ran on."""
    return {"cpu": model_name(), "instruction_sets": describe_cpu()}


def model_name(cpuinfo: str | None = None) -> str:
    """The CPU's name as the system has it, else its architecture."""
    text = _read() if cpuinfo is None else cpuinfo
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "model name":
            return value.strip()
    return platform.processor() or platform.machine() or UNKNOWN


def _read() -> str:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
