"""Which module and line of a torch program the layers of a converted graph come from.

Converters drop or rewrite names. But layers with weights come in the same order in the graph as in
the program, and make as many numbers; that is what they are matched by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from edgeml.targets import sources
from edgeml.targets.blame.of_torch import place_of
from edgeml.targets.compiling import CompileJob
from edgeml.targets.signals import Layer

_WEIGHTED = ("conv", "linear", "mm", "matmul", "embedding", "lstm", "gru")


def with_origins(
    layers: Sequence[Layer], sizes: Sequence[int], job: CompileJob
) -> tuple[Layer, ...]:
    """The layers with ``module`` and ``line`` where the job's source is torch and tells them.

    Args:
        layers: in the order in which they run.
        sizes: how many numbers each of them makes.
        job: the job; other kinds of source leave the layers as they are.
    """
    if job.source_kind != "torch":
        return tuple(layers)
    left = [node for node in sources.torch_program(job.source).graph.nodes if _weighted(node)]
    found: list[Layer] = []
    for layer, size in zip(layers, sizes, strict=True):
        node = next((node for node in left if layer.weighted and _size(node) == size), None)
        if node is None:
            found.append(layer)
            continue
        left.remove(node)
        place = place_of(node)
        found.append(msgspec.structs.replace(layer, module=place.module, line=place.line))
    return tuple(found)


def _weighted(node: Any) -> bool:
    name = str(node.target).rpartition("aten.")[2]
    return node.op == "call_function" and any(part in name for part in _WEIGHTED)


def _size(node: Any) -> int:
    shape = getattr(node.meta.get("val"), "shape", ())
    return int(np.prod([int(axis) for axis in shape]))
