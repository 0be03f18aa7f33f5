"""Runs a float LiteRT model beside what it was made from, on inputs whose results are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeml.errors import RefusedError
from edgeml.targets.compiling import first_line
from edgeml.targets.runtime import Array
from edgeml.targets.tflite.runtime import open_session

_RELATIVE = 1e-3
_AROUND = "Export from the model's own source instead (PyTorch or Keras), or to openvino or onnx."


def check_beside(path: Path, draws: Path) -> None:
    """Refuses a ``.tflite`` that LiteRT cannot run, or computes otherwise.

    Args:
        path: the model.
        draws: an ``.npz`` of inputs and outputs, each under its name in the model's signature
            behind the number of the draw: ``0/input_0``.

    Raises:
        RefusedError: it is not what it was made from, to a thousandth of an output's largest value.
    """
    with np.load(draws) as file:
        arrays: dict[str, Array] = dict(file)
    session = open_session(path, threads=1, options={})
    try:
        for draw in sorted({key.partition("/")[0] for key in arrays}, key=int):
            feeds = {info.name: arrays[f"{draw}/{info.name}"] for info in session.inputs}
            try:
                found = session.run(feeds)
            except (RuntimeError, ValueError) as error:
                raise RefusedError(
                    f"LiteRT cannot run what was converted from ONNX: {first_line(error)}",
                    remedy=_AROUND,
                ) from error
            for name, array in found.items():
                _compare(name, array, arrays[f"{draw}/{name}"])
    finally:
        session.close()


def _compare(name: str, found: Array, wanted: Array) -> None:
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        said = f"{found.dtype}{list(found.shape)} for {wanted.dtype}{list(wanted.shape)}"
    else:
        off = _difference(found, wanted)
        if off <= _RELATIVE:
            return
        said = f"off by {off:.2g} of its largest value"
    raise RefusedError(
        f"LiteRT computes something else than the ONNX model: {name} is {said}, on random input",
        remedy=_AROUND,
    )


def _difference(found: Array, wanted: Array) -> float:
    """The largest difference over the largest value; infinite where integers or what is not finite
    differ."""
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(found, wanted) else float("inf")
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    same = np.array_equal(one[~finite], other[~finite], equal_nan=True)
    if not same or not np.isfinite(one[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(other[finite]).max()), 1e-6)
    return float(np.abs(one[finite] - other[finite]).max()) / scale
