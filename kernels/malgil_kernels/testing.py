"""What tests and benchmarks of all ops share: the tolerance policy and the awkward sizes.

A result is judged by its largest difference from the float64 reference, divided by the reference's largest
magnitude. float32 leaves room for the order of summation, the 16-bit types for the rounding of the result.
"""

import torch

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
AWKWARD_SIZES = (1, 63, 100, 1000)


def relative_error(result: torch.Tensor, truth: torch.Tensor, terms: torch.Tensor | None = None) -> float:
    """Largest |result − truth| over the largest |truth|; inf if the result has a NaN.

    Args:
        result: what the kernel gave, any dtype.
        truth: the reference's, float64.
        terms: where `truth` is a difference of nearly equal terms, one of them: its magnitude, not that
            of the difference, bounds the rounding.
    """
    if result.shape != truth.shape:
        raise ValueError(f"shapes {tuple(result.shape)} and {tuple(truth.shape)} differ")
    if truth.numel() == 0:
        return 0.0
    difference = (result.detach().double() - truth.detach().double()).abs().max()
    if torch.isnan(difference):
        return float("inf")
    scale = (truth if terms is None else terms).detach().double().abs().max()
    return float(difference / scale.clamp_min(1e-30))
