"""What torch composes of other operators, written in those that a converter takes.

Converters have torch take an exported program apart (``run_decompositions``), which traces it
twice: 2 to 3 s of a core for MobileNetV2. In most convolutional networks each operator that needs
it stands for a single other one, with its arguments in another order.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from edgeml.targets.frameworks import framework

Arguments = tuple[Any, ...]
Same = tuple[str, Arguments, int]
"""An operator that computes the same as its first result, its arguments, and how many it has."""

Rule = Callable[[Arguments, Any, Any], Same | None]
"""Of an operator's arguments, what the first is (a tensor without values), and what its result is;
None: torch is to take it apart."""


class _Change(NamedTuple):
    node: Any
    rule: Rule
    before: Any
    after: Any

    def same(self) -> Same | None:
        return self.rule(_arguments(self.node), self.before, self.after)


def rewritten(graph: Any, taken: Collection[str], composed: Mapping[str, Rule]) -> bool:
    """Replace the composed operators of a graph, if all others are taken as they are.

    Args:
        graph: of ``torch.fx``, changed in place.
        taken: names of operators, such as ``relu.default``.
        composed: what to make of others.

    Returns:
        Whether it is done; else, with an operator that is neither or an open axis, the graph is as
        it was.
    """
    changes: list[_Change] = []
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        after = node.meta.get("val")
        if not _closed(after):
            return False
        name = str(node.target).removeprefix("aten.")
        if name in taken:
            continue
        rule = composed.get(name)
        if rule is None:
            return False
        before = node.args[0].meta.get("val")
        if not _closed(before):
            return False
        change = _Change(node, rule, before, after)
        if change.same() is None:
            return False
        changes.append(change)
    for change in changes:
        same = change.same()  # again: its arguments may have been replaced by now
        assert same is not None
        _replace(graph, change.node, same)
    return True


def batch_norm(given: Arguments, _before: Any, _after: Any) -> Same | None:
    """With the statistics of the training, that is."""
    *start, training, momentum, epsilon, _ = given
    name = "_native_batch_norm_legit_no_training.default"
    return None if training else (name, (*start, momentum, epsilon), 3)


def view(given: Arguments, _before: Any, after: Any) -> Same:
    """Of what only changes its shape."""
    return "view.default", (given[0], [*after.shape]), 1


def _closed(value: Any) -> bool:
    """Whether it is a tensor with no axis open."""
    shape: Any = getattr(value, "shape", None)
    return shape is not None and all(isinstance(size, int) for size in shape)


def _replace(graph: Any, node: Any, same: Same) -> None:
    aten: Any = framework("torch").ops.aten
    kind, arguments, results = same
    packet, _, overload = kind.rpartition(".")
    with graph.inserting_before(node):
        function = getattr(getattr(aten, packet), overload)
        made = graph.create_node("call_function", function, arguments, name=packet)
        made.meta = dict(node.meta)
        if results > 1:
            value = node.meta["val"]
            made.meta["val"] = (value, *[value.new_empty(0)] * (results - 1))
            # One a result, as torch does, so that names come out as they do there.
            parts = [graph.call_function(operator.getitem, (made, i)) for i in range(results)]
            for part in parts[1:]:
                graph.erase_node(part)
            made = parts[0]
            made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _arguments(node: Any) -> Arguments:
    """All of them in the order of the operator's schema, the defaults too."""
    declared = node.target._schema.arguments  # noqa: SLF001 - there is no other way to the defaults
    left = declared[len(node.args) :]
    return (*node.args, *(node.kwargs.get(each.name, each.default_value) for each in left))
