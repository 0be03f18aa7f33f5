"""The baseline: which statistics a model's tensors have, on which grids, and how the calibration
data fell on them.

The exporter fits it, the agent counts on its grids, the collector compares with its counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.columns import blocks
from edgeml.decoding import from_json
from edgeml.errors import StatisticsError
from edgeml.statistics.accuracy import Calibration, calibration_of
from edgeml.statistics.counts import Counts
from edgeml.statistics.families import (
    FAMILIES,
    MAX_CLASSES,
    MAX_COLUMNS,
    Context,
    Vectors,
)
from edgeml.statistics.families.sampling import row_step
from edgeml.statistics.fitting import fit_categories, fit_grid, fit_vectors
from edgeml.statistics.grid import MAX_DIMENSIONS, NUMERIC_BINS, Grid
from edgeml.statistics.naming import changed, digest

SCHEMA = 2
"""Of the baseline. 1 had other cells, and neither sums nor extremes."""

FEW_VALUES = 32
"""A column of integers with at most so many distinct ones holds categories."""

ROWS_A_VALUE = 4
"""Calibration samples for each of them, at least."""

CHANNELS = (1, 3, 4)

RANGE: dict[str, tuple[str, ...]] = dict.fromkeys(("image", "audio"), ("low", "high"))
"""Of families that clip at a range: what in their context is a part of a baseline's name even where
it is that of the default."""

NO_FAMILY = "none"
"""Asked for where an input is to have no statistics."""

Side = Literal["input", "output"]


class TensorLike(Protocol):
    """What fitting must know of a tensor; :class:`edgeml.bundle.Tensor` is one."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def meaning(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def feature_names(self) -> tuple[str, ...]: ...


