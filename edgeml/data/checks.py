"""Whether arrays fit a model's inputs. They are gone through in blocks, so that mapped files of any
size can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundle.manifest import Tensor
from edgeml.columns import ColumnWriter, blocks, load
from edgeml.data.samples import LABELS, Array, Samples, names
from edgeml.errors import SourceError


def check_samples(
    arrays: Mapping[str, Array],
    inputs: Sequence[Tensor],
    where: str,
    folder: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> Samples:
    """Check arrays against a model's inputs and give them the inputs' dtypes.

    A float of another width is converted, and an integer whose values fit; an integer is never
    taken for a float, nor the other way round: pixels of 0..255 in place of 0..1 are the commonest
    wrong calibration there is.

    Args:
        arrays: input name to array [n, ...], with ``labels`` beside them if there are any.
        inputs: the model's inputs; shapes with a batch axis, -1 for an axis of any length.
        where: what to call the data in an error.
        folder: where an array that must be converted goes (``0.npy``…, by the place of its input);
            without one it stays in memory.
        files: input name to the ``.npy`` that an array is mapped from.

    Raises:
        SourceError: a name is missing or unknown, or an array has the wrong shape or dtype, is
            empty, holds infinity, or NaN in an input without missing values, or has another number
            of samples than the rest.
    """
    wanted = {tensor.name: tensor for tensor in inputs}
    check_names(arrays, inputs, where)
    checked: dict[str, Array] = {}
    missing: list[str] = []
    places = {name: file for name, file in (files or {}).items() if name in wanted}
    for index, (name, tensor) in enumerate(wanted.items()):
        array = arrays[name]
        check_shape(name, array.shape, tensor, where)
        if len(array) == 0:
            raise SourceError(
                f"'{name}' in {where} is empty",
                expected="at least one sample",
                remedy="Some hundred samples of what the device will see make a good calibration.",
            )
        fit = Fit(tensor, array.dtype, where)
        if array.dtype == np.dtype(tensor.dtype):
            for first, block in blocks(array):
                fit(block, first)
            checked[name] = array
        elif folder is None:
            checked[name] = np.concatenate([fit(rows, first) for first, rows in blocks(array)])
        else:
            places[name] = folder / f"{index}.npy"
            with ColumnWriter(places[name]) as writer:
                for first, block in blocks(array):
                    writer.append(fit(block, first))
            checked[name] = load(places[name])
        if fit.missing:
            missing.append(name)
    labels = None if LABELS in wanted else arrays.get(LABELS)
    counts = {name: len(array) for name, array in checked.items()}
    if labels is not None:
        counts[LABELS] = len(labels) if labels.ndim else 0
        refuse_broken(LABELS, labels, where)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise SourceError(
            f"{where} has unequal numbers of samples: {found}",
            expected="the same number in every array",
            remedy="Row i of every array, labels too, belongs to sample i: write them from one "
            "list of samples.",
        )
    return Samples(checked, labels, files=places, missing=tuple(missing))


def check_names(arrays: Mapping[str, object], inputs: Sequence[Tensor], where: str) -> None:
    """Refuse arrays that are not one an input.

    Raises:
        SourceError: a name is missing or unknown.
    """
    wanted = [tensor.name for tensor in inputs]
    if sorted(arrays.keys() - {LABELS}) != sorted({*wanted} - {LABELS}):
        raise SourceError(
            f"{where} holds {names(arrays) or 'no arrays'}",
            expected=f"one array an input, {names(wanted)} (and '{LABELS}', if wanted)",
            remedy="Name the arrays as the model names its inputs: "
            f"numpy.savez(path, {', '.join(f'{name}=…' for name in wanted)}).",
        )


def check_shape(name: str, found: tuple[int, ...], tensor: Tensor, where: str) -> None:
    """Refuse an array whose samples have another shape than the input takes.

    Args:
        name: of the input.
        found: the array's shape, first axis samples.
        tensor: the input.
        where: what to call the data.

    Raises:
        SourceError: they have.
    """
    shape = tensor.shape[1:]
    axes = ", ".join(["samples", *("any" if size < 0 else str(size) for size in shape)])
    fits = len(found) == len(shape) + 1 and all(
        want in (-1, have) for have, want in zip(found[1:], shape, strict=True)
    )
    if not fits:
        raise SourceError(
            f"'{name}' in {where} has shape {list(found)}",
            expected=f"[{axes}]",
            remedy="Check the order of the axes, and that each sample went through the same "
            "preprocessing as in training.",
        )


class Fit:
    """Makes rows of ``dtype`` fit an input, and refuses those that do not.

    Args:
        tensor: the input.
        dtype: of the rows.
        where: what to call the data.

    Raises:
        SourceError: the kinds of number are unlike.
    """

    def __init__(self, tensor: Tensor, dtype: np.dtype[Any], where: str) -> None:
        self.missing = False
        """Whether a row so far had a NaN, which the input takes for a missing value."""
        self._tensor = tensor
        self._where = where
        self._wanted = np.dtype(tensor.dtype)
        self._wrong = SourceError(
            f"'{tensor.name}' in {where} has dtype {dtype}",
            expected=tensor.dtype,
            remedy=f"Convert it as in training, scaling included, then .astype('{tensor.dtype}').",
        )
        kinds = (dtype.kind, self._wanted.kind)
        if dtype != self._wanted and kinds != ("f", "f") and not set(kinds) <= set("iu"):
            raise self._wrong

    def __call__(self, rows: Array, first: int) -> Array:
        """Rows [n, ...] in the input's dtype.

        Args:
            rows: of the dtype that was announced.
            first: number of the first of them.

        Raises:
            SourceError: a value is not finite, or beyond what the dtype holds.
        """
        self._look(rows, first)
        if rows.dtype == self._wanted:
            return rows
        if self._wanted.kind in "iu":
            bounds = np.iinfo(self._wanted)
            if rows.size and not (bounds.min <= int(rows.min()) and int(rows.max()) <= bounds.max):
                raise self._wrong
            return rows.astype(self._wanted)
        with np.errstate(over="ignore"):
            converted = rows.astype(self._wanted)
        self._look(converted, first)  # float64 beyond float32 becomes infinite
        return converted

    def _look(self, rows: Array, first: int) -> None:
        takes = self._tensor.missing
        if refuse_broken(self._tensor.name, rows, self._where, first, missing=takes):
            self.missing = True


def refuse_broken(
    name: str, array: Array, where: str, first: int = 0, *, missing: bool = False
) -> bool:
    """Refuse infinities, and NaN unless it stands for a missing value; whether there is such a one.

    Args:
        name: of the input.
        array: some rows of it.
        where: what to call the data.
        first: number of the first row.
        missing: whether the input takes missing values.

    Raises:
        SourceError: there are some.
    """
    if array.dtype.kind not in "fc":
        return False
    bad = ~np.isfinite(array)
    if not bad.any():
        return False
    gaps = np.isnan(array)
    if missing:
        bad &= ~gaps
    if bad.any():
        raise broken(name, where, first + int(np.argwhere(bad)[0][0]), int(bad.sum()))
    return bool(gaps.any())


def broken(name: str, where: str, row: int, count: int, why: str = "") -> SourceError:
    """The error for values that are no numbers.

    Args:
        name: of the input.
        where: what to call the data.
        row: the first sample that has one.
        count: how many values.
        why: they cannot stand for missing values, as a clause; empty: it was not asked.
    """
    shown = "a value that is" if count == 1 else f"{count:,} values that are"
    return SourceError(
        f"'{name}' in {where} holds {shown} NaN or infinite, the first in sample {row}"
        f"{f', and {why}' if why else ''}",
        expected="finite numbers",
        remedy="Remove or repair those samples: they would spoil every range that is measured.",
    )
