"""How near an artifact comes to its source model, and whether that is near enough. Pure.

One rule for both ends: the exporter applies it before it packs an artifact, the agent on the very
device before it serves one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Parity, Tolerance

Array = NDArray[Any]


def compare(
    reference: Mapping[str, Array],
    found: Mapping[str, Array],
    decisions: Collection[str],
    tolerance: Tolerance,
) -> Parity:
    """How near an artifact comes to the source.

    An output of one whole number a sample is a decision in itself.

    Args:
        reference: what the source made of the samples, [n, …] an output.
        found: what the artifact made of them. A value that is not finite counts as infinitely far:
            the cosine of its output is −1.
        decisions: outputs that are scores, see :func:`decide`.
        tolerance: goes into the result.
    """
    cosines: list[float] = []
    distances: list[float] = []
    agreements: list[float] = []
    count = 0
    for name, expected in reference.items():
        a = expected.astype(np.float64)
        b = found[name].astype(np.float64).reshape(a.shape)
        count = len(a)
        if expected.dtype.kind in "iub" and a.size == count:
            # The number of a class: one beside it is as wrong as any.
            agreements.append(float((a == b).mean()))
            continue
        finite = bool(np.isfinite(b).all())
        cosines.append(cosine(a.ravel(), b.ravel()) if finite else -1.0)
        distances.append(float(np.abs(np.nan_to_num(b) - a).max(initial=0.0)))
        if name in decisions:
            agreements.append(float((decide(a, expected) == decide(b, expected)).mean()))
    return Parity(
        cosine=min(cosines, default=1.0),
        max_abs=max(distances, default=0.0),
        agreement=min(agreements) if agreements else None,
        samples=count,
        tolerance=Tolerance(
            cosine=tolerance.cosine, agreement=tolerance.agreement if agreements else None
        ),
    )


def decide(scores: Array, source: Array) -> Array:
    """The classes that scores stand for, [n]; -1 where a score is not finite.

    The highest column; of a single column of whole numbers, these are the classes; of a single one
    of floats, class 1 above the threshold and class 0 below, which is ½ where the source's values
    are probabilities, and 0 where they are logits.

    Args:
        scores: [n, columns], or more axes that are taken as one.
        source: what the source model made of samples, which tells probabilities from logits.
    """
    flat = scores.reshape(len(scores), -1)
    finite = np.isfinite(flat).all(axis=1)
    if flat.shape[1] == 1 and source.dtype.kind in "iub":
        chosen = np.rint(np.nan_to_num(flat[:, 0]))
    elif flat.shape[1] == 1:
        chosen = np.nan_to_num(flat[:, 0]) > threshold(source)
    else:
        chosen = np.nan_to_num(flat).argmax(axis=1)
    return np.where(finite, chosen.astype(np.int64), -1)


def threshold(source: Array) -> float:
    """Above which value a single column of scores stands for class 1."""
    return 0.5 if not source.size or (source.min() >= 0 and source.max() <= 1) else 0.0


def clarity(source: Array) -> Array:
    """How far the source model's decisions are from the next best, [n]; see :func:`decide`.

    Args:
        source: what it made of samples, [n, columns], or more axes that are taken as one.
    """
    flat = source.reshape(len(source), -1).astype(np.float64)
    if flat.shape[1] == 1:
        return np.abs(flat[:, 0] - threshold(source))
    second, first = np.sort(flat, axis=1)[:, -2:].T
    return first - second


def cosine(a: Array, b: Array) -> float:
    """Of two vectors; of two that are zero 1, of one that is 0."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    if lengths == 0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return max(-1.0, min(1.0, float(np.dot(a, b)) / lengths))


def shortfall(parity: Parity, *, golden: bool = False) -> str:
    """Which figures miss the tolerance, such as ``cosine .93 (at least .98)``; empty: none does.

    Args:
        parity: what was reached.
        golden: on the golden vectors. They are few, and the share of decisions that must agree was
            set for many: how many of them may differ is rounded up.
    """
    missed: list[str] = []
    tolerance = parity.tolerance
    if not parity.cosine >= tolerance.cosine:
        missed.append(f"cosine {parity.cosine:.5f} (at least {tolerance.cosine:g})")
    least = tolerance.agreement
    if least is not None and parity.agreement is not None:
        if golden:
            may_differ = math.ceil(round((1 - least) * parity.samples, 9))
            least = 1 - may_differ / parity.samples
        if round(parity.agreement - least, 9) < 0:
            missed.append(f"agreement {parity.agreement:.3f} (at least {least:g})")
    return ", ".join(missed)
