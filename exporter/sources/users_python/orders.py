"""Orders and answers: lines of JSON on standard input, and on the file descriptor given; standard
output is a log.

``open`` runs the factory and hands over what it exports; ``onnx`` exports a torch module once more,
as ONNX, for a reader of another version; ``answer`` runs samples through the model itself;
``iterate`` begins with an iterable of samples, and ``items`` hands over some of them.
"""

# pyright: basic
# ruff: noqa: ANN001, ANN201, BLE001

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from typing import Any

from . import Wrong
from .classical_model import ClassicalModel
from .keras_model import KerasModel
from .samples import Streams
from .torch_model import TorchModel
from .user_code import kind_of, run_factory


class Host:
    """The model, from one order to the next."""

    def __init__(self) -> None:
        self.made: Any = None
        self.model: Any = None
        streams = Streams()
        self.iterate, self.items = streams.iterate, streams.items

    def open(self, order):
        """Run the factory, unless it has run, and export what it returns."""
        if self.made is None:
            self.made = run_factory(order["file"], order["attribute"])
        made = self.made
        model, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        kind = kind_of(model)
        if kind == "torch":
            self.model = TorchModel(model)
            return self.model.open(order, examples)
        if kind == "keras":
            self.model = KerasModel(model)
            return self.model.open(order)
        if kind == "classical":
            self.model = ClassicalModel(model)
            return self.model.open(order)
        raise Wrong(
            f"{order['call']} returns {type(made).__name__}",
            "an nn.Module, or a pair (nn.Module, example inputs); a Keras model; an estimator or "
            "pipeline of scikit-learn",
            "Have the function build the model, load its weights and return it.",
        )

    def onnx(self, order):
        """Export the module as ONNX."""
        return self.model.onnx(order)

    def answer(self, order):
        """Run some of the samples through the model."""
        numpy = importlib.import_module("numpy")

        first, last = order["rows"]
        columns = {
            name: numpy.load(path, mmap_mode="r")[first:last]
            for name, path in order["inputs"].items()
        }
        if order["method"]:
            (rows,) = columns.values()
            found = {"": self.model.answer(order["method"], numpy.array(rows))}
        else:
            found = self.model.answer(columns)
        for name, path in order["outputs"].items():
            numpy.save(path, found[name])
        return {}


def place(error, folder):
    """``file:line`` of the last frame in the user's folder; empty where there is none."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    own = [f"{name}:{line}" for name, line in frames if os.path.dirname(name) == folder]  # noqa: PTH120
    return own[-1] if own else ""


def shown(error):
    """An error as a line: its class, and the first line of its text that says something."""
    last = traceback.format_exception_only(type(error), error)[-1]
    kind, colon, text = last.strip().partition(": ")
    lines = [line.strip() for line in text.splitlines()]
    return (kind + colon + next(filter(None, lines), ""))[:400]


def recording():
    """Note what the user's code reads, where the exporter asks for it; a function to call later."""
    path = os.environ.get("EDGEML_DEPENDENCIES")
    if not path or not hasattr(sys, "addaudithook"):
        return lambda: None
    here = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
    file = os.path.join(here, "repeat", "recording.py")  # noqa: PTH118
    spec = importlib.util.spec_from_file_location("edgeml_recording", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.record(path)


def main(descriptor):
    """Take orders until there are none."""
    sweep = recording()
    orders = os.fdopen(os.dup(0), "r", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    host = Host()
    folder = ""
    with os.fdopen(descriptor, "w", encoding="utf-8") as answers:
        for line in orders:
            order = json.loads(line)
            folder = os.path.dirname(order.get("file", "")) or folder  # noqa: PTH120
            try:
                answer = {"result": getattr(host, order["order"])(order)}
            except Wrong as error:
                answer = {"wrong": list(error.args)}
            except (Exception, SystemExit) as error:
                traceback.print_exc()
                answer = {"error": shown(error), "place": place(error, folder)}
            sweep()
            sys.stdout.flush()
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
