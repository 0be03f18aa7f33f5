"""ONNX into a SavedModel, by way of the toolchain ``onnx2tf``.

LiteRT has no converter that reads ONNX, and onnx2tf's pins do not fit beside the others: it runs
with an interpreter of its own, as a child of this process (:mod:`.onnx2tf_driver`) that serves one
graph after another.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import signal
import sys
from pathlib import Path
from typing import NoReturn

import msgspec

from edgeml.decoding import from_json
from edgeml.errors import RefusedError, ToolchainError
from edgeml.processes import describe_exit
from edgeml.targets import sources
from edgeml.targets.blame.of_onnx import place_of, tensor_texts
from edgeml.targets.onnx_graph import nodes
from edgeml.targets.tflite.answering import Answering, EndedError
from edgeml.targets.tflite.onnx2tf_driver.protocol import Answer, Request
from edgeml.targets.tflite.plain_onnx import fed_parameter

BASE_S, NODE_S = 60.0, 5.0
"""Processor time that a conversion may take, and for each node of its graph. A usual node takes
some hundredths of a second; but of some operators onnx2tf makes a layer for each element of the
tensor, and does not end."""

_AROUND = "Export from the model's own source instead (PyTorch or Keras), or to openvino or onnx."
_EQUIVALENT = (
    "Replace the operator by an equivalent, export from the model's own source (PyTorch or Keras), "
    "or to openvino or onnx."
)
_CONSTANT = "Make it a constant of the model, or export to openvino or onnx."

# What ONNX Runtime says, behind the place in its own code.
_TOLD = re.compile(r"ONNX Runtime only .*|Could not find .*|(?<=Status Message: ).*", re.S)

# -P: whatever lies in the working directory must not stand in for a library, nor what lies in this
# folder, which therefore comes last.
_START = (
    "import sys; sys.path.append(sys.argv[1]); from onnx2tf_driver.serving import serve; serve()"
)


def savedmodel_of(graph: Path, bridge: Path | None, folder: Path) -> Path:
    """A SavedModel that computes what an ONNX graph does, with its axes, checked on random input.

    Its inputs are ``input_0``, …, its outputs ``output_0``, …, in the graph's order. Beside it,
    with the suffix ``.npz``, lies what it was checked on, as :mod:`.beside` takes it.

    Args:
        graph: with fixed shapes.
        bridge: the interpreter of the toolchain ``onnx2tf``.
        folder: to write it to.

    Raises:
        RefusedError: onnx2tf lacks an operator, fails on the graph, takes too long, or makes
            another function of it.
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
    request = Request(
        model=str(graph), savedmodel=str(folder), log=str(log), seconds=_seconds(graph)
    )
    try:
        line = _driver(bridge).ask(msgspec.json.encode(request))
    except EndedError as ended:
        raise ToolchainError(
            f"onnx2tf ended with {describe_exit(ended.status or 0)}",
            remedy="Its own messages are in the log.",
        ) from ended
    answer = from_json(line, Answer)
    if log.is_file():
        sys.stderr.write(log.read_text(errors="replace"))
    if answer.status == -signal.SIGKILL:
        raise ToolchainError(
            "onnx2tf was killed, as the kernel does where memory runs out",
            remedy="Give it a machine with more.",
        )
    if answer.status != 0:
        words = f"it ended with {describe_exit(answer.status)}"
        answer = dataclasses.replace(answer, words=words)
    if answer.kind:
        _refuse(graph, answer, request.seconds)
    return folder


def _refuse(graph: Path, answer: Answer, seconds: float) -> NoReturn:
    """Raises the sentences about a graph of which there is no SavedModel."""
    words = answer.words[:300].rstrip(".")
    if answer.kind == "lacks":
        place = sources.locate_onnx(graph, answer.operator)
        sources.refuse_operator("onnx2tf", answer.operator, place, None)
    if answer.kind == "differs":
        raise RefusedError(
            f"onnx2tf makes a model that computes something else ({words}, on random input, "
            "against ONNX Runtime)",
            remedy=_AROUND,
        )
    fed = fed_parameter(graph)
    if fed:
        raise RefusedError(f"onnx2tf cannot convert the model: {fed}", remedy=_CONSTANT)
    if answer.kind == "unchecked":
        told = _TOLD.search(answer.words)
        raise RefusedError(
            "What onnx2tf makes of the model could not be checked: the ONNX Runtime of its "
            f"toolchain says: {(told or [words])[0][:300].rstrip('.')}",
            remedy=_AROUND,
        )
    if answer.kind == "broken":
        raise RefusedError(
            f"onnx2tf makes a model that TensorFlow does not run: {words}", remedy=_AROUND
        )
    what = answer.operator or "the model"
    if answer.kind == "late":
        said = f"it takes more than {seconds:.0f} s of processor time"
    else:
        said = (
            f"its own code fails ({words})"
            if words
            else "it gives up; its own words are in the log"
        )
    where = _where(graph, answer)
    raise RefusedError(
        f"onnx2tf cannot convert {what}: {said}{where}",
        remedy=_EQUIVALENT if answer.operator else _AROUND,
    )


def _where(graph: Path, answer: Answer) -> str:
    """The node that onnx2tf was at, as a sentence; empty where it cannot be told which it was.

    onnx2tf has simplified the graph, and the driver renamed its ends and put ``__`` for colons.
    """
    model = sources.framework("onnx").load(str(graph), load_external_data=False)
    alike = [node for node in nodes(model.graph) if node.op_type == answer.operator]
    ends = {f"output_{index}": value.name for index, value in enumerate(model.graph.output)}
    made = ends.get(answer.tensor, answer.tensor)
    same = [
        n for n in alike if made in {name.replace(":", "__") for name in n.output} | {*n.output}
    ]
    found = same or (alike if len(alike) == 1 else [])
    return f". It is {place_of(found[0], tensor_texts(model))}" if found else ""


def _seconds(graph: Path) -> float:
    model = sources.framework("onnx").load(str(graph), load_external_data=False)
    return BASE_S + NODE_S * sum(1 for _ in nodes(model.graph))


@functools.lru_cache(maxsize=1)
def _driver(bridge: Path) -> Answering:
    own = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    command = [str(bridge), "-P", "-c", _START, str(Path(__file__).parent)]
    return Answering(command, environment)
