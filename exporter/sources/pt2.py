"""A ``.pt2`` of ``torch.export.save``: read without opening a pickle, or why it cannot be read.

It holds a graph as JSON, and tensors. It may hold more: sample inputs that ``torch.load`` refuses
as weights torch unpickles whatever they are, and so it does objects among the constants.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import functools
import sys
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgeml.decoding import from_json
from edgeml.errors import SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources.forms import damaged

_TITLE = "a file that torch.export.save wrote"
_GRAPHS = ("models/model.json", "serialized_exported_program.json")
"""Ends of the name of the member that holds the graph; the latter until torch 2.7."""

_reading: list[Path] = []
"""Of this process, the file that is being read."""


def load_program(path: Path) -> Any:
    """Read a ``.pt2``.

    Raises:
        SourceError: it is damaged, has an operator of somebody's own, holds a pickle, or is of a
            version that this torch does not read.
    """
    try:
        with _no_pickles(path):
            return torch.export.load(str(path))
    except SourceError:
        raise
    except Exception as error:
        raise _why_unread(path, error) from error


@contextlib.contextmanager
def _no_pickles(path: Path) -> Generator[None]:
    """While the block lasts, no pickle of this process finds a class or a function.

    Tensors alone need none: ``torch.load`` rebuilds them by itself.
    """
    _watch()
    _reading.append(path)
    try:
        yield
    finally:
        _reading.pop()


@functools.cache
def _watch() -> None:
    """From now on, whoever unpickles asks here first (PEP 578). There is no way back."""

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event == "pickle.find_class" and _reading:
            raise SourceError(
                f"{_reading[-1]} holds a pickle that asks for {given[0]}.{given[1]}, and a pickle "
                "runs any code that its author put in as soon as it is opened",
                expected="tensors alone, as torch.export.save writes those of a plain program",
                remedy="Export it again from a module that holds and takes plain tensors; or write "
                "a function that returns that module, and give FILE.py:FUNCTION.",
            )

    sys.addaudithook(hook)


class _Node(msgspec.Struct, frozen=True):
    target: str
    name: str | None = None


class _Graph(msgspec.Struct, frozen=True):
    nodes: tuple[_Node, ...]


class _Module(msgspec.Struct, frozen=True):
    graph: _Graph


class _Program(msgspec.Struct, frozen=True):
    """Of the JSON in a ``.pt2``, what says why it is not read."""

    graph_module: _Module
    torch_version: str = ""


def _why_unread(path: Path, error: Exception) -> SourceError:
    try:
        with zipfile.ZipFile(path) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(_GRAPHS))
            program = from_json(archive.read(member), _Program)
    except (OSError, ValueError, zipfile.BadZipFile, msgspec.DecodeError):
        return damaged(path, _TITLE, "it holds no program")
    for node in program.graph_module.graph.nodes:
        if not _known(node.target):
            operator = node.target.removeprefix("torch.ops.").replace(".", "::", 1)
            return SourceError(
                f"Node {node.name or operator!r} of {path} is {operator}, an operator that is not "
                "part of torch",
                expected="torch's own operators, which converters read",
                remedy="Export the module again with that operator written in torch's own, or "
                "leave it out of the model and compute it before or after.",
            )
    ours = torch.__version__.partition("+")[0]
    theirs = program.torch_version.partition("+")[0]
    if theirs and theirs != ours:
        return SourceError(
            f"{path} was written by torch {theirs}, and torch {ours} does not read it: "
            f"{first_line(error)}",
            expected=f"a file that torch.export.save of torch {ours} wrote, or one that it reads",
            remedy="Give the function that returns the module, as FILE.py:FUNCTION, and with "
            f"--python the interpreter that has torch {theirs}; or export it to ONNX there.",
        )
    return damaged(path, _TITLE, first_line(error))


def _known(target: str) -> bool:
    """Whether this torch has what a node of a graph calls."""
    found: Any = torch.ops
    if not target.startswith("torch.ops."):
        return True  # of Python, or of torch's control flow
    for name in target.split(".")[2:]:
        found = getattr(found, name, None)
    return found is not None
