"""A torch program in the operators that ``torch.onnx`` knows: :mod:`edgeml.targets.composed`.

What comes of it is the same file as by way of ``run_decompositions``, but that values inside may
have other numbers in their names.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeml.targets.composed import Arguments, Rule, Same, batch_norm, rewritten, view

# Those that it has functions for, and so leaves as they are.
_TAKEN = {
    "add.Tensor",
    "avg_pool2d.default",
    "cat.default",
    "conv1d.default",
    "conv2d.default",
    "gelu.default",
    "hardsigmoid.default",
    "hardswish.default",
    "hardtanh.default",
    "leaky_relu.default",
    "linear.default",
    "max_pool2d.default",
    "mean.dim",
    "mul.Tensor",
    "permute.default",
    "relu.default",
    "sigmoid.default",
    "silu.default",
    "softmax.int",
    "sub.Tensor",
    "tanh.default",
    "view.default",
}


def _adaptive_avg_pool2d(given: Arguments, before: Any, after: Any) -> Same | None:
    if [*after.shape[-2:]] == [1, 1]:
        return "mean.dim", (given[0], [-1, -2], True), 1
    sizes = [*zip(before.shape[-2:], after.shape[-2:], strict=True)]
    if any(size % pooled for size, pooled in sizes):
        return None
    kernel = [size // pooled for size, pooled in sizes]
    return "avg_pool2d.default", (given[0], kernel, kernel), 1


def _view(given: Arguments, before: Any, after: Any) -> Same | None:
    return view(given, before, after) if before.is_contiguous() else None  # torch copies it first


def _reshape(given: Arguments, before: Any, _after: Any) -> Same | None:
    return ("view.default", given, 1) if before.is_contiguous() else None


_COMPOSED: Mapping[str, Rule] = {
    "adaptive_avg_pool2d.default": _adaptive_avg_pool2d,
    "batch_norm.default": batch_norm,
    "flatten.using_ints": _view,
    "reshape.default": _reshape,
}


def take_apart(program: Any) -> bool:
    """Have a program be its own decomposition, where that needs no tracing. It is changed in place.

    Returns:
        Whether it is one; False where one of its operators is none of those above, an axis is open,
        or an output is to be written otherwise: torch is to take it apart.
    """
    ends = program.graph_signature.user_outputs  # by name: they must stay
    named = {each.name: str(each.target).removeprefix("aten.") for each in program.graph.nodes}
    if any(named.get(name) in _COMPOSED for name in ends):
        return False
    if not rewritten(program.graph, _TAKEN, _COMPOSED):
        return False
    program.graph_module.recompile()

    def run_decompositions(table: Any = None) -> Any:  # noqa: ARG001
        return program

    program.run_decompositions = run_decompositions
    return True
