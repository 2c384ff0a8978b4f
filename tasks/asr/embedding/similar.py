"""Which vectors of a corpus lie close together: whitening and blocked nearest neighbours. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

Vectors = np.ndarray[Any, np.dtype[np.float32]]
_DIMENSIONS = 64  # principal components kept; those behind them are mostly noise
_ROWS_PER_DIMENSION = 4  # a small corpus says less about its own spread
_BLOCK = 2_048  # rows of the matrix of cosines held at once


def whitened(vectors: Vectors) -> Vectors:
    """The vectors (n, size) with the corpus's mean removed, on its first principal components, each with
    variance 1 over the corpus, and of length 1; shape (n, components).

    What all of a corpus shares (its language, its voices' average) would make every cosine high.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    keep = max(1, min(_DIMENSIONS, len(vectors) // _ROWS_PER_DIMENSION, vectors.shape[1]))
    variances, directions = np.linalg.eigh(centred.T @ centred / max(1, len(vectors)))
    largest = np.argsort(variances)[::-1][:keep]
    spread = np.sqrt(np.maximum(variances[largest], 1e-12))
    scaled = (centred @ directions[:, largest]) / spread
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: Vectors = (scaled / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def close_pairs(unit: Vectors, neighbours: int, min_cosine: float) -> list[tuple[int, int, float]]:
    """(row, later row, cosine) of rows that are among each other's nearest, either way round.

    Args:
        unit: vectors of length 1, (n, size). The matrix of cosines is made by blocks of rows, so memory
            grows with n and time with its square.
        neighbours: per row, the nearest ones.
        min_cosine: pairs below it are left out.
    """
    found: dict[tuple[int, int], float] = {}
    count = min(neighbours, len(unit) - 1)
    for start in range(0, len(unit) if count > 0 else 0, _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -2.0
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        for row, others in enumerate(nearest.tolist()):
            for other in others:
                cosine = float(cosines[row, other])
                if cosine >= min_cosine:
                    found[min(start + row, other), max(start + row, other)] = cosine
    return [(one, other, cosine) for (one, other), cosine in sorted(found.items())]
