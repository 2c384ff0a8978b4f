"""The two code tables of NF4 with double quantisation, as bitsandbytes has them, and their rounding.

Not the packing (formats.py) and not the arithmetic of blocks (reference.py, nf4_triton_op.py).
Sources: Dettmers et al. 2023, arXiv:2305.14314 (NF4); Dettmers et al. 2022, arXiv:2110.02861 (dynamic map);
bitsandbytes 0.50.2, `functional.get_4bit_type`, `functional.create_dynamic_map`, `csrc/cpu_ops.cpp`.
"""

from functools import lru_cache

import torch

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
NF4_BLOCK = 64  # weights that share one absmax
NF4_STATISTICS_BLOCK = 256  # absmax values that share one statistic
TABLE_BINS = 65_536  # bitsandbytes' CPU build looks an absmax up on a grid of this many points


@lru_cache(maxsize=8)
def nf4_code(device: torch.device) -> torch.Tensor:
    """(16,) float32, ascending: the value of each 4-bit code."""
    return torch.tensor(NF4, dtype=torch.float32, device=device)


@lru_cache(maxsize=8)
def nf4_bounds(device: torch.device) -> torch.Tensor:
    """(15,) float32: a value over bound i has a code over i; a value on it has not."""
    code = nf4_code(torch.device("cpu"))
    return ((code[:-1] + code[1:]) / 2).to(device)


@lru_cache(maxsize=8)
def statistics_code(device: torch.device) -> torch.Tensor:
    """(256,) float32, ascending: bitsandbytes' signed dynamic map, the code of the nested absmax values.

    Seven decades of 1, 2, 4 … 64 linear steps per sign, with 0 and 1.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32, device="cpu")
        means = 10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2)
        values += means.tolist() + (-means).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32, device="cpu").to(device)


@lru_cache(maxsize=8)
def statistics_bounds(device: torch.device) -> torch.Tensor:
    """(255,) float32: the midpoints of the dynamic map."""
    code = statistics_code(torch.device("cpu"))
    return (0.5 * (code[:-1] + code[1:])).to(device)


@lru_cache(maxsize=8)
def statistics_table(device: torch.device) -> torch.Tensor:
    """(65,536,) uint8: the code of each point of the grid on [−1, 1] of bitsandbytes' CPU build."""
    steps = torch.arange(TABLE_BINS, dtype=torch.float32, device="cpu")
    grid = -1.0 + (2.0 * steps) / (TABLE_BINS - 1)
    return torch.searchsorted(statistics_bounds(torch.device("cpu")), grid).to(torch.uint8).to(device)
