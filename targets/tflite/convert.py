"""Makes the float LiteRT model of a source: litert-torch or TensorFlow's converter.

A ``.tflite`` is taken as it is, with its batch fixed; ONNX goes through onnx2tf (bridge.py).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import msgspec

from edgeml.errors import RefusedError
from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob
from edgeml.targets.faults import refuse_faults
from edgeml.targets.onnx.lowering import lower
from edgeml.targets.registry import SourceKind
from edgeml.targets.tflite.beside import check_beside
from edgeml.targets.tflite.bridge import savedmodel_of
from edgeml.targets.tflite.faults import FAULTS
from edgeml.targets.tflite.plain_onnx import plain
from edgeml.targets.tflite.source import lite_model

_TITLE = "LiteRT"


class Float(msgspec.Struct, frozen=True):
    """A float32 ``.tflite``, with the source's names to those of its signature."""

    path: Path
    inputs: dict[str, str]
    outputs: dict[str, str]


def float_model(job: CompileJob) -> Float:
    """The float model of a job's source, made once for all jobs of a source.

    Raises:
        RefusedError: LiteRT lacks an operator of the model.
        SourceError: the source cannot be used.
    """
    return _float_model(
        job.source_kind, job.source, job.inputs, job.outputs, job.workdir, job.bridge
    )


@functools.lru_cache(maxsize=1)
def _float_model(
    kind: SourceKind,
    source: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    workdir: Path,
    bridge: Path | None,
) -> Float:
    path = workdir / "float.tflite"
    if kind == "torch":
        _from_torch(source, path)
        # litert-torch names by position: args_0, args_1, …; output_0, output_1, …
        return Float(
            path,
            {name: f"args_{index}" for index, name in enumerate(inputs)},
            {name: f"output_{index}" for index, name in enumerate(outputs)},
        )
    names = {name: name for name in inputs}, {name: name for name in outputs}
    job = CompileJob(
        source_kind=kind,
        source=source,
        precision="fp32",
        inputs=inputs,
        outputs=outputs,
        workdir=workdir,
    )
    if kind == "tflite":
        return Float(lite_model(job).path, *names)
    if kind in {"onnx", "classical"}:
        return _from_onnx(job, bridge, path)
    _from_savedmodel(sources.savedmodel(job), path)
    return Float(path, *names)


def _from_torch(source: Path, path: Path) -> None:
    litert_torch = sources.framework("litert_torch")
    torch = sources.framework("torch")

    program = sources.torch_program(source)
    module, examples = sources.flat_module(program)
    wide = any(tensor.dtype in {torch.int64, torch.float64} for tensor in examples)
    try:
        # Unless told otherwise it makes 32-bit inputs of 64-bit ones.
        model = litert_torch.convert(module, examples, enable_x64=wide)
        model.export(str(path))
    except Exception as error:
        text = str(error)
        missing = re.search(r"Lowering not found: (\S+)", text)
        if missing is not None:
            operator = missing.group(1)
            place = sources.locate(program, operator, text)
            sources.refuse_operator(_TITLE, operator, place, error)
        complex_node = sources.locate_complex(program) if "complex" in text else None
        if complex_node is not None:
            sources.refuse_operator(_TITLE, *complex_node, error)
        raise


def _from_onnx(job: CompileJob, bridge: Path | None, path: Path) -> Float:
    onnx = sources.framework("onnx")

    model = sources.onnx_model(job)
    if job.source_kind == "classical":
        model = lower(model)
    refuse_faults(_TITLE, model, FAULTS)
    inputs, outputs = _ports(model)
    model = plain(model)
    graph = job.workdir / "bridge.onnx"
    onnx.save(model, str(graph))
    made = savedmodel_of(graph, bridge, job.workdir / "bridge")
    _from_savedmodel(made, path)
    check_beside(path, made.with_suffix(".npz"))
    return Float(
        path,
        {name: f"input_{index}" for index, name in enumerate(inputs)},
        {name: f"output_{index}" for index, name in enumerate(outputs)},
    )


def _ports(model: Any) -> tuple[list[str], list[str]]:
    """The names of a graph's inputs and outputs, in its order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    return inputs, [value.name for value in model.graph.output]


def _from_savedmodel(folder: Path, path: Path) -> None:
    tf = sources.framework("tensorflow")

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    try:
        path.write_bytes(converter.convert())
    except Exception as error:
        missing = re.search(r"'tf\.(\w+)' op is neither a custom op nor a flex op", str(error))
        if missing is None:
            broken = re.search(r"'tfl\.\w+' op [^\n]+", str(error))
            if broken is None:
                raise
            node = re.search(r'"([^":]+)@', str(error))
            at = f", at {node[1]!r}" if node else ""
            raise RefusedError(
                f"TensorFlow's converter makes of it what LiteRT does not have{at}: {broken[0]}",
                remedy="Replace that operator, or what reads it, by an equivalent; or export to "
                "openvino or onnx.",
            ) from error
        operator = missing.group(1)
        place = sources.locate_tensorflow(folder, operator)
        sources.refuse_operator(_TITLE, operator, place, error)
