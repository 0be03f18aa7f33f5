"""Makes the float OpenVINO model of a source, by ``convert_model``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.errors import RefusedError, ToolchainError
from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob
from edgeml.targets.faults import refuse_faults
from edgeml.targets.onnx.lowering import lower
from edgeml.targets.onnx_graph import output_shapes
from edgeml.targets.openvino.composed import as_taken
from edgeml.targets.openvino.faults import FAULTS
from edgeml.targets.openvino.mend import check_shapes, mend, restore_inputs
from edgeml.targets.registry import SourceKind
from edgeml.targets.tflite.source import lite_model, locate_lite

_TITLE = "OpenVINO"

# How its frontends say that an operator is missing, the surest first.
_MISSING = (
    r"No conversion rule found for operations: ([^\n]+)",
    r"does not support the following ONNX operations: ([^\n]+)",
    r"Conversion is failed for: ([^\n]+)",
)

# What fails only because of the operator before or after it.
_BYSTANDERS = {"Cast", "Complex", "Identity", "Imag", "Pack", "Real", "Reshape", "Transpose"}


# Lines that say where in OpenVINO's source something went wrong, not what.
_NO_WORDS = re.compile(
    r"Check '|Exception |While validating|Loading input|FrontEnd API failed with"
)


def float_model(job: CompileJob) -> Any:
    """The ``openvino.Model`` of a job's source, made once for all jobs of a source.

    Whoever changes it clones it first.

    Raises:
        RefusedError: OpenVINO lacks an operator of the model.
        SourceError: the source cannot be used.
    """
    return _float_model(job.source_kind, job.source, job.inputs, job.outputs, job.workdir)


@functools.lru_cache(maxsize=1)
def _float_model(
    kind: SourceKind, source: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], workdir: Path
) -> Any:
    ov = sources.framework("openvino")

    if kind == "torch":
        program = sources.torch_program(source)
        try:
            model: Any = ov.convert_model(_decoded(program))
        except Exception as error:
            text = str(error)
            # What it makes of a loop is a list, and too short.
            branch = sources.locate_branch(program) if "getitem" in text else None
            if branch is not None:
                reason = _told(text, "<built-in function getitem>")
                sources.refuse_operator(_TITLE, *branch, error, reason=reason)
            _refuse_lacking(error, lambda operator: sources.locate(program, operator, text))
            raise _untold(error) from error
        model.set_friendly_name("model")  # in place of one with the number of models before it
        # Ports carry names of graph values; their order is the program's.
        path = source
        by_name = dict(zip(inputs, model.inputs, strict=True))
        results = dict(zip(outputs, model.outputs, strict=True))
        examples = sources.flat_examples(program)
        for port, example in zip(model.inputs, examples, strict=True):
            # Else an input that meets a whole number first has no type: x - 1.
            port.get_node().set_element_type(ov.Type(example.numpy().dtype))
        shapes = [list(example.shape) for example in examples]
        model.reshape(dict(zip(model.inputs, shapes, strict=True)))
        _part_from_inputs(model)
    else:
        job = CompileJob(
            source_kind=kind,
            source=source,
            precision="fp32",
            inputs=inputs,
            outputs=outputs,
            workdir=workdir,
        )
        model = _as_it_is(job) if kind == "savedmodel" else None
        path, tensors = source, dict[str, str]()
        if model is None:
            path, tensors, locate = _readable(job)
            try:
                model = ov.convert_model(str(path))
            except Exception as error:
                _refuse_lacking(error, lambda operator: locate(path, operator))
                raise _untold(error) from error
        # It stands in every artifact; of a folder, with the whole path.
        model.set_rt_info(path.name, ["conversion_parameters", "input_model"])
        if kind in {"onnx", "classical"}:
            mend(model)
            restore_inputs(model, path)
        by_name = {name: _port(model.inputs, tensors.get(name, name)) for name in inputs}
        results = {name: _port(model.outputs, tensors.get(name, name)) for name in outputs}
    for name, port in (*by_name.items(), *results.items()):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    if kind in {"onnx", "classical"}:
        check_shapes(model, output_shapes(path))
    return model


def _part_from_inputs(model: Any) -> None:
    """Puts a node that changes nothing before each output that is an input: else the two are one
    tensor, with one name."""
    opset = sources.framework("openvino.opset13")
    for result in model.results:
        given = result.input_value(0)
        if given.get_node().get_type_name() == "Parameter":
            kind = given.get_element_type().get_type_name()
            result.input(0).replace_source_output(opset.convert(given, kind).output(0))


def _decoded(program: Any) -> Any:
    """A program as OpenVINO's converter takes it: read already, where torch need not take it
    apart first."""
    module = as_taken(program)
    if module is None:
        return program
    frontend = sources.framework("openvino.frontend.pytorch.fx_decoder")
    return frontend.TorchFXPythonDecoder(module, dynamic_shapes=True)


def _as_it_is(job: CompileJob) -> Any | None:
    """A SavedModel converted without TensorFlow's help, which takes 3 s of a core to import.

    Returns:
        None where OpenVINO finds other names than the job's in it or an axis that is open, or does
        not take it: TensorFlow may mend that, or knows what is wrong with it.
    """
    ov = sources.framework("openvino")
    try:
        model = ov.convert_model(str(job.source))
    except Exception:  # noqa: BLE001 - tried again in a moment, and told then
        return None
    for names, ports in ((job.inputs, model.inputs), (job.outputs, model.outputs)):
        found = [name for name in names if any(name in port.get_names() for port in ports)]
        if len(found) != len(names) or len(ports) != len(names):
            return None
    shapes = [port.get_partial_shape() for port in model.inputs]
    fixed = all(shape.is_static and list(shape.to_shape())[:1] in ([1], []) for shape in shapes)
    return model if fixed else None


def _readable(
    job: CompileJob,
) -> tuple[Path, dict[str, str], Callable[[Path, str], sources.Place | str | None]]:
    """The file that OpenVINO is to read, its names where they are not the job's, and what finds an
    operator in it."""
    if job.source_kind == "savedmodel":
        return sources.savedmodel(job), {}, sources.locate_tensorflow
    if job.source_kind == "tflite":
        lite = lite_model(job)
        return lite.path, {**lite.inputs, **lite.outputs}, locate_lite
    return _fixed_onnx(job), {}, sources.locate_onnx


def _fixed_onnx(job: CompileJob) -> Path:
    onnx = sources.framework("onnx")

    path = job.workdir / "batch-1.onnx"
    model = sources.onnx_model(job)
    if job.source_kind == "classical":
        model = lower(model)
    refuse_faults(_TITLE, model, FAULTS)
    onnx.save(model, str(path))
    return path


def _port(ports: Any, name: str) -> Any:
    for port in ports:
        # TensorFlow's frontend adds the output's index to a name.
        if port.get_names() & {name, f"{name}:0"}:
            return port
    known = [sorted(port.get_names()) for port in ports]
    raise ToolchainError(f"OpenVINO made a model with the ports {known}", expected=name)


def _refuse_lacking(error: Exception, locate: Callable[[str], sources.Place | str | None]) -> None:
    """Raises the sentence about an operator that OpenVINO lacks, if that is what went wrong."""
    text = str(error)
    for pattern in _MISSING:
        found = re.search(pattern, text)
        if found is None:
            continue
        # One that it lacks takes its neighbours along, such as the Cast to complex before an FFT.
        # ONNX's carry the opset: Resize-13.
        failed = [re.sub(r"-\d+$", "", name.strip()) for name in found.group(1).split(",")]
        operator = next((name for name in failed if name not in _BYSTANDERS), failed[0])
        words = _told(text, operator)
        sources.refuse_operator(_TITLE, operator, locate(operator), error, reason=words)


def _untold(error: Exception) -> RefusedError:
    return RefusedError(
        f"OpenVINO cannot convert the model: {_last_words(str(error))}",
        remedy="Where it names an operator or a type, replace that in the model; or export to "
        "another target.",
    )


def _last_words(text: str) -> str:
    """What OpenVINO says after the places in its own code."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not _NO_WORDS.match(line)]
    return " ".join(said or lines)[:300].rstrip(".")


def _told(text: str, operator: str) -> str:
    """OpenVINO's own words on an operator: those of its entry in the log, else the summary's."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    entry, summary, inside = "", "", False
    for line in lines:
        if line.startswith("-- "):
            inside = line.startswith((f"-- {operator} ", f"-- {operator}-"))
            if "with a message" not in line and operator in line:
                summary = summary or line.removeprefix("-- ")
        elif inside and not entry and not _NO_WORDS.match(line):
            entry = "" if "Conversion failed for" in line else line
    return (entry or summary)[:200].rstrip(".")
