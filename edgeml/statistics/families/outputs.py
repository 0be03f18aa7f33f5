"""Class scores: the class, how sure the model is of it, and how much surer than of the next."""

from __future__ import annotations

import numpy as np

from edgeml.statistics.families.family import MISSING, TINY, Batch, Context, Family, Matrix
from edgeml.statistics.grid import Grid

CONFIDENCE_BINS = 16
"""Of the confidence, from which accuracy is estimated without labels."""


def names(context: Context) -> tuple[str, ...]:  # noqa: ARG001
    """The same for every number of classes."""
    return ("class", "confidence", "entropy", "margin")


def compute(batch: Batch, context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Class, confidence, entropy (0 certain … 1 uniform) and margin (confidence less that of the
    next class) of class scores [n, classes]. Of broken scores, with a NaN among them, the class is
    missing and all else NaN."""
    scores = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    classes = scores.shape[1]
    if classes < 2:
        return np.full((len(scores), 4), MISSING)
    with np.errstate(all="ignore"):
        shares = scores if context.probabilities else softmax(scores)
        entropy = -(shares * np.log(np.maximum(shares, TINY))).sum(axis=1) / np.log(classes)
        ordered = np.partition(shares, classes - 2, axis=1)
        best = ordered[:, -1]
        found = np.stack(
            [np.argmax(scores, axis=1), best, entropy, best - ordered[:, -2]], axis=1
        ).astype(np.float64)
    found[np.isnan(scores).any(axis=1)] = [MISSING, np.nan, np.nan, np.nan]
    return found


def softmax(scores: Matrix) -> Matrix:
    """Along the last axis, shifted so that it cannot overflow."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _grids(context: Context) -> dict[str, Grid]:
    # A share of exactly 1 belongs into the last bin.
    share = Grid(kind="numeric", bins=CONFIDENCE_BINS, low=0.0, high=1.0 + 1e-9)
    classes = Grid(kind="categorical", bins=context.classes)
    return {"class": classes, "confidence": share, "entropy": share, "margin": share}


FAMILY = Family(
    names=names,
    compute=compute,
    grids=_grids,
)
