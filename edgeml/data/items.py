"""Arrays from what somebody's iterable gives: written to files item by item."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgeml.bundle.manifest import Tensor
from edgeml.columns import ColumnWriter, load
from edgeml.data.checks import Fit, check_names, check_shape
from edgeml.data.samples import LABELS, Array, Samples
from edgeml.errors import SourceError


def gather(
    items: Iterable[Any],
    inputs: Sequence[Tensor],
    where: str,
    folder: Path,
    *,
    limit: int | None = None,
) -> Samples:
    """Write what somebody's iterable gives to files, checked, and map them.

    An item is a sample or a batch (told apart by the number of axes) of: an array, for a single
    input; a mapping of input names (and ``labels``); or a tuple of one array an input, in order,
    with the label after them if there is one more. Anything that NumPy can take is an array, torch
    tensors among it. One item is held at a time.

    Args:
        items: the iterable. It is not read further than ``limit`` samples.
        inputs: the model's inputs.
        where: what to call the data in an error.
        folder: takes ``0.npy``, ``1.npy``… in the order of the inputs, and ``labels.npy``.
        limit: the most samples to take.

    Raises:
        SourceError: an item has none of these forms, or see :func:`edgeml.data.check_samples`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with contextlib.ExitStack() as stack:
        columns: dict[str, _Column] = {}
        for item in items:
            named = _named(item, inputs, where)
            if not columns:
                check_names(named, inputs, where)
                columns = _columns(named, inputs, where, folder)
                for column in columns.values():
                    stack.enter_context(column.writer)
            elif named.keys() != columns.keys():
                raise SourceError(
                    f"{where} gives {', '.join(named)} after {', '.join(columns)}",
                    expected="the same arrays in every item",
                )
            batched = named[inputs[0].name].ndim == len(inputs[0].shape)
            sizes: dict[str, int] = {}
            for name, array in named.items():
                batch = array if batched and array.ndim else array[np.newaxis]
                batch = batch if limit is None else batch[: limit - count]
                columns[name].add(batch, count)
                sizes[name] = len(batch)
            if len(set(sizes.values())) > 1:
                found = ", ".join(f"{size} of '{name}'" for name, size in sizes.items())
                raise SourceError(
                    f"{where} has unequal numbers of samples: {found}",
                    expected="the same number in every array",
                )
            count += next(iter(sizes.values()))
            if limit is not None and count >= limit:
                break
    if not count:
        raise SourceError(
            f"{where} gave no samples",
            expected="at least one",
            remedy="If it is a generator that was used up, name a function that returns a new one.",
        )
    missing = tuple(name for name, column in columns.items() if column.missing)
    return gathered(inputs, folder, missing=missing)


def gathered(inputs: Sequence[Tensor], folder: Path, *, missing: tuple[str, ...] = ()) -> Samples:
    """What :func:`gather` wrote, perhaps in another process."""
    files = {tensor.name: folder / f"{index}.npy" for index, tensor in enumerate(inputs)}
    arrays = {name: load(file) for name, file in files.items()}
    labels = folder / "labels.npy"
    found = np.load(labels) if labels.is_file() else None
    return Samples(arrays, found, files=files, missing=missing)


Fits = Callable[[Array, int], Array]
"""Makes rows fit, given the number of the first."""


class _Column:
    """One array on its way to the disk; what makes a batch fit is known from the first."""

    def __init__(
        self,
        name: str,
        where: str,
        file: Path,
        fit: Callable[[Array], Fits],
    ) -> None:
        self.writer = ColumnWriter(file)
        self._name = name
        self._where = where
        self._fit = fit
        self._fits: dict[str, Fits] = {}

    @property
    def missing(self) -> bool:
        """Whether there was a NaN for a missing value."""
        return any(isinstance(fit, Fit) and fit.missing for fit in self._fits.values())

    def add(self, batch: Array, first: int) -> None:
        shape = self.writer.shape
        if shape is not None and batch.shape[1:] != shape:
            raise SourceError(
                f"{self._where} gives samples of unlike shapes in '{self._name}': "
                f"{list(shape)} and {list(batch.shape[1:])}",
                expected="the same shape for every sample",
            )
        kind = str(batch.dtype)
        if kind not in self._fits:
            self._fits[kind] = self._fit(batch)
        self.writer.append(self._fits[kind](batch, first))


def _columns(
    named: Mapping[str, Array], inputs: Sequence[Tensor], where: str, folder: Path
) -> dict[str, _Column]:
    columns: dict[str, _Column] = {}
    for index, tensor in enumerate(inputs):

        def fit(batch: Array, tensor: Tensor = tensor) -> Fits:
            check_shape(tensor.name, batch.shape, tensor, where)
            return Fit(tensor, batch.dtype, where)

        columns[tensor.name] = _Column(tensor.name, where, folder / f"{index}.npy", fit)
    if LABELS in named and LABELS not in columns:
        kept: list[Tensor] = []

        def fit_labels(batch: Array) -> Fits:
            if not kept:  # the first batch decides
                kept.append(Tensor(name=LABELS, shape=batch.shape, dtype=str(batch.dtype)))
            if kept[0].dtype == "bool":
                return lambda rows, _: rows.astype(bool)
            return Fit(kept[0], batch.dtype, where)

        columns[LABELS] = _Column(LABELS, where, folder / "labels.npy", fit_labels)
    return columns


def _named(item: Any, inputs: Sequence[Tensor], where: str) -> dict[str, Array]:
    names = [tensor.name for tensor in inputs]
    if isinstance(item, Mapping):
        mapping = cast("Mapping[object, Any]", item)
        return {str(name): _array(value, where) for name, value in mapping.items()}
    if isinstance(item, (tuple, list)):
        values = cast("Sequence[Any]", item)
        if len(values) == len(names):
            return {name: _array(value, where) for name, value in zip(names, values, strict=True)}
        if len(values) == len(names) + 1:
            both = zip([*names, LABELS], values, strict=True)
            return {name: _array(value, where) for name, value in both}
        raise SourceError(
            f"{where} gives tuples of {len(values)}",
            expected=f"{len(names)} (an array an input), or {len(names) + 1} with the label last",
        )
    return {names[0]: _array(item, where)}


def _array(value: Any, where: str) -> Array:
    detach = getattr(value, "detach", None)
    if detach is not None:  # a torch tensor that may ask for gradients, or live on a GPU
        value = detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise SourceError(
            f"{where} gives {type(value).__name__}",
            expected="arrays of numbers, or mappings or tuples of them",
        )
    return array
