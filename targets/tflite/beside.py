"""Runs a float LiteRT model beside what it was made from, on inputs whose results are known.

In a child process, since what LiteRT cannot compute may end it (an abort in native code).
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import msgspec
import numpy as np

from edgeml.decoding import from_json
from edgeml.errors import RefusedError
from edgeml.processes import describe_exit
from edgeml.targets.compiling import first_line
from edgeml.targets.runtime import Array
from edgeml.targets.tflite.answering import Answering, EndedError
from edgeml.targets.tflite.onnx2tf_driver.comparing import RELATIVE, difference
from edgeml.targets.tflite.runtime import open_session

LONGEST_S = 600.0
"""For a few runs of a model; a large one takes a second each."""

_AROUND = "Export from the model's own source instead (PyTorch or Keras), or to openvino or onnx."


class _Check(msgspec.Struct, frozen=True):
    """What to compare: see :func:`check_beside`."""

    path: Path
    draws: Path


def check_beside(path: Path, draws: Path) -> None:
    """Refuses a ``.tflite`` that LiteRT cannot run, or computes otherwise.

    Args:
        path: the model.
        draws: an ``.npz`` of inputs and outputs, each under its name in the model's signature
            behind the number of the draw: ``0/input_0``.

    Raises:
        RefusedError: it is not what it was made from, to a thousandth of an output's largest value.
    """
    check = msgspec.json.encode(_Check(path, draws), enc_hook=str)
    try:
        refusal = from_json(_checker().ask(check, seconds=LONGEST_S), str)
    except EndedError as ended:
        status = ended.status
        how = (
            f"does not end within {LONGEST_S:.0f} s"
            if status is None
            else f"ends its process ({describe_exit(status)})"
        )
        refusal = f"LiteRT {how} where it runs what was converted from ONNX, on random input"
    if refusal:
        raise RefusedError(refusal, remedy=_AROUND)


def main() -> None:
    """The child: a check a line in, the sentence of a refusal out, or an empty one."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # runtimes print
    for line in sys.stdin.buffer:
        check = from_json(line, _Check, hook=lambda _, value: Path(value))
        answers.write(msgspec.json.encode(compared(check.path, check.draws)) + b"\n")


def compared(path: Path, draws: Path) -> str:
    """Why a model is not what it was made from, as a sentence; empty where it is."""
    with np.load(draws) as file:
        arrays: dict[str, Array] = dict(file)
    try:
        session = open_session(path, threads=1, options={})
    except RefusedError as error:
        return f"What was converted from ONNX does not load: {error.found}"
    try:
        for draw in sorted({key.partition("/")[0] for key in arrays}, key=int):
            feeds = {info.name: arrays[f"{draw}/{info.name}"] for info in session.inputs}
            for name, found in session.run(feeds).items():
                said = _otherwise(found, arrays[f"{draw}/{name}"])
                if said:
                    return (
                        "LiteRT computes something else than the ONNX model: "
                        f"{name} is {said}, on random input"
                    )
    except (RuntimeError, ValueError) as error:
        return f"LiteRT cannot run what was converted from ONNX: {first_line(error)}"
    finally:
        session.close()
    return ""


def _otherwise(found: Array, wanted: Array) -> str:
    """What an output is in place of what it should be; empty where it is close enough."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"{found.dtype}{list(found.shape)} for {wanted.dtype}{list(wanted.shape)}"
    off = difference(found, wanted)
    return f"off by {off:.2g} of its largest value" if off > RELATIVE else ""


@functools.lru_cache(maxsize=1)
def _checker() -> Answering:
    return Answering(
        [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", __name__]
    )


if __name__ == "__main__":
    main()
