"""A SavedModel cut down to what its signature needs.

A trained Keras model is saved with some hundred functions, of calls with and without training, and
with its optimizer; the signature that is served needs two of them and the variables that they read.
Loading the rest costs DS-CNN 1.8 s of a core, .6 of them for Keras, which TensorFlow imports where
it meets an optimizer; what the signature needs is loaded in .2, and computes the same bits.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeml.targets.frameworks import framework

_SIGNATURES = "signatures"
_FILE = "saved_model.pb"


def load_served(path: Path, folder: Path) -> Mapping[str, Any] | None:
    """Load the signatures of a SavedModel, and no more.

    Args:
        path: of the SavedModel.
        folder: does not exist; takes what is loaded in its place.

    Returns:
        The signatures by name, which hold their variables; None where they need more than functions
        and variables (a table, an asset), or it is not written as TensorFlow 2 does: load it whole.

    Raises:
        Exception: whatever TensorFlow raises where variables are missing or damaged.
    """
    message = framework("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    try:
        message.ParseFromString((path / _FILE).read_bytes())
    except (OSError, framework("google.protobuf.message").DecodeError):
        return None  # loading it says so better
    if len(message.meta_graphs) != 1:
        return None
    paths = _cut(message.meta_graphs[0])
    if paths is None:
        return None
    folder.mkdir()
    for each in path.iterdir():
        if each.name != _FILE:
            (folder / each.name).symlink_to(each.resolve())
    (folder / _FILE).write_bytes(message.SerializeToString())
    # It warns of each value in the checkpoint that is not asked for.
    logger = framework("tensorflow").get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        load = framework("tensorflow").__internal__.saved_model.load_partial
        loaded = load(str(folder), [f"root.{_SIGNATURES}", *paths])
    finally:
        logger.setLevel(level)
    return _Signatures(loaded)


class _Signatures(dict[str, Any]):
    """The signatures, and what keeps their variables alive."""

    def __init__(self, loaded: Mapping[str, Any]) -> None:
        super().__init__(loaded[f"root.{_SIGNATURES}"])
        self.loaded = loaded


def _cut(graph: Any) -> tuple[str, ...] | None:
    """Drop the functions that no signature calls.

    Args:
        graph: a ``MetaGraphDef``, changed.

    Returns:
        The paths from the root to the variables that the signatures read; None where they need
        anything else, and nothing is changed then.
    """
    objects = graph.object_graph_def
    nodes = objects.nodes
    children = {child.local_name: child.node_id for child in nodes[0].children} if nodes else {}
    if _SIGNATURES not in children:
        return None
    library = {each.signature.name: each for each in graph.graph_def.library.function}
    needed: set[str] = set()
    for child in nodes[children[_SIGNATURES]].children:
        name = nodes[child.node_id].bare_concrete_function.concrete_function_name
        if name not in library:
            return None
        needed |= _called(name, library)
    functions = objects.concrete_functions
    read = {node for name in needed if name in functions for node in functions[name].bound_inputs}
    paths = _paths(nodes)
    if not all(node in paths and nodes[node].HasField("variable") for node in read):
        return None
    kept = [library[name].SerializeToString() for name in sorted(needed)]
    del graph.graph_def.library.function[:]
    for each in kept:
        graph.graph_def.library.function.add().ParseFromString(each)
    del graph.graph_def.library.registered_gradients[:]  # nobody trains it here
    for name in [name for name in functions if name not in needed]:
        del functions[name]
    return tuple(paths[node] for node in sorted(read))


def _called(name: str, library: Mapping[str, Any]) -> set[str]:
    """A function and all that it calls."""
    found: set[str] = set()
    left = [name]
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += [called for called in _named(library[each]) if called in library]
    return found


def _named(function: Any) -> Iterator[str]:
    for node in function.node_def:
        yield node.op
        for attribute in node.attr.values():
            yield attribute.func.name
            yield from (each.name for each in attribute.list.func)


def _paths(nodes: Any) -> dict[int, str]:
    """The shortest way from the root to each object, as ``root.child.child``."""
    found = {0: "root"}
    queue = [0]
    for node in queue:
        for child in nodes[node].children:
            # A name with a dot in it would be taken for two.
            if child.node_id not in found and "." not in child.local_name:
                found[child.node_id] = f"{found[node]}.{child.local_name}"
                queue.append(child.node_id)
    return found
