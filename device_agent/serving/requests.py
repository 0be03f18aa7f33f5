"""What a caller's arrays mean as requests of a model. Pure.

Callers give one sample, with or without the batch axis of one, or a batch of several. A float of
another width is converted, and an integer whose values fit; an integer is never taken for a float
nor the other way round: pixels of 0..255 in place of 0..1 are the commonest wrong input there is.
NaN passes: a broken sensor is something to count, not to hide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tensor
from edgeml.errors import SourceError

Array = NDArray[Any]
Feeds = dict[str, Array]


def feeds(arrays: Mapping[str, Array], inputs: Sequence[Tensor]) -> list[Feeds]:
    """Split into requests of one sample each, in the inputs' own shapes and dtypes.

    A single array without a name (key ``""``) is the model's single input.

    Raises:
        SourceError: a name, a shape, a dtype or the number of samples does not fit.
    """
    wanted = {tensor.name: tensor for tensor in inputs}
    given = dict(arrays)
    if set(given) == {""} and len(wanted) == 1:
        given = {inputs[0].name: given[""]}
    if given.keys() != wanted.keys():
        raise SourceError(
            f"The inputs given are {_names(given) or 'none'}",
            expected=_names(wanted),
            remedy="Name each array as the model names its input.",
        )
    batches = {name: _batch(wanted[name], array) for name, array in given.items()}
    counts = {name: len(batch) for name, batch in batches.items()}
    if len(set(counts.values())) != 1 or not next(iter(counts.values())):
        found = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise SourceError(
            f"The numbers of samples are {found}", expected="the same in all inputs, at least one"
        )
    return [
        {name: batch[index : index + 1] for name, batch in batches.items()}
        for index in range(next(iter(counts.values())))
    ]


def feed(arrays: Mapping[str, Array], inputs: Sequence[Tensor]) -> Feeds:
    """The same for a call that may give just one sample."""
    found = feeds(arrays, inputs)
    if len(found) != 1:
        raise SourceError(
            f"{len(found)} samples were given in one call",
            expected="one: every artifact has a batch of 1",
            remedy="Make one call a sample.",
        )
    return found[0]


def _batch(tensor: Tensor, array: Array) -> Array:
    """``array`` as [n, …] in the tensor's dtype."""
    sample = tensor.shape[1:]
    if array.shape == sample:
        batch = array[np.newaxis]
    elif array.shape[1:] == sample and array.ndim == len(sample) + 1:
        batch = array
    else:
        raise SourceError(
            f"'{tensor.name}' has shape {list(array.shape)}",
            expected=f"{list(tensor.shape)}",
            remedy="Check the order of the axes and the preprocessing.",
        )
    dtype = np.dtype(tensor.dtype)
    if batch.dtype == dtype:
        return batch
    if batch.dtype.kind == "f" and dtype.kind == "f":
        with np.errstate(over="ignore"):
            return batch.astype(dtype)
    if batch.dtype.kind in "iu" and dtype.kind in "iu" and batch.size:
        bounds = np.iinfo(dtype)
        if bounds.min <= int(batch.min()) and int(batch.max()) <= bounds.max:
            return batch.astype(dtype)
    raise SourceError(
        f"'{tensor.name}' has dtype {array.dtype}",
        expected=tensor.dtype,
        remedy="Convert it as in training, scaling included.",
    )


def _names(arrays: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" if name else "(one array without a name)" for name in arrays)
