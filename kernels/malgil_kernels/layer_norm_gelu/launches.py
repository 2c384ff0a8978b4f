"""Real calls of layer_norm_gelu for the compile check: layer_norm's, with GELU."""

from collections.abc import Callable, Iterator

from malgil_kernels.layer_norm.launches import rows


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Forward and backward of each shape."""
    yield from rows(use_gelu=True)
