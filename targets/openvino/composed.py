"""A torch program in the operators that OpenVINO's frontend takes: :mod:`edgeml.targets.composed`.

That is nine tenths of the conversion of MobileNetV2.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeml.targets.composed import Arguments, Rule, Same, batch_norm, rewritten, view

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


def _convolution(given: Arguments, _before: Any, _after: Any) -> Same:
    *start, stride, padding, dilation, groups = given
    none = [0] * len(stride)
    return "convolution.default", (*start, stride, padding, dilation, False, none, groups), 1


def _max_pool2d(given: Arguments, _before: Any, _after: Any) -> Same:
    return "max_pool2d_with_indices.default", given, 2


def _adaptive_avg_pool2d(given: Arguments, _before: Any, after: Any) -> Same:
    if [*after.shape[-2:]] == [1, 1]:
        return "mean.dim", (given[0], [-1, -2], True), 1
    return "_adaptive_avg_pool2d.default", given, 1


def _softmax(given: Arguments, _before: Any, _after: Any) -> Same | None:
    values, axis, dtype = given
    return None if dtype is not None else ("_softmax.default", (values, axis, False), 1)


_COMPOSED: Mapping[str, Rule] = {
    "adaptive_avg_pool2d.default": _adaptive_avg_pool2d,
    "batch_norm.default": batch_norm,
    "conv1d.default": _convolution,
    "conv2d.default": _convolution,
    "flatten.using_ints": view,
    "max_pool2d.default": _max_pool2d,
    "reshape.default": view,
    "softmax.int": _softmax,
}


def as_taken(program: Any) -> Any | None:
    """The module of a program in the frontend's operators, as torch's own decompositions make it.

    Returns:
        A ``GraphModule``; None where one of its operators is none of those above, or an axis is
        open.
    """
    module = program.module()
    if not rewritten(module.graph, _TAKEN, _COMPOSED):
        return None
    module.recompile()
    return module
