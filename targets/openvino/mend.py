"""Mends what OpenVINO makes of a graph, where its operators have the means.

What cannot be mended stands in :mod:`edgeml.targets.openvino.faults`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import RefusedError
from edgeml.targets.frameworks import framework

_EXTREMES = {"ReduceMax": -1, "ReduceMin": 1}


def mend(model: Any) -> None:
    """Changes an ``openvino.Model`` in place so that it computes what ONNX defines."""
    for op in model.get_ops():
        if op.get_type_name() == "TopK":
            _stable(op)
        elif op.get_type_name() == "NonMaxSuppression" and op.get_input_size() > 3:
            _beyond(op)
        elif op.get_type_name() in _EXTREMES and _infinity_matters(op):
            _infinite(op)
    model.validate_nodes_and_infer_types()


def restore_inputs(model: Any, path: Path) -> None:
    """Gives an ``openvino.Model`` all inputs of the ONNX file that it was made from, by name.

    OpenVINO drops one that nothing reads. One that is given out as it is shares its tensor, and
    with it its name, with the output: a node is put between.
    """
    ops = framework("openvino.opset16")
    onnx = framework("onnx")
    for result in model.get_results():
        source = result.input_value(0)
        if source.get_node().get_type_name() == "Parameter":
            names = source.get_tensor().get_names()
            between = ops.identity(source)
            between.output(0).get_tensor().set_names(names)
            result.input(0).replace_source_output(between.output(0))
            source.get_tensor().set_names(set())
    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    known = {name for port in model.inputs for name in port.get_names()}
    lost = [each for each in graph.input if each.name not in known | weights]
    nameless = [port for port in model.inputs if not port.get_names()]
    for value, port in zip_longest(lost, nameless):
        if port is not None:
            port.get_tensor().set_names({value.name})
            continue
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        unread = ops.parameter([axis.dim_value for axis in tensor.shape.dim], dtype, value.name)
        unread.output(0).get_tensor().set_names({value.name})
        model.add_parameters([unread])
    model.validate_nodes_and_infer_types()


def check_shapes(model: Any, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
    """Compares what OpenVINO infers of its outputs with what ONNX does.

    Args:
        model: with the source's names.
        shapes: what ONNX's own inference says of the outputs; None for an open axis.

    Raises:
        RefusedError: they contradict each other, so one of the operators is another.
    """
    for port in model.outputs:
        for name in port.get_names() & shapes.keys():
            found = port.get_partial_shape()
            if found.rank.is_dynamic:
                continue
            sizes = [axis.get_length() if axis.is_static else None for axis in found]
            wanted = shapes[name]
            same = len(sizes) == len(wanted) and all(
                None in pair or pair[0] == pair[1] for pair in zip(sizes, wanted, strict=True)
            )
            if not same:
                maker = port.get_node().input_value(0).get_node()
                raise RefusedError(
                    f"OpenVINO gives the output {name!r} the shape {sizes} where ONNX defines "
                    f"{list(wanted)}; its {maker.get_type_name()} "
                    f"({maker.get_friendly_name()!r}) works otherwise",
                    remedy="Replace the operator that makes it by an equivalent, or export to "
                    "another target.",
                )


def widen(model: Any) -> None:
    """Takes 16-bit inputs of a quantized ``openvino.Model``, which a microphone gives, to float by
    way of 32 bits.

    Compiling it, the CPU's plugin moves the rounding of the first layer up to the input, and then
    finds that oneDNN has nothing for 16 bits.
    """
    ops = framework("openvino.opset16")
    for parameter in model.get_parameters():
        if parameter.get_element_type().get_type_name() != "i16":
            continue
        for reader in list(parameter.output(0).get_target_inputs()):
            if reader.get_node().get_type_name() == "Convert":
                reader.replace_source_output(ops.convert(parameter.output(0), "i32").output(0))


def _stable(op: Any) -> None:
    """Of equal values ONNX takes the first; OpenVINO any, unless told."""
    given = op.get_attributes()
    if given["stable"] or given["sort"] == "none":
        return
    made = framework("openvino.opset11").topk(
        op.input_value(0),
        op.input_value(1),
        given["axis"],
        given["mode"],
        given["sort"],
        given["index_element_type"],
        stable=True,
    )
    made.set_friendly_name(op.get_friendly_name())
    for index in range(op.get_output_size()):
        names = op.output(index).get_tensor().get_names()
        for reader in list(op.output(index).get_target_inputs()):
            reader.replace_source_output(made.output(index))
        made.output(index).get_tensor().set_names(names)


def _beyond(op: Any) -> None:
    """ONNX drops a box whose overlap is beyond the threshold; OpenVINO one that is at it, too."""
    ops = framework("openvino.opset16")
    threshold = op.input_value(3)
    least = ops.constant(np.array(1e-6, threshold.get_element_type().to_dtype()))
    op.input(3).replace_source_output(ops.add(threshold, least).output(0))


def _infinity_matters(op: Any) -> bool:
    """Whether a maximum or minimum is compared, or there is nothing to take it of."""
    if not op.get_output_element_type(0).is_real():
        return False
    readers = {port.get_node().get_type_name() for port in op.output(0).get_target_inputs()}
    shape = op.input_value(0).get_partial_shape()
    return bool(readers & {"Equal", "IsInf"}) or (shape.is_static and 0 in list(shape.to_shape()))


def _infinite(op: Any) -> None:
    """Of nothing, and of nothing but infinities, OpenVINO makes the largest finite number."""
    ops = framework("openvino.opset16")
    sign = _EXTREMES[op.get_type_name()]
    dtype = op.get_output_element_type(0).to_dtype()
    readers = list(op.output(0).get_target_inputs())
    names = op.output(0).get_tensor().get_names()
    finite = ops.constant(np.array(sign * np.finfo(dtype).max, dtype))
    infinity = ops.constant(np.array(sign * np.inf, dtype))
    # The CPU computes float16 in float32, and may be beyond float16's largest.
    beyond = (ops.less_equal if sign < 0 else ops.greater_equal)(op.output(0), finite)
    made = ops.select(beyond, infinity, op.output(0))
    for reader in readers:
        reader.replace_source_output(made.output(0))
    made.output(0).get_tensor().set_names(names)
