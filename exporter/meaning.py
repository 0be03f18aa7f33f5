"""What a model's tensors mean, inferred: it decides which statistics are counted on them, and which
outputs are decisions.

Inputs: four axes, of which the one for channels is 1, 3 or 4 long, are an image; int16 along one
axis of more than 256 is audio; two axes with at most 256 columns are features. Outputs: two axes
with 2 to 1,000 columns are scores where they are probabilities, where labels name their columns, or
where they look like the logits of a trained classifier. A single column is a score of two classes
where labels are 0 and 1, or where it looks like the sigmoid of a trained classifier. Everything
else is a tensor, of which nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tensor
from edgeml.statistics.families import MAX_COLUMNS
from edgeml.targets.registry import SourceKind

Array = NDArray[Any]

CHANNELS = (1, 3, 4)
LEAST_SIDE = 4
"""Pixels; an image with a shorter side is none."""
MAX_CLASSES = 1000
LEAST_SURE = 0.9
"""The sigmoid of a trained classifier is so near to 0 or 1, in the median sample."""
LEAST_CONFIDENCE = 0.5
"""Logits of a trained classifier give the top class at least this share, in the median sample."""

_FIRST: dict[SourceKind, str] = {
    "torch": "NCHW",
    "onnx": "NCHW",
    "savedmodel": "NHWC",
    "tflite": "NHWC",
    "classical": "NCHW",
}
"""The layout that a framework's images have where the shape allows both."""


def infer_input(tensor: Tensor, kind: SourceKind) -> Tensor:
    """An input with its meaning; with an axis that stays open, none."""
    shape = tensor.shape
    if -1 in shape:
        return tensor
    if len(shape) == 4 and tensor.dtype in {"float32", "uint8"}:
        first = _FIRST[kind]
        for layout in (first, *({"NCHW", "NHWC"} - {first})):
            channels = shape[layout.index("C")]
            sides = (shape[layout.index("H")], shape[layout.index("W")])
            if channels in CHANNELS and min(sides) >= LEAST_SIDE:
                return msgspec.structs.replace(tensor, meaning="image", layout=layout)
    long = [size for size in shape if size > 1]
    if tensor.dtype == "int16" and len(long) == 1 and long[0] > MAX_COLUMNS:
        return msgspec.structs.replace(tensor, meaning="audio")
    if len(shape) == 2 and shape[1] <= MAX_COLUMNS:
        return msgspec.structs.replace(tensor, meaning="features")
    return tensor


def infer_outputs(
    tensors: tuple[Tensor, ...], values: Mapping[str, Array], labels: Array | None
) -> tuple[Tensor, ...]:
    """The outputs with their meanings.

    Args:
        tensors: the outputs.
        values: what the source model made of the samples, [n, …] each.
        labels: the truth of those samples, if it is known.
    """
    return tuple(
        msgspec.structs.replace(tensor, meaning="scores")
        if _is_decision(tensor, values[tensor.name], labels)
        else tensor
        for tensor in tensors
    )


def class_labels(labels: Array | None, classes: int, names: Sequence[str] = ()) -> Array | None:
    """Labels as class numbers [n], or None where they are something else.

    Args:
        labels: [n] or [n, 1]: class numbers, or else classes by their names.
        classes: how many there are.
        names: of them, in order, where a model knows them.
    """
    if labels is None or not len(labels):
        return None
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] != 1:
        return None
    order = {name: number for number, name in enumerate(names)}
    found = [order.get(str(each), -1) for each in flat[:, 0].tolist()]
    if order and min(found) >= 0:
        return np.array(found)
    if flat.dtype.kind not in "iub":
        return None
    column = flat[:, 0].astype(np.int64)
    # A single column tells two classes apart.
    return column if column.min() >= 0 and column.max() < max(classes, 2) else None


def _is_decision(tensor: Tensor, values: Array, labels: Array | None) -> bool:
    if tensor.meaning == "scores":  # the source knows
        return True
    if len(tensor.shape) != 2 or not 1 <= tensor.shape[1] <= MAX_CLASSES:
        return False
    if not np.issubdtype(values.dtype, np.floating):
        return False
    scores = values.astype(np.float64)
    if tensor.shape[1] == 1:
        return _is_sigmoid(scores.reshape(-1), labels)
    return class_labels(labels, tensor.shape[1]) is not None or _are_scores(scores)


def _are_scores(scores: Array) -> bool:
    """Whether several columns look like probabilities, or like a trained classifier's logits."""
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return True
    top = scores.max(axis=1)
    shares = 1 / np.exp(scores - top[:, None]).sum(axis=1)
    return bool(
        scores.min() < 0 < scores.max()
        and np.median(shares) >= LEAST_CONFIDENCE
        and len(np.unique(scores.argmax(axis=1))) > 1
    )


def _is_sigmoid(column: Array, labels: Array | None) -> bool:
    """Whether a single column tells two classes apart.

    Labels that are no 0 and 1 are values, and the model a regression. A value that merely lies
    between 0 and 1, a share or a distance, is seldom near its ends.
    """
    if labels is not None:
        found = class_labels(labels, 2)
        return found is not None and len(np.unique(found)) == 2
    if column.min() < 0 or column.max() > 1:
        return False
    sure = np.maximum(column, 1 - column)
    return bool(column.min() < 0.5 < column.max() and np.median(sure) >= LEAST_SURE)
