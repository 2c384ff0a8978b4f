"""The rules by which `dispatch.select` chooses, as data: per op, the first rule whose conditions all hold.

A rule's `source` names the benchmark that set its threshold; `UNMEASURED` says that none has yet. A rule with
`limit=True` states what the other implementations cannot do: no environment variable overrides it. An op
that is not in `RULES` has a Triton kernel for everything that it accepts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# (comparison, value). A condition on a fact that the caller did not give does not hold.
Condition = tuple[str, int | str | bool | tuple[int, int]]
UNMEASURED = "estimate, unmeasured"


@dataclass(frozen=True)
class Rule:
    """One line of an op's table."""

    implementation: str
    reason: str  # without the call's own numbers, so that a decision is logged once and not per shape
    source: str = ""
    when: Mapping[str, Condition] = field(default_factory=dict)
    limit: bool = False


# What a caller may say of a call. `dtype` ("bfloat16") and `capability` (80, 90) are known for every op.
FACTS: dict[str, frozenset[str]] = {
    "lora_linear": frozenset({"rows", "format"}),
    "attention": frozenset({"head_dim", "phase", "packed", "paged", "length", "softcap", "window"}),
}

# y = x Wᵀ + s (x Aᵀ) Bᵀ with a frozen W; rows are the tokens of the call. Dequantising W of 4096 × 14336 in
# 4 bits writes and reads 117 MB and reads 29 MB: 62 µs at 4.3 TB/s. A fused kernel at two thirds of the
# GEMM's 790 TFLOP/s loses 0.075 µs a row on it: equal near 800 rows; the power of two below, for the fused
# kernel's speed is the less certain of the two.
LORA_LINEAR = (
    Rule(
        "triton",
        "W is not quantised; at most 64 rows are bound by its bytes, read once",
        UNMEASURED,
        {"format": ("==", "bf16"), "rows": ("<=", 64)},
    ),
    Rule(
        "dequantise+gemm",
        "W is not quantised, over 64 rows: the library's matrix product, nothing to dequantise",
        UNMEASURED,
        {"format": ("==", "bf16"), "rows": (">", 64)},
    ),
    Rule(
        "dequantise+gemm",
        "over 512 rows: bound by arithmetic, where the library's matrix product is ahead",
        UNMEASURED,
        {"rows": (">", 512)},
    ),
    Rule("triton", "at most 512 rows: bound by the bytes of W, which are read quantised, once", UNMEASURED),
)

HEAD_DIMS = (16, 256)  # of the Triton kernel; a size between powers of two is padded inside it
NO_HEAD_DIM = "head dim outside 16–256, which the kernel has not"
ATTENTION = (
    Rule(
        "reference",
        f"{NO_HEAD_DIM}, and packed sequences, which SDPA has not",
        when={"head_dim": ("outside", HEAD_DIMS), "packed": ("==", True)},
        limit=True,
    ),
    Rule(
        "reference",
        f"{NO_HEAD_DIM}, and a block table, which SDPA has not",
        when={"head_dim": ("outside", HEAD_DIMS), "paged": ("==", True)},
        limit=True,
    ),
    Rule(
        "reference",
        f"{NO_HEAD_DIM}, and a soft cap, which SDPA has not",
        when={"head_dim": ("outside", HEAD_DIMS), "softcap": ("==", True)},
        limit=True,
    ),
    Rule("sdpa:math", NO_HEAD_DIM, when={"head_dim": ("outside", HEAD_DIMS)}, limit=True),
    Rule("triton", "packed sequences: SDPA would pad them", when={"packed": ("==", True)}, limit=True),
    Rule("triton", "a block table: SDPA has none", when={"paged": ("==", True)}, limit=True),
    Rule("triton", "a soft cap: SDPA has none", when={"softcap": ("==", True)}, limit=True),
    Rule(
        "triton",
        "a sliding window over at least 1,024 tokens: under a mask SDPA skips nothing",
        UNMEASURED,
        {"window": ("==", True), "length": (">=", 1024)},
    ),
    Rule(
        "sdpa:efficient",
        "a sliding window over a short or unknown length: a mask is cheap",
        UNMEASURED,
        {"window": ("==", True)},
    ),
    Rule("sdpa:efficient", "float32: flash and cuDNN have 16 bits only", when={"dtype": ("==", "float32")}),
    Rule(
        "sdpa:flash",
        "decoding without pages: bound by the bytes of keys and values",
        UNMEASURED,
        {"phase": ("==", "decoding")},
    ),
    Rule(
        "sdpa:flash",
        "at most 512 tokens: launches, not arithmetic, take the time",
        UNMEASURED,
        {"length": ("<=", 512)},
    ),
    Rule(
        "sdpa:cudnn",
        "dense, head dim at most 128, sm_90 or newer: cuDNN's kernel specialises warps",
        UNMEASURED,
        {"capability": (">=", 90), "head_dim": ("<=", 128)},
    ),
    Rule("sdpa:flash", "dense, before sm_90 or with a head dim over 128 or unknown", UNMEASURED),
)

RULES: dict[str, tuple[Rule, ...]] = {"attention": ATTENTION, "lora_linear": LORA_LINEAR}
