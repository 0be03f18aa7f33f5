"""From tensors to the few numbers a sample that are worth counting.

A family belongs to what a tensor means (image, audio, features, scores …), and turns a batch into a
matrix: one row a sample, one column a statistic; what is to be counted as a vector comes apart. All
of it is NumPy on a single sample's cost budget (some hundred microseconds for a small image), since
it runs beside every inference.
"""

from edgeml.statistics.families import audio, embedding, features, image, outputs, tensor, text
from edgeml.statistics.families.family import Context, Family, Matrix, Vectors
from edgeml.statistics.families.features import MAX_COLUMNS
from edgeml.statistics.families.outputs import CONFIDENCE_BINS, softmax

MAX_CLASSES = 256
"""Scores of more classes are summarised, not counted one by one."""

FAMILIES: dict[str, Family] = {
    "image": image.FAMILY,
    "audio": audio.FAMILY,
    "features": features.FAMILY,
    "embedding": embedding.FAMILY,
    "scores": outputs.FAMILY,
    "text": text.FAMILY,
    "tensor": tensor.FAMILY,
}

__all__ = [
    "CONFIDENCE_BINS",
    "FAMILIES",
    "MAX_CLASSES",
    "MAX_COLUMNS",
    "Context",
    "Family",
    "Matrix",
    "Vectors",
    "softmax",
]
