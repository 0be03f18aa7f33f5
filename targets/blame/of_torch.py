"""Finds an operator in a torch program."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeml.targets.blame import Place, class_name, refuse_operator, tensor_text, users_line


def locate(program: Any, operator: str, trace: str = "") -> Place | None:
    """Finds the node and the module behind an operator.

    Args:
        program: the ``ExportedProgram`` as the user's model gave it.
        operator: such as ``aten.fft_fft.default``; after a converter's decompositions it may be
            another than the model has.
        trace: text with the source lines of the failing node, used where the name is not found.
    """
    base = operator.removesuffix(".default")
    nodes = _calls(program)
    further = [*nodes, *_calls(program.run_decompositions())]
    for node in further:
        if str(node.target).removesuffix(".default") == base:
            return place_of(node)
    # A converter's decompositions go further than torch's: prims.bessel_i0 was aten.i0.
    for node in further:
        name = str(node.target).removesuffix(".default").rpartition(".")[2]
        if base.endswith(f"_{name}"):
            return place_of(node)
    line = users_line(trace)
    for node in nodes:
        if line and users_line(node.meta.get("stack_trace") or "") == line:
            return place_of(node)
    return None


def locate_complex(program: Any) -> tuple[str, Place] | None:
    """The first operator of a torch program that makes complex numbers, and its place."""
    for node in _calls(program):
        value = node.meta.get("val")
        if getattr(value, "is_complex", lambda: False)():
            return str(node.target), place_of(node)
    return None


def locate_branch(program: Any) -> tuple[str, Place] | None:
    """The first branch or loop of a torch program (``torch.cond``, ``while_loop``), and its place.

    Converters that do not know them fail at the graphs inside, and say so of those.
    """
    for node in _calls(program):
        if any(kind.__name__ == "HigherOrderOperator" for kind in type(node.target).__mro__):
            return str(node.target), place_of(node)
    return None


def place_of(node: Any) -> Place:
    """What a node of the program's graph knows of itself."""
    modules: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    stack = list(modules.values())
    module, kind = (str(stack[-1][0]), class_name(stack[-1][1])) if stack else ("", "its forward")
    made = node.meta.get("val")
    return Place(
        node=f"node {str(node.name)!r}",
        inputs=tuple(_text(each.meta.get("val")) for each in node.all_input_nodes),
        outputs=tuple(_text(each) for each in _several(made)),
        module=module.removeprefix("L['self']."),
        kind=kind,
        line=users_line(node.meta.get("stack_trace") or ""),
    )


def refuse_unregistered(path: Path, torch: Any, cause: Exception) -> None:
    """Raises the sentence about an operator of the user's own, which no converter knows.

    torch cannot even load such a program where the operator is not registered; but the names and
    places stand in the archive as JSON.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        graphs = [name for name in archive.namelist() if name.endswith("models/model.json")]
        model: dict[str, Any] = json.loads(archive.read(graphs[0])) if graphs else {}
    nodes: list[dict[str, Any]] = model.get("graph_module", {}).get("graph", {}).get("nodes", [])
    for node in nodes:
        name = str(node["target"])
        space, _, rest = name.removeprefix("torch.ops.").partition(".")
        if not name.startswith("torch.ops.") or not rest:
            continue
        if hasattr(getattr(torch.ops, space), rest.partition(".")[0]):
            continue
        data: dict[str, str] = node.get("metadata", {})
        *_, module, kind = (data.get("nn_module_stack") or ",its forward").split(";")[-1].split(",")
        place = Place(
            module=module, kind=class_name(kind), line=users_line(data.get("stack_trace", ""))
        )
        refuse_operator(
            "The toolchain",
            f"{space}.{rest}",
            place,
            cause,
            reason="it is registered by the user's own code, of which the file holds only the name",
        )


def _calls(program: Any) -> Iterable[Any]:
    return [node for node in program.graph.nodes if node.op == "call_function"]


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, tuple | list) else (value,)  # pyright: ignore[reportUnknownVariableType]


def _text(value: Any) -> str:
    """Of a tensor, or of several."""
    if isinstance(value, tuple | list):
        return " ".join(filter(None, map(_text, _several(value))))
    if not hasattr(value, "dtype"):
        return ""
    return tensor_text(str(value.dtype).removeprefix("torch."), value.shape)
