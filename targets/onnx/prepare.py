"""Makes a float ONNX graph ready: what its artifacts of every precision are cut from.

ONNX Runtime's own basic optimizations are done once, here, and saved: batch norms folded, constants
computed, no identities. A session does the same at every start, and quantizers round what is left.
"""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path
from typing import Any

from edgeml.targets.frameworks import framework

# How a SavedModel's function begins the name of everything in it, once a nesting.
_CALLS = re.compile(r"^(?:[^/]*PartitionedCall[^/]*/)+")


@functools.lru_cache(maxsize=1)
def prepared(path: Path) -> Path:
    """The graph, optimized and without what no session reads; a file beside ``path``.

    Left out are shapes that are inferred anyway, and what exporters write beside the graph: of the
    digits sample's 76 kB 10 are stack traces, of ResNet-8's 338 kB 20 are the names of a
    SavedModel's calls. Where optimizing fails or makes the file larger (a constant spelt out, or
    an operator that is not known), the graph keeps its operators.
    """
    onnx = framework("onnx")
    optimize = framework("onnxruntime.quantization.shape_inference").quant_pre_process

    plain = _tidy(onnx.load(str(path)))
    chosen = plain
    file = path.with_name("prepared.onnx")
    with contextlib.suppress(Exception):
        optimize(str(path), str(file), skip_symbolic_shape=True)
        optimized = _tidy(onnx.load(str(file)))
        onnx.checker.check_model(optimized)
        if optimized.ByteSize() <= 1.02 * plain.ByteSize():
            chosen = optimized
    onnx.save(chosen, str(file))
    return file


def _tidy(model: Any) -> Any:
    graph: Any = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    if any(each.HasField("g") or each.graphs for node in graph.node for each in node.attribute):
        return model  # a branch may take values by name
    ends = {each.name for each in (*graph.input, *graph.output)}
    values = {name for node in graph.node for name in node.output if name}
    values = (values | {tensor.name for tensor in graph.initializer}) - ends
    short = {name: _CALLS.sub("", name) for name in values}
    if len({*short.values(), *ends}) < len(values) + len(ends):
        return model
    for node in graph.node:
        node.name = _CALLS.sub("", node.name)
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    return model
