"""Looks a Core ML package over where no Mac is at hand to run it.

Names, shapes and types of inputs and outputs against the source's; the program's operators, of
which none may be a custom one; and the weights, which must be there and finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgeml.errors import ToolchainError
from edgeml.targets import sources
from edgeml.targets.coreml.convert import Converted, Port, coremltools
from edgeml.targets.fronts import before_logarithms
from edgeml.targets.signals import Layer

# By their numbers in Core ML's format of models (FeatureTypes.proto).
_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}


def check(made: Converted) -> tuple[list[str], list[str]]:
    """The names of a model's inputs and outputs, in the order of the source's ports.

    Raises:
        ToolchainError: something is not as the source has it.
    """
    spec = made.model.get_spec()
    inputs = _ports(spec.description.input, made.inputs)
    outputs = _ports(spec.description.output, made.outputs)
    operators = _operators(spec)
    if not operators:
        raise ToolchainError("coremltools made a program without operators")
    custom = sorted(name for name in operators if name.startswith("custom"))
    if custom:
        raise ToolchainError(f"coremltools made a program with the custom operators {custom}")
    _check_weights(made.model)
    return inputs, outputs


def _ports(features: Any, wanted: Sequence[Port]) -> list[str]:
    found = list(features)
    if len(found) != len(wanted):
        raise ToolchainError(
            f"coremltools made {[each.name for each in found]}",
            expected=f"{len(wanted)} in their place: {[port.name for port in wanted]}",
        )
    for feature, port in zip(found, wanted, strict=True):
        array = feature.type.multiArrayType
        shape, dtype = tuple(int(size) for size in array.shape), _DTYPES.get(array.dataType, "?")
        # Outputs of some operators are declared without a shape; the program fixes it.
        if (shape and shape != port.shape) or dtype != port.dtype:
            raise ToolchainError(
                f"coremltools made {feature.name!r} as {dtype}{list(shape)}",
                expected=f"{port.dtype}{list(port.shape)} for {port.name!r}",
            )
    return [str(feature.name) for feature in found]


def spectra(spec: Any, count: int) -> list[str]:
    """The operations up to the logarithms of the spectra in front of a model, by their names.

    Args:
        spec: of a float program.
        count: of the spectra.
    """
    if not count:
        return []
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    made: dict[str, str] = {}
    layers: list[Layer] = []
    for operation in block.operations:
        name = str(operation.attributes["name"].immediateValue.tensor.strings.values[0])
        read = (each.name for value in operation.inputs.values() for each in value.arguments)
        reads = tuple(dict.fromkeys(made[each] for each in read if each in made))
        layers.append(Layer(name=name, operator=str(operation.type), reads=reads))
        made |= {str(each.name): name for each in operation.outputs}
    return before_logarithms(layers, count)


def _operators(spec: Any) -> set[str]:
    """The operators of the program, those inside branches and loops among them."""
    blocks = [
        block
        for function in spec.mlProgram.functions.values()
        for block in function.block_specializations.values()
    ]
    found: set[str] = set()
    while blocks:
        for operation in blocks.pop().operations:
            found.add(operation.type)
            blocks += operation.blocks
    return found


def _check_weights(model: Any) -> None:
    for name, value in _weights(model):
        values = np.asarray(value)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ToolchainError(f"coremltools made the weight {name!r} with NaN or infinity")


def _weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of all constants, as they are read back from the package.

    coremltools' own ``get_weights_metadata`` gives them too, but fails at a loop.
    """
    coremltools()
    utils = sources.framework("coremltools.models.utils")
    load = sources.framework("coremltools.converters.mil.frontend.milproto.load")
    spec = model.get_spec()
    program = utils._convert_model_spec_to_pymil_prog(  # noqa: SLF001
        model, spec.specificationVersion, load.load
    )
    blocks: list[Any] = list(program.functions.values())
    while blocks:
        for operation in blocks.pop().operations:
            blocks += operation.blocks
            if operation.op_type == "const":
                yield str(operation.name), operation.val.val
