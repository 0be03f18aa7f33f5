"""Vectors of floats: norm, mean, and what they add up to in a space where a mean is a distribution.

``features`` holds cos(Wx) and sin(Wx), W Gaussian (Rahimi, Recht, "Random features for large-scale
kernel machines", 2007). A mean of it is linear, hence it merges; the squared distance of two such
means is the maximum mean discrepancy under a Gaussian kernel (Gretton and others, "A kernel
two-sample test", 2012), which sees any change of the distribution: of correlations, of clusters.
``vector`` is the embedding itself in units of the bandwidth; its mean is quicker where all of it
moved one way.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.families.family import Batch, Context, Family, Matrix, Vectors

FREQUENCIES = 128
"""Rows of W: 256 numbers of cos and sin, whose product approximates the kernel within 1/√128."""

MAX_WIDTH = 256
"""Wider embeddings are not carried themselves; their mean is in the features all the same."""

BOUND = 16.0
"""Bandwidths from zero: a coordinate further out is taken to be there, so that sums are finite."""

SEED = 20260101
PAIRS = 2000


def names(context: Context) -> tuple[str, ...]:  # noqa: ARG001
    """Of the columns."""
    return ("norm", "mean")


def compute(batch: Batch, context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Norm and mean of each vector [n, …]."""
    flat = _flat(batch)
    if not flat.shape[1]:
        return np.full((len(flat), 2), np.nan)
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", flat, flat))
        return np.stack([norms, flat.mean(axis=1)], axis=1)


def vectors(batch: Batch, context: Context) -> Vectors:
    """``features`` float32 [n, 2·FREQUENCIES], cosines before sines, and ``vector`` [n, d] where d
    is at most MAX_WIDTH. A row of which a number is not finite is NaN throughout."""
    if context.bandwidth <= 0 or not context.width:
        return {}
    with np.errstate(all="ignore"):
        scaled = _flat(batch) / context.bandwidth
        scaled[~np.isfinite(scaled).all(axis=1)] = np.nan
        phases = scaled @ frequencies(context.width)
        found = {"features": np.concatenate([np.cos(phases), np.sin(phases)], axis=1)}
        if context.width <= MAX_WIDTH:
            found["vector"] = np.clip(scaled, -BOUND, BOUND)
    return {name: values.astype(np.float32) for name, values in found.items()}


@lru_cache(maxsize=8)
def frequencies(width: int) -> NDArray[np.float64]:
    """W [width, FREQUENCIES] for embeddings in units of their bandwidth, the same everywhere:
    NumPy promises that RandomState's numbers never change, and of no newer generator."""
    return np.random.RandomState(SEED).standard_normal((width, FREQUENCIES))


def bandwidth(batch: Batch) -> float:
    """The median distance of two samples [n, …], the usual bandwidth of the kernel; 0 where less
    than two samples are finite, or most are equal."""
    flat = _flat(batch)
    with np.errstate(all="ignore"):
        flat = flat[np.isfinite(flat).all(axis=1)]
    if len(flat) < 2 or not flat.shape[1]:
        return 0.0
    random = np.random.RandomState(SEED)
    first = random.randint(0, len(flat), PAIRS)
    second = (first + random.randint(1, len(flat), PAIRS)) % len(flat)
    with np.errstate(all="ignore"):
        distance = float(np.median(np.linalg.norm(flat[first] - flat[second], axis=1)))
    return distance if np.isfinite(distance) else 0.0


def _flat(batch: Batch) -> NDArray[np.float64]:
    width = int(np.prod(batch.shape[1:]))
    return np.asarray(batch, dtype=np.float64).reshape(len(batch), width)


FAMILY = Family(names=names, compute=compute, vectors=vectors)
