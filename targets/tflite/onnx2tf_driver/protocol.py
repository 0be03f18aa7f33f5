"""What goes to the driver and comes back, a line of JSON each."""

from __future__ import annotations

import dataclasses
import json
import re
from types import FrameType, TracebackType
from typing import Literal

Kind = Literal["", "lacks", "unchecked", "broken", "differs", "failed", "late"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A graph to convert.

    Attributes:
        model: its path.
        savedmodel: the folder to write.
        log: a file for whatever is printed.
        seconds: of processor time that it may take; :mod:`.serving` has what else bounds it.
    """

    model: str
    savedmodel: str
    log: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of it.

    Attributes:
        kind: empty where the SavedModel was written. Else onnx2tf ``lacks`` an operator, the model
            that it makes is ``unchecked`` for want of anything to compare it with, is ``broken``
            and does not run, or ``differs`` from the graph, or it ``failed`` or was too ``late``.
        words: why.
        operator: the one that onnx2tf was at; empty where it was at none.
        tensor: what its node makes.
        status: how the process that tried ended, as ``Popen.returncode`` has it.
    """

    kind: Kind = ""
    words: str = ""
    operator: str = ""
    tensor: str = ""
    status: int = 0

    def line(self) -> str:
        """As JSON, cut to what a pipe takes in one piece."""
        cut = dataclasses.replace(self, words=self.words[:1000], tensor=self.tensor[:300])
        return json.dumps(dataclasses.asdict(cut)) + "\n"


class NotMadeError(Exception):
    """There is no SavedModel; holds the answer."""

    def __init__(self, kind: Kind, words: str, *, operator: str = "", tensor: str = "") -> None:
        super().__init__(f"{kind}: {words}")
        self.answer = Answer(kind=kind, words=words, operator=operator, tensor=tensor)


def raised(failure: BaseException) -> NotMadeError:
    """The answer to an exception: its class and words, and the node that onnx2tf was at.

    Where onnx2tf exits, its words are in the log.
    """
    operator, tensor = "", ""
    trace: TracebackType | None = failure.__traceback__
    while trace is not None:
        operator, tensor = _node(trace.tb_frame) or (operator, tensor)
        trace = trace.tb_next
    name, line = type(failure).__name__, first_line(failure)
    words = line if line.startswith(name) else f"{name}: {line}"
    words = "" if isinstance(failure, SystemExit) else words
    return NotMadeError("failed", words, operator=operator, tensor=tensor)


def working_at(frame: FrameType | None) -> tuple[str, str]:
    """The operator that onnx2tf is at, and what its node makes; empty where it is at none."""
    while frame is not None:
        found = _node(frame)
        if found:
            return found
        frame = frame.f_back
    return "", ""


def _node(frame: FrameType) -> tuple[str, str] | None:
    """Each of onnx2tf's operators has one function ``make_node``, which is given the node."""
    node = frame.f_locals.get("graph_node") if frame.f_code.co_name == "make_node" else None
    if node is None:
        return None
    return str(node.op), str(node.outputs[0].name) if node.outputs else ""


def first_line(failure: BaseException) -> str:
    """The line of an error that says what it is, cut; Keras names the layer before it, AutoGraph
    puts a trace there."""
    text = re.sub(r"\{\{.*?\}\} *", "", str(failure))  # TensorFlow's names of its own functions
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    layer = ""
    if len(lines) > 1 and lines[0].startswith("Exception encountered when calling layer"):
        layer = f" (in {lines.pop(0).split()[5]})"
    if lines and lines[0] == "in user code:":
        lines = [line for line in lines if re.match(r"\w*(Error|Exception): ", line)][-1:] or lines
    return f"{lines[0][: 200 if layer else 1000]}{layer}" if lines else ""
