"""Where outputs of an artifact and its source first part: output, sample, element, layer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SHARE = 1e-3
"""Of an output's largest value: a difference beyond it is one. Float arithmetic in another order
differs by some 1e-6 of it."""

LARGEST = 1 << 20
"""Elements of a layer that are sorted and compared; beyond them an evenly spaced part is."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first sample in which an output differs, and its element that differs most.

    Attributes:
        output: its name.
        sample: number of the sample, from 0.
        index: of the element within the sample.
        source: the source model's value.
        artifact: the artifact's.
        samples: how many samples differ, of how many.
        elements: how many elements of this sample differ, of how many.
    """

    output: str
    sample: int
    index: tuple[int, ...]
    source: float
    artifact: float
    samples: tuple[int, int]
    elements: tuple[int, int]


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer made of a sample.

    Attributes:
        name: in its graph.
        operator: as its graph calls it.
        values: the output.
        module: the source's path to it; empty where unknown.
        line: file and line of the source; empty where unknown.
    """

    name: str
    operator: str
    values: Any
    module: str = ""
    line: str = ""


class Between(msgspec.Struct, frozen=True, kw_only=True):
    """Where the values of two graphs part.

    Attributes:
        last: the last layer of the source whose values are found in the artifact; None where none
            is.
        first: the layer after it, whose values are not; None where all are found.
    """

    last: Traced | None
    first: Traced | None


def first_difference(
    reference: Mapping[str, Array], found: Mapping[str, Array], rows: Sequence[int] | None = None
) -> Difference | None:
    """The output that differs most, and where; None where none differs by more than :data:`SHARE`.

    Args:
        reference: what the source made, [n, …] an output.
        found: what the artifact made, of as many elements.
        rows: the samples' numbers, where they are not 0, 1, ….
    """
    worst: tuple[float, Difference] | None = None
    for name, expected in reference.items():
        a = expected.reshape(len(expected), -1).astype(np.float64)
        b = found[name].reshape(len(expected), -1).astype(np.float64)
        if not a.size:
            continue
        distance = np.where(np.isfinite(b), np.abs(b - a), np.inf)
        allowed = SHARE * max(float(np.abs(a).max()), 1e-30)
        differing = np.flatnonzero((distance > allowed).any(axis=1))
        if not differing.size:
            continue
        row = int(differing[0])
        column = int(distance[row].argmax())
        one = Difference(
            output=name,
            sample=row if rows is None else int(rows[row]),
            index=tuple(int(i) for i in np.unravel_index(column, expected.shape[1:] or (1,))),
            source=float(a[row, column]),
            artifact=float(b[row, column]),
            samples=(int(differing.size), len(a)),
            elements=(int((distance[row] > allowed).sum()), a.shape[1]),
        )
        size = float(distance.max()) / allowed
        if worst is None or size > worst[0]:
            worst = size, one
    return worst[1] if worst else None


def part(source: Sequence[Traced], artifact: Sequence[Traced]) -> Between:
    """Find where values part, both graphs in the order in which they run.

    Converters rename, fuse and transpose, so a layer of the source is looked for by its values, in
    any layout. One that was fused away is found nowhere, and yet nothing is wrong there: what
    counts is the last layer that is found. The values part behind it.
    """
    known = [_print(each.values) for each in artifact]
    by_size: dict[int, list[Array]] = {}
    for each in known:
        if each is not None:
            by_size.setdefault(each.size, []).append(each)
    telling = [(layer, _print(layer.values)) for layer in source]
    matched = -1
    for index, (_, values) in enumerate(telling):
        if values is not None and any(_same(values, each) for each in by_size.get(values.size, ())):
            matched = index
    later = (layer for layer, values in telling[matched + 1 :] if values is not None)
    return Between(last=telling[matched][0] if matched >= 0 else None, first=next(later, None))


def sentence(found: Difference) -> str:
    """The difference for people."""
    where = f"[{', '.join(map(str, found.index))}]"
    return (
        f"Output {found.output!r} first parts at sample {found.sample}, element {where}: "
        f"{found.artifact:.6g} for the source's {found.source:.6g} "
        f"({found.elements[0]:,} of {found.elements[1]:,} elements differ, in "
        f"{found.samples[0]:,} of {found.samples[1]:,} samples)"
    )


def layers_sentence(between: Between) -> str:
    """The layers for people; empty where there is nothing to say."""
    if between.first is None:
        return (
            "With every intermediate value kept, none parts: the runtime's fused kernels do"
            if between.last is not None
            else ""
        )
    if between.last is None:
        return f"No layer's values agree: they part before {_called(between.first)}"
    return f"Values agree up to {_called(between.last)}, and part at {_called(between.first)}"


def _called(layer: Traced) -> str:
    whence = ", ".join(filter(None, (layer.module and f"module {layer.module!r}", layer.line)))
    return f"{layer.name!r} ({layer.operator}{f'; {whence}' if whence else ''})"


def _print(values: Any) -> Array | None:
    """Values in order of size, whatever the layout; None for those that tell nothing."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.size < 2:
        return None
    flat = np.sort(array.astype(np.float64), axis=None)
    if not np.isfinite(flat).all() or flat[0] == flat[-1]:
        return None
    if flat.size > LARGEST:
        flat = flat[np.linspace(0, flat.size - 1, LARGEST).round().astype(int)]
    return flat


def _same(a: Array, b: Array) -> bool:
    return bool(np.linalg.norm(a - b) <= SHARE * np.linalg.norm(a))
