"""Whether an artifact that is being checked can still reach its tolerance. Pure.

No estimate: what is told to be lost is lost whatever the samples left would show, even where the
artifact answers them in proportion to the source, by the factor that helps most, and decides as the
source does. With A and B the squared lengths of the source's values and the artifact's on the
samples seen, P their product, and R the squared length of the source's on those left, the cosine
over all of them is at most √((P²/B + R) / (A + R)), and √(R / (A + R)) where P is negative, by the
inequality of Cauchy and Schwarz.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tolerance
from edgeml.bundle.parity import decide
from edgeml.columns import blocks

Array = NDArray[Any]

_ROUNDING = 1e-6
"""Of a cosine, at most."""


class _Output(msgspec.Struct, kw_only=True):
    """What is known of one output."""

    left: float
    """Squared length of the source's values on the samples that were not seen."""
    seen: float = 0.0
    found: float = 0.0
    product: float = 0.0
    wrong: int = 0
    """Decisions that are not the source's."""

    def cosine(self) -> float:
        """At most, over all samples."""
        kept = self.product**2 / self.found if self.product > 0 else 0.0
        whole = self.seen + self.left
        return math.sqrt(max(0.0, kept + self.left) / whole) if whole > 0 else 1.0


class Hope:
    """Of one artifact.

    Args:
        reference: what the source made of all samples, [n, …] an output.
        decisions: outputs that are scores.
        tolerance: what the artifact is to reach on all samples.
    """

    def __init__(
        self, reference: Mapping[str, Array], decisions: Collection[str], tolerance: Tolerance
    ) -> None:
        self._reference = reference
        self._decisions = decisions
        self._tolerance = tolerance
        self._outputs = {
            name: _Output(left=sum(_squared(block) for _, block in blocks(array)))
            for name, array in reference.items()
            if not _counts(array)
        }
        self._numbers = {name: 0 for name, array in reference.items() if _counts(array)}

    def lost(self, rows: Array, found: Mapping[str, Array]) -> bool:
        """Take in what the artifact made of samples that it had not seen; whether it fails for
        certain.

        Args:
            rows: their numbers.
            found: [len(rows), …] an output.
        """
        least = self._tolerance
        wrong = [self._miscounted(name, rows, found[name]) for name in self._numbers]
        for name, output in self._outputs.items():
            every = self._reference[name]
            a = every[rows].astype(np.float64)
            b = found[name].astype(np.float64).reshape(a.shape)
            if not np.isfinite(b).all():
                return True
            output.left -= _squared(a)
            output.seen += _squared(a)
            output.found += _squared(b)
            output.product += float(np.dot(a.ravel(), b.ravel()))
            if output.cosine() < least.cosine - _ROUNDING:
                return True
            if name in self._decisions:
                output.wrong += int((decide(b, every) != decide(a, every)).sum())
                wrong.append(output.wrong)
        if least.agreement is None:
            return False
        count = len(next(iter(self._reference.values())))
        return max(wrong, default=0) / count > 1 - least.agreement + _ROUNDING

    def _miscounted(self, name: str, rows: Array, found: Array) -> int:
        expected = self._reference[name][rows]
        self._numbers[name] += int((expected != found.reshape(expected.shape)).sum())
        return self._numbers[name]


def _squared(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _counts(array: Array) -> bool:
    """Whether an output is one whole number a sample, a decision in itself."""
    return array.dtype.kind in "iub" and array.size == len(array)
