"""e-BH: the list of what drifts now, with a bound on the share of mistakes in it."""

from __future__ import annotations

from collections.abc import Sequence


def ebh(e_values: Sequence[float], alpha: float) -> list[int]:
    """Which hypotheses "nothing has changed" are rejected, at a false-discovery rate of ``alpha``.

    Sorted descending, the largest k with e_(k) ≥ S/(α·k) of S e-values are; the bound holds under
    any dependence between them (Wang, Ramdas, "False discovery rate control with e-values", 2022).

    Args:
        e_values: each with expectation at most 1 where nothing has changed.
        alpha: the rate, in (0, 1].

    Returns:
        Indices of the rejected ones, the largest e-value first.
    """
    count = len(e_values)
    ranked = sorted(range(count), key=lambda index: -e_values[index])
    rejected = 0
    for k, index in enumerate(ranked, start=1):
        if e_values[index] * alpha * k >= count:
            rejected = k
    return ranked[:rejected]
