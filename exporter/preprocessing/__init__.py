"""Preprocessing inside the artifacts: declared, compiled to plain operations, put in front of the
source model before any target sees it, and checked against a reference implementation.

:mod:`~edgeml.exporter.preprocessing.declaration` is what the file may say,
:mod:`~edgeml.exporter.preprocessing.program` makes operations with constant arrays of it, and an
emitter a kind of source (``torch_front``, ``tf_front``, ``onnx_front``) writes those down in the
source's own framework. So every target converts one model that takes what the sensor gives.
"""

from edgeml.exporter.preprocessing.declaration import Declaration
from edgeml.exporter.preprocessing.front import (
    Wrapped,
    check,
    made_shapes,
    put_in_front,
    refuse_kind,
)
from edgeml.exporter.preprocessing.reading import load

__all__ = [
    "Declaration",
    "Wrapped",
    "check",
    "load",
    "made_shapes",
    "put_in_front",
    "refuse_kind",
]
