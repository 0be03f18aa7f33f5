"""What torch composes of other operators, written in those that OpenVINO's frontend takes.

OpenVINO has torch take an exported program apart (``run_decompositions``), which traces it twice:
2.3 s of a core for MobileNetV2, nine tenths of the conversion. In most convolutional networks each
operator that needs it stands for a single other one, with its arguments in another order.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from edgeml.targets import sources

Arguments = tuple[Any, ...]
Same = tuple[str, Arguments, bool]
"""An operator that computes the same, its arguments, and whether it has further results."""

# Those that the frontend takes as they are.
_TAKEN = {
    "add.Tensor",
    "avg_pool2d.default",
    "cat.default",
    "gelu.default",
    "hardsigmoid.default",
    "hardswish.default",
    "hardtanh.default",
    "leaky_relu.default",
    "linear.default",
    "mean.dim",
    "mul.Tensor",
    "permute.default",
    "relu.default",
    "sigmoid.default",
    "silu.default",
    "sub.Tensor",
    "tanh.default",
    "view.default",
}


def _convolution(given: Arguments, shape: list[int]) -> Same:  # noqa: ARG001
    *start, stride, padding, dilation, groups = given
    none = [0] * len(stride)
    return "convolution.default", (*start, stride, padding, dilation, False, none, groups), False


def _batch_norm(given: Arguments, shape: list[int]) -> Same | None:  # noqa: ARG001
    *start, training, momentum, epsilon, _ = given
    name = "_native_batch_norm_legit_no_training.default"
    return None if training else (name, (*start, momentum, epsilon), True)


def _max_pool2d(given: Arguments, shape: list[int]) -> Same:  # noqa: ARG001
    return "max_pool2d_with_indices.default", given, True


def _adaptive_avg_pool2d(given: Arguments, shape: list[int]) -> Same:
    if shape[-2:] == [1, 1]:
        return "mean.dim", (given[0], [-1, -2], True), False
    return "_adaptive_avg_pool2d.default", given, False


def _view(given: Arguments, shape: list[int]) -> Same:
    return "view.default", (given[0], shape), False


def _softmax(given: Arguments, shape: list[int]) -> Same | None:  # noqa: ARG001
    values, axis, dtype = given
    return None if dtype is not None else ("_softmax.default", (values, axis, False), False)


_COMPOSED: Mapping[str, Callable[[Arguments, list[int]], Same | None]] = {
    "adaptive_avg_pool2d.default": _adaptive_avg_pool2d,
    "batch_norm.default": _batch_norm,
    "conv1d.default": _convolution,
    "conv2d.default": _convolution,
    "flatten.using_ints": _view,
    "max_pool2d.default": _max_pool2d,
    "reshape.default": _view,
    "softmax.int": _softmax,
}
"""Of an operator's arguments and its result's shape; None: torch is to take it apart."""


def as_taken(program: Any) -> Any | None:
    """The module of a program in the frontend's operators, as torch's own decompositions make it.

    Returns:
        A ``GraphModule``; None where one of its operators is none of those above, or an axis is
        open.
    """
    aten: Any = sources.framework("torch").ops.aten
    module = program.module()
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        name = str(node.target).removeprefix("aten.")
        if name in _TAKEN:
            continue
        shape: list[Any] = [*getattr(node.meta.get("val"), "shape", ())]
        if name not in _COMPOSED or not all(isinstance(size, int) for size in shape):
            return None
        same = _COMPOSED[name](_arguments(node), shape)
        if same is None:
            return None
        kind, arguments, several = same
        packet, _, overload = kind.rpartition(".")
        with graph.inserting_before(node):
            function = getattr(getattr(aten, packet), overload)
            made = graph.create_node("call_function", function, arguments, name=packet)
            made.meta = dict(node.meta)
            if several:
                made = graph.call_function(operator.getitem, (made, 0))
                made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        graph.erase_node(node)
    module.recompile()
    return module


def _arguments(node: Any) -> Arguments:
    """All of them in the order of the operator's schema, the defaults too."""
    declared = node.target._schema.arguments  # noqa: SLF001 - there is no other way to the defaults
    left = declared[len(node.args) :]
    return (*node.args, *(node.kwargs.get(each.name, each.default_value) for each in left))
