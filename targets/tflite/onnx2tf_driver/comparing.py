"""A model beside the graph that it was made from, on the same inputs.

onnx2tf moves channels to the end, and with them the axes of what it returns; which axes, it does
not say. The comparison shows it, and a graph that came out as another function.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .draws import Draws, Feeds
from .protocol import NotMadeError, first_line

RELATIVE = 1e-3
"""Of the largest value of an output: a difference that float32 in another order explains."""


def compare(model: Any, draws: Draws) -> list[tuple[int, ...]]:
    """The order of each output's axes.

    Raises:
        NotMadeError: some output is another in any order of its axes, or there are other inputs, or
            it does not run.
    """
    names = {tensor.name.split(":")[0] for tensor in model.inputs}
    if not names <= set(draws[0][0]):
        raise NotMadeError(
            "failed", f"it made a model of the inputs {sorted(names)} for {sorted(draws[0][0])}"
        )
    try:
        results = [call(model, feeds) for feeds, _ in draws]
    except Exception as failure:
        raise NotMadeError("broken", first_line(failure)) from failure
    return [
        axes(
            index,
            [
                (found[index], wanted[index])
                for found, (_, wanted) in zip(results, draws, strict=True)
            ],
        )
        for index in range(len(draws[0][1]))
    ]


def axes(index: int, pairs: list[tuple[Any, Any]]) -> tuple[int, ...]:
    """The order of an output's axes in which all that was found is what was wanted."""
    found, wanted = pairs[0]
    # It computes other floats in float32.
    if found.dtype != wanted.dtype and {found.dtype.kind, wanted.dtype.kind} != {"f"}:
        raise NotMadeError("differs", f"output {index} is {found.dtype} for {wanted.dtype}")
    tried = [
        (max(difference(transposed(one, order), other) for one, other in pairs), order)
        for order in axis_orders(found.ndim)
        if np.transpose(found, order).shape == wanted.shape
    ]
    if not tried:
        shapes = f"{list(found.shape)} for {list(wanted.shape)}"
        raise NotMadeError("differs", f"output {index} has the shape {shapes}")
    # The first of equals: the order as it is, then the usual one.
    least, order = min(tried, key=lambda each: each[0])
    if not least <= RELATIVE:
        raise NotMadeError("differs", f"output {index} is off by {least:.2g} of its largest value")
    return order


def transposed(array: Any, order: tuple[int, ...]) -> Any:
    """Axes in another order, where there are as many."""
    return np.transpose(array, order) if array.ndim == len(order) else array


def call(model: Any, feeds: Feeds) -> list[Any]:
    """The model's outputs on the feeds, as a list."""
    made = model([feeds[tensor.name.split(":")[0]] for tensor in model.inputs])
    return [np.asarray(each) for each in flat(made)]


def flat(made: Any) -> list[Any]:
    """A Keras model's outputs: it gives a single one bare."""
    several: list[Any] = list(made) if isinstance(made, list | tuple) else [made]  # pyright: ignore[reportUnknownArgumentType]
    return several


def axis_orders(rank: int) -> Iterator[tuple[int, ...]]:
    """As it is; with the last axis moved to the second place; then every other order."""
    as_it_is = tuple(range(rank))
    yield as_it_is
    if rank >= 3:
        yield (0, rank - 1, *range(1, rank - 1))
    if rank <= 5:
        yield from itertools.permutations(as_it_is)


def difference(found: Any, wanted: Any) -> float:
    """The largest difference over the largest value; infinite where shapes or what is not finite
    differ, and for any difference of integers."""
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(found, wanted) else float("inf")
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return float("inf")
    if not np.isfinite(one[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(other[finite]).max()), 1e-6)
    return float(np.abs(one[finite] - other[finite]).max()) / scale