class Stream(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One statistic of one tensor."""

    name: str
    """``tensor.statistic``, unique in its model."""
    grid: Grid
    counts: tuple[int, ...]
    """Of the calibration samples: the cells."""
    sums: tuple[int, ...] = ()
    extremes: tuple[int, ...] = ()
    temporal: bool = False
    """It compares neighbours in time, and calibration samples have no order: never compared with
    the baseline, only with the device's own past."""

    def baseline(self) -> Counts:
        """The calibration counts."""
        return Counts(self.grid.hash, self.counts, self.sums, self.extremes)


class TensorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """All statistics of one tensor: streams in the order of the family's columns."""

    tensor: str
    side: Side
    family: str
    context: Context
    streams: tuple[Stream, ...]
    calibration: Calibration | None = None
    """Of class scores: how often the model was right by how sure it was, where samples had labels;
    from it accuracy is estimated where there are none."""

    def state(self) -> Any:
        """What :meth:`compute` remembers from one batch to the next; new, nothing seen yet."""
        return FAMILIES[self.family].state(self.context)

    def vectors(self, batch: NDArray[np.generic]) -> Vectors:
        """What of a batch is counted as vectors, float32 [n, d] by name."""
        return FAMILIES[self.family].vectors(batch, self.context)

    def compute(self, batch: NDArray[np.generic], state: Any = None) -> NDArray[np.float64]:
        """Statistics of a batch [n, …] → float64 [n, streams]; ``state`` is of :meth:`state`."""
        return FAMILIES[self.family].compute(batch, self.context, state)


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The statistics of a model, input tensors first."""

    tensors: tuple[TensorStatistics, ...]
    rows: int
    """Calibration samples behind the counts."""
    schema: int = SCHEMA

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over what counts on it mean: families, their contexts, streams and
        grids, in their order. What the calibration samples came to is not in it."""
        meaning = [
            (
                each.tensor,
                each.side,
                each.family,
                changed(each.context, besides=RANGE.get(each.family, ())),
                [(s.name, s.grid.content) for s in each.streams],
            )
            for each in self.tensors
        ]
        return digest(meaning)

    @property
    def streams(self) -> dict[str, Stream]:
        """Every stream by name."""
        return {stream.name: stream for tensor in self.tensors for stream in tensor.streams}

    def encode(self) -> bytes:
        """JSON, the content of the bundle's member."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> Baseline:
        """Read what :meth:`encode` wrote.

        Raises:
            StatisticsError: it is something else.
        """
        try:
            baseline = from_json(data, Baseline)
        except msgspec.DecodeError as error:
            raise StatisticsError(
                f"the statistics baseline cannot be read: {error}",
                expected=f"baseline schema {SCHEMA}",
                remedy="Export the model again with this version of edgeml.",
            ) from error
        if baseline.schema != SCHEMA or any(t.family not in FAMILIES for t in baseline.tensors):
            raise StatisticsError(
                f"a baseline of schema {baseline.schema} with the statistics "
                f"{', '.join(sorted({t.family for t in baseline.tensors}))}",
                expected=f"schema {SCHEMA} with {', '.join(FAMILIES)}",
                remedy="Update edgeml here, or, of an older schema, export the model again.",
            )
        return baseline


def fit_baseline(
    inputs: Mapping[str, NDArray[np.generic]],
    outputs: Mapping[str, NDArray[np.generic]],
    *,
    input_tensors: tuple[TensorLike, ...],
    output_tensors: tuple[TensorLike, ...],
    evaluated: Mapping[str, tuple[NDArray[np.generic], NDArray[np.generic]]] | None = None,
    families: Mapping[str, str] | None = None,
) -> Baseline:
    """Fit grids to calibration data and count it on them.

    Args:
        inputs: calibration samples by tensor name, each [n, …] without the batch axis of one. They
            may be mapped files, and are gone through in blocks: every statistic is one of a single
            sample, so the result is that of all at once.
        outputs: what the source model made of the same samples.
        input_tensors: what the inputs mean.
        output_tensors: what the outputs mean.
        evaluated: by the name of an output, what the model made of labelled samples that it was not
            trained on [n, classes], and their class numbers [n].
        families: of inputs, by name, where it is not to be that of their meaning: one of
            :data:`~edgeml.statistics.families.FAMILIES`, or ``none``.

    Raises:
        StatisticsError: the shape of an input does not allow the family that was asked for.
    """
    sides: tuple[tuple[Side, tuple[TensorLike, ...], Mapping[str, NDArray[np.generic]]], ...] = (
        ("input", input_tensors, inputs),
        ("output", output_tensors, outputs),
    )
    asked = {("input", name): family for name, family in (families or {}).items()}
    fitted = tuple(
        _fit_tensor(tensor, side, arrays[tensor.name], asked.get((side, tensor.name), ""))
        for side, tensors, arrays in sides
        for tensor in tensors
        if arrays[tensor.name].dtype.kind in "biuf" and arrays[tensor.name].size
        if asked.get((side, tensor.name)) != NO_FAMILY
    )
    fitted = tuple(_calibrated(tensor, evaluated or {}) for tensor in fitted)
    return Baseline(tensors=fitted, rows=len(next(iter(inputs.values()))))


def _calibrated(
    tensor: TensorStatistics,
    evaluated: Mapping[str, tuple[NDArray[np.generic], NDArray[np.generic]]],
) -> TensorStatistics:
    if tensor.side == "input" or tensor.family != "scores" or tensor.tensor not in evaluated:
        return tensor
    calibration = calibration_of(*evaluated[tensor.tensor], tensor.context)
    return msgspec.structs.replace(tensor, calibration=calibration)


def _fit_tensor(
    tensor: TensorLike, side: Side, batch: NDArray[np.generic], asked: str
) -> TensorStatistics:
    name, context = _family(tensor, batch, asked)
    family = FAMILIES[name]
    state = family.state(context)
    columns: list[NDArray[np.float64]] = []
    vectors: dict[str, list[NDArray[np.float32]]] = {}
    for _, block in blocks(batch):
        columns.append(family.compute(block, context, state))
        for of, found in family.vectors(block, context).items():
            vectors.setdefault(of, []).append(found)
    matrix = np.concatenate(columns)
    # Input and output tensors may share a name; the side keeps their streams apart.
    prefix = f"{side}.{tensor.name}"
    fixed = family.grids(context)
    streams = [
        _stream(
            f"{prefix}.{of}",
            fixed.get(of) or _fit(column, categorical=of in context.categorical),
            column,
            temporal=of in family.temporal,
        )
        for of, column in zip(family.names(context), matrix.T, strict=True)
    ]
    for of, parts in vectors.items():
        whole = np.concatenate(parts)
        grid = Grid(kind="vector", bins=whole.shape[1])
        grid = fit_vectors(whole) if np.isfinite(whole).all(axis=1).any() else grid
        streams.append(_stream(f"{prefix}.{of}", grid, whole))
    return TensorStatistics(
        tensor=tensor.name, side=side, family=name, context=context, streams=tuple(streams)
    )


def _fit(column: NDArray[np.float64], *, categorical: bool) -> Grid:
    if not np.isfinite(column).any():  # it is missing in every sample
        return Grid(kind="numeric", bins=NUMERIC_BINS)
    return fit_categories(column) if categorical else fit_grid(column)


def _stream(
    name: str, grid: Grid, values: NDArray[np.floating[Any]], *, temporal: bool = False
) -> Stream:
    counts = Counts.of(grid, values)
    return Stream(
        name=name,
        grid=grid,
        counts=tuple(counts.cells.tolist()),
        sums=tuple(counts.sums.tolist()),
        extremes=tuple(counts.extremes.tolist()),
        temporal=temporal,
    )


def _family(tensor: TensorLike, batch: NDArray[np.generic], asked: str = "") -> tuple[str, Context]:
    """The family that was asked for, else the one that the tensor's meaning asks for, where its
    shape allows that family.

    Raises:
        StatisticsError: the shape does not allow the one that was asked for.
    """
    context = _context(asked or tensor.meaning, tensor, batch)
    if context is None and asked:
        raise StatisticsError(
            f"The statistics {asked!r} of {tensor.name!r}, {list(batch.shape[1:])} a sample",
            expected=f"an image of four axes, at most {MAX_COLUMNS} features, {MAX_DIMENSIONS} "
            f"dimensions of an embedding, or from 2 to {MAX_CLASSES} scores",
            remedy="Choose others, or leave --statistics out.",
        )
    return ("tensor", Context()) if context is None else (asked or tensor.meaning, context)


def _context(family: str, tensor: TensorLike, batch: NDArray[np.generic]) -> Context | None:
    """What a family has to know of a tensor; None where its shape does not allow it."""
    width = int(np.prod(batch.shape[1:]))
    context: Context | None = None
    match family:
        case "image" if batch.ndim == 4:
            context = _image_context(tensor, batch)
        case "audio":
            low, high = _range(batch)
            context = Context(low=low, high=high)
        case "embedding" if width <= MAX_DIMENSIONS:
            context = Context()
        case "scores" if 2 <= width <= MAX_CLASSES:
            shares = all(_shares(block) for _, block in blocks(batch))
            context = Context(probabilities=shares, classes=width)
        case "features" if width <= MAX_COLUMNS:
            names = tensor.feature_names or tuple(f"f{i}" for i in range(width))
            context = Context(columns=names, categorical=_categorical(names, batch))
        case "tensor":
            context = Context()
        case _:
            pass
    return context


def _image_context(tensor: TensorLike, batch: NDArray[np.generic]) -> Context:
    layout = tensor.layout
    if layout not in {"NCHW", "NHWC"}:
        layout = "NCHW" if batch.shape[1] in CHANNELS else "NHWC"
    low, high = _range(batch)
    return Context(
        layout=layout,
        low=low,
        high=high,
        channels=batch.shape[layout.index("C")],
        row_step=row_step(batch.shape[layout.index("H")]),
    )


def _categorical(names: tuple[str, ...], batch: NDArray[np.generic]) -> tuple[str, ...]:
    """The columns that hold few distinct integers, of a tensor that holds nothing else. In one of
    floats a code cannot be told from an amount; its atoms catch what is frequent."""
    if batch.dtype.kind not in "iub":
        return ()
    flat = batch.reshape(len(batch), -1)
    # Of few samples any column has few values.
    most = min(FEW_VALUES, len(flat) // ROWS_A_VALUE)
    few = [len(np.unique(flat[:, n])) <= most for n in range(len(names))]
    return tuple(name for name, is_few in zip(names, few, strict=True) if is_few)


def _shares(batch: NDArray[np.generic]) -> bool:
    """Whether every row is non-negative and adds up to one."""
    rows = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3))


def _range(batch: NDArray[np.generic]) -> tuple[float, float]:
    """Where values clip: for the integers of a sensor at the ends of their dtype, whether the
    calibration data reaches them or not; for floats at its smallest and largest finite value."""
    if batch.dtype.kind in "iu" and batch.dtype.itemsize <= 2:
        bounds = np.iinfo(str(batch.dtype))
        return float(bounds.min), float(bounds.max)
    low, high = np.inf, -np.inf
    for _, block in blocks(batch):
        values = np.asarray(block, dtype=np.float64)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 1.0)
