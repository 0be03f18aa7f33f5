"""The list of what drifts now, of which at most a known share is wrong.

e-BH (Wang, Ramdas, "False discovery rate control with e-values", JRSS B, 2022): of S e-values, sort
them descending and reject the largest k for which the k-th is at least S/(α·k). The expected share
of false ones in the list is at most α, under any dependence between the streams.

A Shiryaev-Roberts R has an expectation of t after t windows without a change, so R is no e-value,
and R/t is one at any time that was not chosen by looking at it. An alarm keeps the R that raised it
while t goes on: stopped, R has a mean of at most t still.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def e_value(evidence: float, windows: int) -> float:
    """R as an e-value, given the windows that its mean is at most; 1, which says nothing, before
    the first."""
    return evidence / windows if windows > 0 else 1.0


def ebh(e_values: ArrayLike, alpha: float) -> NDArray[np.intp]:
    """Indices of the e-values that are rejected at level ``alpha``, the largest first.

    Args:
        e_values: non-negative, [streams]; those that are not tested count as well, as 1.
        alpha: the false discovery rate, 0 to 1.
    """
    values = np.asarray(e_values, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    ranks = np.arange(1, values.size + 1)
    enough = np.flatnonzero(values[order] * ranks * alpha >= values.size)
    return order[: enough[-1] + 1] if enough.size else order[:0]
