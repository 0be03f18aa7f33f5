"""Tensors of which nothing more is known."""

from __future__ import annotations

import numpy as np

from edgeml.statistics.families.family import MISSING, Batch, Context, Family, Matrix


def names(context: Context) -> tuple[str, ...]:  # noqa: ARG001
    """The same for every tensor."""
    return ("mean", "spread", "smallest", "largest")


def compute(batch: Batch, context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Mean, standard deviation and extremes of each sample of [n, …]."""
    flat = np.asarray(batch, dtype=np.float64).reshape(len(batch), int(np.prod(batch.shape[1:])))
    if not flat.shape[1]:
        return np.full((len(flat), 4), MISSING)
    with np.errstate(all="ignore"):
        return np.stack(
            [flat.mean(axis=1), flat.std(axis=1), flat.min(axis=1), flat.max(axis=1)], axis=1
        )


FAMILY = Family(names=names, compute=compute)
