"""ONNX into a SavedModel, by way of the toolchain ``onnx2tf``.

LiteRT has no converter that reads ONNX, and onnx2tf's pins do not fit beside the others: it runs
with an interpreter of its own, as a child of this process (onnx2tf_driver.py) that serves one graph
after another.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from edgeml.errors import RefusedError, ToolchainError
from edgeml.processes import describe_exit, dying_with
from edgeml.targets import sources
from edgeml.targets.tflite.plain_onnx import fed_parameter

_DRIVER = Path(__file__).with_name("onnx2tf_driver.py")

_AROUND = "Export from the model's own source instead (PyTorch or Keras), or to openvino or onnx."
_CONSTANT = "Make it a constant of the model, or export to openvino or onnx."

# What ONNX Runtime says, behind the place in its own code.
_TOLD = re.compile(r"ONNX Runtime only .*|Could not find .*|(?<=Status Message: ).*", re.S)


def savedmodel_of(graph: Path, bridge: Path | None, folder: Path) -> Path:
    """A SavedModel that computes what an ONNX graph does, with its axes, checked on random input.

    Its inputs are ``input_0``, …, its outputs ``output_0``, …, in the graph's order. Beside it,
    with the suffix ``.npz``, lies what it was checked on, as :mod:`.beside` takes it.

    Args:
        graph: with fixed shapes.
        bridge: the interpreter of the toolchain ``onnx2tf``.
        folder: to write it to.

    Raises:
        RefusedError: onnx2tf lacks an operator, fails on the graph, or makes another function of
            it.
        ToolchainError: there is no interpreter, or it ended otherwise.
    """
    if bridge is None:
        raise ToolchainError(
            "The conversion from ONNX to LiteRT goes through the toolchain onnx2tf, which is not "
            "here",
            remedy="edgeml toolchain install onnx2tf",
        )
    fed = fed_parameter(graph, {"ConstantOfShape", "Range", "Reshape"})
    if fed:  # most values that could be drawn are no shape
        raise RefusedError(f"onnx2tf cannot convert the model: {fed}", remedy=_CONSTANT)
    log = folder.with_suffix(".log")
    request = {"model": str(graph), "savedmodel": str(folder), "log": str(log)}
    error, status = _server(bridge).ask(request)
    if log.is_file():
        sys.stderr.write(log.read_text(errors="replace"))
    if status == -signal.SIGKILL:
        raise ToolchainError(
            "onnx2tf was killed, as the kernel does where memory runs out",
            remedy="Give it a machine with more.",
        )
    if status != 0:
        error = f"failed: it ended with {describe_exit(status)}"
    if error:
        _refuse(graph, *error.split(": ", 1))
    return folder


def _refuse(graph: Path, kind: str, words: str = "") -> NoReturn:
    if kind == "lacks":
        sources.refuse_operator("onnx2tf", words, sources.locate_onnx(graph, words), None)
    if kind == "differs":
        raise RefusedError(
            f"onnx2tf makes a model that computes something else ({words}, on random input, "
            "against ONNX Runtime)",
            remedy=_AROUND,
        )
    fed = fed_parameter(graph)
    if fed:
        raise RefusedError(f"onnx2tf cannot convert the model: {fed}", remedy=_CONSTANT)
    if kind == "unchecked":
        told = _TOLD.search(words)
        raise RefusedError(
            "What onnx2tf makes of the model could not be checked: the ONNX Runtime of its "
            f"toolchain says: {(told or [words])[0][:300].rstrip('.')}",
            remedy=_AROUND,
        )
    said = f": {words[:300].rstrip('.')}" if words else ""
    raise RefusedError(f"onnx2tf cannot convert the model{said}", remedy=_AROUND)


class _Server:
    """A driver that runs until this process ends, or the driver itself does."""

    def __init__(self, bridge: Path) -> None:
        own = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
        environment = {name: value for name, value in os.environ.items() if name not in own}
        environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
        self._process = subprocess.Popen(
            # -P: this folder's own modules are not to be taken for a library.
            [str(bridge), "-P", str(_DRIVER)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=dying_with(os.getpid()),
        )
        atexit.register(self.close)

    def ask(self, request: dict[str, str]) -> tuple[str, int]:
        """Why there is no SavedModel, or nothing; and the status of the process that tried.

        Raises:
            ToolchainError: the driver itself ended.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line:
            _server.cache_clear()
            raise ToolchainError(
                f"onnx2tf ended with {describe_exit(process.wait())}",
                remedy="Its own messages are in the log.",
            )
        answer = json.loads(line)
        return str(answer["error"]), os.waitstatus_to_exitcode(answer["status"])

    def close(self) -> None:
        self._process.communicate()


@functools.lru_cache(maxsize=1)
def _server(bridge: Path) -> _Server:
    return _Server(bridge)
