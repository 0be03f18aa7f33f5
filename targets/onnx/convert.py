"""Makes the float ONNX graph of a source.

Torch goes through ``torch.onnx.export``, SavedModels and ``.tflite`` through tf2onnx, ONNX as
it is.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob
from edgeml.targets.faults import refuse_faults
from edgeml.targets.onnx.composed import take_apart
from edgeml.targets.onnx.faults import FAULTS
from edgeml.targets.onnx.lowering import lower
from edgeml.targets.onnx.steady import steady
from edgeml.targets.registry import SourceKind
from edgeml.targets.tflite.source import Lite, lite_model, locate_lite

_TITLE = "ONNX"

# Opset 18 and IR 10 are read by every ONNX Runtime since 1.18 and by TensorRT since 8.6.
OPSET = 18


def float_model(job: CompileJob, *, plain: bool = False) -> Path:
    """The float32 ``.onnx`` of a job's source, made once for all jobs of a source.

    Args:
        job: the job.
        plain: without the operators of ai.onnx.ml, which ONNX Runtime has for the CPU alone.

    Raises:
        RefusedError: the exporter lacks an operator of the model.
        SourceError: the source cannot be used.
    """
    kind = job.source_kind
    lowered = plain and kind == "classical"
    return _float_model(kind, job.source, job.inputs, job.outputs, job.workdir, lowered)


@functools.lru_cache(maxsize=1)
def _float_model(
    kind: SourceKind,
    source: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    workdir: Path,
    lowered: bool,
) -> Path:
    onnx = sources.framework("onnx")

    path = workdir / "float.onnx"
    if kind == "torch":
        _from_torch(source, inputs, outputs, path)
        return path
    job = CompileJob(
        source_kind=kind,
        source=source,
        precision="fp32",
        inputs=inputs,
        outputs=outputs,
        workdir=workdir,
    )
    if kind == "savedmodel":
        _from_savedmodel(sources.savedmodel(job), inputs, outputs, path)
    elif kind == "tflite":
        _from_lite(lite_model(job), path)
    else:
        model = sources.onnx_model(job)
        if lowered:
            model = lower(model)
        elif kind == "classical":
            _declare(model, source)
        refuse_faults("ONNX Runtime", model, FAULTS)
        onnx.save(model, str(path))
    return path


def write_graph(
    kind: SourceKind, source: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], path: Path
) -> None:
    """The graph of a torch program or of a SavedModel of one signature, as it is: an axis that it
    leaves open stays open.

    Raises:
        RefusedError: the exporter lacks an operator of the model.
    """
    write = _from_torch if kind == "torch" else _from_savedmodel
    write(source, inputs, outputs, path)


def _declare(model: Any, source: Path) -> None:
    """Gives outputs the shapes that the file states: nothing infers them behind ai.onnx.ml."""
    onnx = sources.framework("onnx")
    stated = {value.name: value for value in onnx.load(str(source)).graph.output}
    for value in model.graph.output:
        value.CopyFrom(stated[value.name])
        for axis in list(value.type.tensor_type.shape.dim)[:1]:
            axis.dim_value = 1


def _from_torch(
    source: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], path: Path
) -> None:
    program = sources.torch_program(source)
    if take_apart(program):
        sources.torch_program.cache_clear()  # whoever asks next wants it as it was
        with contextlib.suppress(Exception):  # tried again in a moment, and told then
            _exported(program, inputs, outputs).save(str(path), external_data=False)
            return
        program = sources.torch_program(source)
    try:
        made = _exported(program, inputs, outputs)
    except Exception as error:
        text = _chain(error)
        missing = re.search(r"No ONNX function found for", text)
        node = re.search(r"Error when translating node .*?target=torch\.ops\.([\w.]+)\]", text)
        if missing is None or node is None:
            raise
        operator = node.group(1)
        sources.refuse_operator(_TITLE, operator, sources.locate(program, operator, text), error)
    made.save(str(path), external_data=False)


def _exported(program: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Any:
    return sources.framework("torch").onnx.export(
        program,
        dynamo=True,
        input_names=list(inputs),
        output_names=list(outputs),
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )


def _from_savedmodel(
    folder: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], path: Path
) -> None:
    onnx = sources.framework("onnx")
    tf = sources.framework("tensorflow")
    tf2onnx = sources.framework("tf2onnx")

    loaded: Any = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    specs: dict[str, Any] = signature.structured_input_signature[1]

    def serve(*feeds: Any) -> tuple[Any, ...]:
        results = signature(**dict(zip(inputs, feeds, strict=True)))
        # Each result is a node of its own, or two outputs that are one tensor would share a name.
        return tuple(tf.identity(results[name]) for name in outputs)

    made: Any
    made, _ = tf2onnx.convert.from_function(
        tf.function(serve),
        input_signature=[specs[name] for name in inputs],
        opset=OPSET,
    )
    _refuse_leftovers(
        made, "TensorFlow's", lambda operator: sources.locate_tensorflow(folder, operator)
    )
    made = steady(made)
    ports = [value.name for value in (*made.graph.input, *made.graph.output)]
    onnx.save(_renamed(made, dict(zip(ports, (*inputs, *outputs), strict=True))), str(path))


def _from_lite(lite: Lite, path: Path) -> None:
    onnx = sources.framework("onnx")
    tf2onnx = sources.framework("tf2onnx")

    made: Any
    made, _ = tf2onnx.convert.from_tflite(
        str(lite.path),
        input_names=list(lite.inputs.values()),
        output_names=list(lite.outputs.values()),
        opset=OPSET,
    )
    _refuse_leftovers(made, "LiteRT's", lambda operator: locate_lite(lite.path, operator))
    made = steady(made)
    names = {inner: name for name, inner in (*lite.inputs.items(), *lite.outputs.items())}
    onnx.save(_renamed(made, names), str(path))


def _refuse_leftovers(
    model: Any, whose: str, locate: Callable[[str], sources.Place | str | None]
) -> None:
    """tf2onnx warns of an operator that it cannot convert and leaves it in the graph."""
    onnx = sources.framework("onnx")
    for node in model.graph.node:
        if node.domain in {"", "ai.onnx"} and not onnx.defs.has(node.op_type):
            place = locate(node.op_type)
            sources.refuse_operator(_TITLE, f"{whose} {node.op_type}", place, None)


def _renamed(model: Any, names: dict[str, str]) -> Any:
    """The graph with its inputs and outputs under other names, wherever they are used."""
    taken = {value for node in model.graph.node for value in [*node.input, *node.output]}
    clashes = {new for old, new in names.items() if new != old and new in taken}
    spare = {new: f"{new}_inner" for new in clashes if new not in names}

    def renamed(value: str) -> str:
        return names.get(value, spare.get(value, value))

    for node in model.graph.node:
        node.input[:] = [renamed(value) for value in node.input]
        node.output[:] = [renamed(value) for value in node.output]
    for value in [*model.graph.input, *model.graph.output]:
        value.name = renamed(value.name)
    for tensor in model.graph.initializer:
        tensor.name = renamed(tensor.name)
    del model.graph.value_info[:]
    return model


def _chain(error: BaseException) -> str:
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        texts.append(str(link))
        link = link.__cause__ or link.__context__
    return "\n".join(texts)
