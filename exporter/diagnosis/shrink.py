"""Shrinks a model to the smallest ONNX graph that a target refuses or gets wrong. In a child."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeml.columns import load
from edgeml.errors import EdgemlError, RefusedError
from edgeml.exporter.diagnosis import parting
from edgeml.exporter.diagnosis.cut import Cutter, save
from edgeml.exporter.diagnosis.reduce import Items, smallest
from edgeml.targets.compiling import CompileJob, compile_here
from edgeml.targets.runtime import NamedSession, open_session

DIFFERS = "differs"
"""The symptom of an artifact that computes something else."""


class ShrinkJob(msgspec.Struct, frozen=True, kw_only=True):
    """A failure, and where to write the smallest model that shows it.

    Attributes:
        target: that refused the model or got it wrong.
        job: the conversion.
        symptom: the error's text, or :data:`DIFFERS`.
        samples: an ``.npy`` an input, of which the first row is taken.
        output: the ``.onnx`` to write.
    """

    target: str
    job: CompileJob
    symptom: str
    samples: tuple[Path, ...]
    output: Path


class Shrunk(msgspec.Struct, frozen=True, kw_only=True):
    """What was written; ``nodes`` is 0 where nothing was, and ``text`` says why."""

    nodes: int = 0
    of: int = 0
    text: str = ""
    symptom: str = ""
    """What it shows: of a model that was made into ONNX first, in ONNX's words."""


def shrink(job: ShrinkJob) -> Shrunk:
    """In the child: reduce and write."""
    names = job.job.inputs
    feeds = {n: np.array(load(f)[:1]) for n, f in zip(names, job.samples, strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        counter = iter(range(1_000_000))
        by_way = job.job.source_kind not in {"onnx", "classical"}
        try:
            path = _as_onnx(job.job, Path(folder)) if by_way else job.job.source
        except EdgemlError as error:
            return Shrunk(
                text="There is no smallest ONNX model, since the model cannot be made into ONNX: "
                f"{error.found}"
            )
        cutter = Cutter(path, feeds)
        count = len(cutter.nodes)

        symptom = job.symptom

        def symptom_of(items: Items) -> str:
            model = cutter.cut(items)
            if model is None:
                return ""
            own = Path(folder) / str(next(counter))
            own.mkdir()
            return _symptom(job, model, own, cutter.values)

        def shows(items: Items) -> bool:
            return _kind(symptom_of(items)) == _kind(symptom)

        everything = tuple(range(count))
        whole = symptom_of(everything)
        if by_way and _unnamed(whole) == _unnamed(job.symptom):
            symptom = whole  # operators have other names in ONNX
        if _kind(whole) != _kind(symptom):
            return Shrunk(text=_otherwise(whole, by_way=by_way))
        kept = smallest(count, shows, guesses=_guesses(cutter, symptom))
        model = cutter.cut(kept)
        save(model, job.output)
    return Shrunk(nodes=len(kept), of=count, symptom=symptom)


def _otherwise(whole: str, *, by_way: bool) -> str:
    """Why there is nothing to shrink, where the whole model shows something else, or nothing."""
    if not by_way:
        return "The whole model does not show it alone"
    none = "There is no smallest ONNX model: made into ONNX first, the model "
    if not whole:
        return f"{none}is not refused, so that its ONNX file is a way round"
    return f"{none}fails otherwise ({whole})"


def confirm(job: ShrinkJob) -> bool:
    """In another child: whether the model that was written shows it."""
    onnx: Any = __import__("onnx")
    with tempfile.TemporaryDirectory() as folder:
        model = onnx.load(str(job.output))
        random = np.random.default_rng(0)
        values = {
            value.name: random.normal(
                size=[axis.dim_value for axis in value.type.tensor_type.shape.dim]
            ).astype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for value in model.graph.input
        }
        return _kind(_symptom(job, model, Path(folder), values)) == _kind(job.symptom)


def _symptom(job: ShrinkJob, model: Any, folder: Path, values: dict[str, Any]) -> str:
    """What a target does to a model: the error's text, :data:`DIFFERS`, or nothing."""
    path = folder / "part.onnx"
    save(model, path)
    inputs = tuple(str(value.name) for value in model.graph.input)
    outputs = tuple(str(value.name) for value in model.graph.output)
    work = msgspec.structs.replace(
        job.job,
        source_kind="onnx" if job.job.source_kind != "classical" else "classical",
        source=path,
        inputs=inputs,
        outputs=outputs,
        workdir=folder / "out",
        calibration=None,
    )
    try:
        made = compile_here(job.target, work)
        if job.symptom != DIFFERS:
            return ""
        feeds = {name: values[name] for name in inputs}
        session = open_session(job.target, made.files[0], options=made.options)
        with NamedSession(session, made.inputs, made.outputs) as named:
            found = named.run(feeds)
    except EdgemlError as error:
        return error.found
    except KeyError:
        return ""
    reference = _reference(path, feeds, outputs)
    row = {name: array[None] for name, array in reference.items()}
    difference = parting.first_difference(row, {n: np.asarray(found[n])[None] for n in row})
    return DIFFERS if difference is not None else ""


def _reference(path: Path, feeds: dict[str, Any], outputs: tuple[str, ...]) -> dict[str, Any]:
    runtime: Any = __import__("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(list(outputs), feeds), strict=True))


def _kind(symptom: str) -> str:
    """An error's first sentence without the names and numbers that change as a graph is cut."""
    first = re.split(r"(?<=[a-zA-Z\]')])\. ", symptom, maxsplit=1)[0]
    return re.sub(r"'[^']*'|\[[^\]]*\]|\d+", "…", first)


def _unnamed(symptom: str) -> str:
    """Likewise, without the operator that a target lacks."""
    return re.sub(r"(?<= has no operator for )[\w.:]+", "…", _kind(symptom))


def _guesses(cutter: Cutter, symptom: str) -> Iterator[Items]:
    """Single nodes: first those whose operator the error names."""
    named = [i for i, node in enumerate(cutter.nodes) if node.op_type in symptom]
    yield from ((index,) for index in named)


def _as_onnx(job: CompileJob, folder: Path) -> Path:
    """The source as an ONNX graph.

    Raises:
        RefusedError: it cannot be made into one.
    """
    work = msgspec.structs.replace(
        job, precision="fp32", workdir=folder / "as-onnx", calibration=None, bridge=None
    )
    made = compile_here("onnx", work)
    if not made.files:
        raise RefusedError("ONNX's converter wrote no file")
    return made.files[0]
