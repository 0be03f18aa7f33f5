"""Whether arrays fit a model's inputs. They are gone through in blocks, so that mapped files of any
size can be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
            empty, holds NaN or infinity, or has another number of samples than the rest.
    """
    wanted = {tensor.name: tensor for tensor in inputs}
    check_names(arrays, inputs, where)
    checked: dict[str, Array] = {}
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
        convert = converter(name, array.dtype, tensor, where)
        if array.dtype == np.dtype(tensor.dtype):
            for first, block in blocks(array):
                convert(block, first)
            checked[name] = array
        elif folder is None:
            checked[name] = np.concatenate([convert(rows, first) for first, rows in blocks(array)])
        else:
            places[name] = folder / f"{index}.npy"
            with ColumnWriter(places[name]) as writer:
                for first, block in blocks(array):
                    writer.append(convert(block, first))
            checked[name] = load(places[name])
    labels = None if LABELS in wanted else arrays.get(LABELS)
    counts = {name: len(array) for name, array in checked.items()}
    if labels is not None:
        counts[LABELS] = len(labels) if labels.ndim else 0
        _refuse_nan(LABELS, labels, where)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise SourceError(
            f"{where} has unequal numbers of samples: {found}",
            expected="the same number in every array",
        )
    return Samples(checked, labels, files=places)


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


def converter(
    name: str, dtype: np.dtype[Any], tensor: Tensor, where: str
) -> Callable[[Array, int], Array]:
    """What makes rows of ``dtype`` fit an input, and refuses those that do not.

    Returns:
        a function of some rows and the number of the first, which raises ``SourceError``.
    """
    wanted = np.dtype(tensor.dtype)
    wrong = SourceError(
        f"'{name}' in {where} has dtype {dtype}",
        expected=tensor.dtype,
        remedy=f"Convert it as in training, scaling included, then .astype('{tensor.dtype}').",
    )
    kinds = (dtype.kind, wanted.kind)
    if dtype != wanted and kinds != ("f", "f") and not set(kinds) <= set("iu"):
        raise wrong

    def convert(rows: Array, first: int) -> Array:
        _refuse_nan(name, rows, where, first)
        if dtype == wanted:
            return rows
        if wanted.kind in "iu":
            bounds = np.iinfo(wanted)
            if rows.size and not (bounds.min <= int(rows.min()) and int(rows.max()) <= bounds.max):
                raise wrong
            return rows.astype(wanted)
        with np.errstate(over="ignore"):
            converted = rows.astype(wanted)
        _refuse_nan(name, converted, where, first)  # float64 beyond float32 becomes infinite
        return converted

    return convert


def _refuse_nan(name: str, array: Array, where: str, first: int = 0) -> None:
    if array.dtype.kind not in "fc":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        row = first + int(np.argwhere(bad)[0][0])
        count = int(bad.sum())
        shown = "a value that is" if count == 1 else f"{count:,} values that are"
        raise SourceError(
            f"'{name}' in {where} holds {shown} NaN or infinite, the first in sample {row}",
            expected="finite numbers",
            remedy="Remove or repair those samples: they would spoil every range that is measured.",
        )
