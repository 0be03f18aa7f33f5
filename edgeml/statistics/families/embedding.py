"""Vectors of floats: norm, mean, and the vector itself, which is counted by its random features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.families.family import MISSING, Batch, Context, Family, Matrix, Vectors


def names(context: Context) -> tuple[str, ...]:  # noqa: ARG001
    """Of the columns."""
    return ("norm", "mean")


def compute(batch: Batch, context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Norm and mean of each vector [n, …]."""
    flat = np.asarray(_flat(batch), dtype=np.float64)
    if not flat.shape[1]:
        return np.full((len(flat), 2), MISSING)
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", flat, flat))
        return np.stack([norms, flat.mean(axis=1)], axis=1)


def vectors(batch: Batch, context: Context) -> Vectors:  # noqa: ARG001
    """``vector``: the embeddings as float32 [n, d]; infinite where they are beyond it."""
    with np.errstate(all="ignore"):
        return {"vector": np.asarray(_flat(batch), dtype=np.float32)}


def _flat(batch: Batch) -> NDArray[np.generic]:
    return batch.reshape(len(batch), int(np.prod(batch.shape[1:])))


FAMILY = Family(names=names, compute=compute, vectors=vectors)
