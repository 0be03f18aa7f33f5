"""How often two versions disagree on the same inputs. Pure.

Of a model that decides (classes, or one side of a threshold) two answers disagree where the
decisions differ; of any other where their cosine is below what the newer version's artifact was
held to against its source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from edgeml.bundle import Bundle
from edgeml.bundle.parity import cosine, decide
from edgeml.device_agent.worker.layout import Array

Z = 1.959964
"""Of the normal distribution, for bounds of 95 % confidence."""


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """What the pairs so far say.

    Attributes:
        pairs: inputs that both versions answered.
        differing: pairs that disagree.
        low: 95 % confidence bound below the share of inputs on which they disagree.
        high: likewise, above it: what they may still disagree on, unseen.
        max_abs: largest difference of any value of an output.
    """

    pairs: int
    differing: int
    low: float
    high: float
    max_abs: float


class Pairs:
    """Args:
    bundle: of the newer version; its golden vectors tell probabilities from logits.
    tolerance: the cosine below which answers that are no decision disagree.
    """

    def __init__(self, bundle: Bundle, *, tolerance: float) -> None:
        self._source = bundle.golden().outputs
        self._scores = {t.name for t in bundle.manifest.outputs if t.meaning == "scores"}
        self._tolerance = tolerance
        self._count = 0
        self._differing = 0
        self._max_abs = 0.0

    def add(self, active: Mapping[str, Array], other: Mapping[str, Array]) -> None:
        """Two answers to the same input, outputs by name, one sample each."""
        self._count += 1
        self._differing += any(
            self._differs(name, expected, other[name]) for name, expected in active.items()
        )

    @property
    def result(self) -> Disagreement:
        """So far."""
        low, high = wilson(self._differing, self._count)
        return Disagreement(
            pairs=self._count,
            differing=self._differing,
            low=low,
            high=high,
            max_abs=self._max_abs,
        )

    def _differs(self, name: str, expected: Array, found: Array) -> bool:
        a, b = expected.astype(np.float64), found.astype(np.float64)
        with np.errstate(invalid="ignore"):
            distance = float(np.nanmax(np.abs(a - b), initial=0.0))
        self._max_abs = max(self._max_abs, distance)
        if name in self._scores:
            source = self._source[name]
            return bool((decide(a, source) != decide(b, source)).any())
        if expected.dtype.kind in "iub":
            return bool((a != b).any())
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return not np.array_equal(a, b, equal_nan=True)
        return cosine(a.ravel(), b.ravel()) < self._tolerance


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Bounds of a share at 95 % confidence, both sides together; 0 and 1 for nothing seen.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, Journal of
    the American Statistical Association 22 (1927).
    """
    if not count:
        return 0.0, 1.0
    share, square = hits / count, Z * Z
    middle = share + square / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    scale = 1 + square / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
