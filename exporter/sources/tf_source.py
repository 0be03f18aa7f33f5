"""Keras and TensorFlow: ``.keras``, ``.h5`` and SavedModel folders, normalised to a SavedModel with
one signature of batch 1.

Keras 3 reads first; what it refuses and Keras 2 wrote is read with tf-keras. Inputs and outputs
keep the names of the signature, which for a Keras model are those of its input and output layers.
Runs in a child process.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgeml.bundle.manifest import Tensor
from edgeml.columns import rows, writers
from edgeml.errors import SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources.forms import (
    Opened,
    OpenJob,
    ReferenceJob,
    damaged,
)
from edgeml.exporter.sources.open_axes import as_onnx
from edgeml.exporter.sources.served import load_served
from edgeml.exporter.sources.shapes import (
    closed_shape,
    fed,
    filled,
    fixed_tensor,
    refuse_unknown,
    stays_open,
)
from edgeml.targets.frameworks import framework

tf = framework("tensorflow")

_SIGNATURE = "serving_default"

_signatures: dict[Path, Any] = {}
"""Of this process, so that a reference run does not load again what was just read."""


def open_source(job: OpenJob) -> Opened:
    """Read a Keras model or a SavedModel and write a SavedModel of batch 1.

    Raises:
        SourceError: the file is damaged or needs code that it does not hold; there is no signature
            to serve; an axis is left open and no data shows how long it is.
    """
    _one_thread()
    served = _from_savedmodel(job) if job.form == "savedmodel" else _from_keras(job)
    return _opened(job, served)


def open_made(job: OpenJob, model: Any, call: str) -> Opened:
    """Likewise with a Keras model that is there already.

    Args:
        job: with the shapes of the data.
        model: of Keras 3, or of Keras 2 by way of tf-keras.
        call: where it came from, for errors.

    Raises:
        SourceError: it was never built, or an axis is left open.
    """
    _one_thread()
    names = [base.__module__.partition(".")[0] for base in type(model).__mro__]
    keras = sys.modules[next(name for name in names if name in {"keras", "tf_keras"})]
    version = getattr(keras, "__version__", "")
    served = _from_model(model, call, title=f"Keras {version} model")
    return _opened(job, served, sha256=_digest(model))


def _one_thread() -> None:
    """Batches are of one: a second thread costs more than it does."""
    with contextlib.suppress(RuntimeError):  # a user's code has used TensorFlow already
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _digest(model: Any) -> str:
    digest = hashlib.sha256(str(model.to_json()).encode())
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _opened(job: OpenJob, served: _Served, *, sha256: str = "") -> Opened:
    inputs, outputs, call = served.inputs, served.outputs, served.call
    refuse_unknown(job, list(inputs))
    axes = {name: _axes(job, name, spec.shape) for name, spec in inputs.items()}
    shapes = {name: closed_shape(job, name, axes[name]) for name in inputs}
    fixed = {
        name: tf.TensorSpec([s if s >= 0 else None for s in shapes[name]], spec.dtype, name=name)
        for name, spec in inputs.items()
    }

    def serve(**feeds: Any) -> dict[str, Any]:
        return call(feeds)

    module: Any = tf.Module()
    module.serve = tf.function(serve)
    try:
        concrete = module.serve.get_concrete_function(**fixed)
    except Exception as error:
        raise SourceError(
            f"{job.path} does not take {fed(shapes)}: {first_line(error)}",
            expected="a model whose batch axis is open, or 1, and that takes such a sample",
            remedy="Give samples or a --shape of lengths that it takes, or save it again with a "
            "batch axis of None.",
        ) from error
    module.owner = _needed(concrete, served.owner)
    path = job.workdir / "source"
    tf.saved_model.save(module, str(path), signatures={_SIGNATURE: concrete})
    if stays_open(job):
        made = as_onnx(job, "savedmodel", path, list(inputs), outputs)
        _signatures[made.path] = concrete
        return msgspec.structs.replace(
            made,
            title=f"{served.title}, as {made.title}",
            sha256=sha256,
            notes=(*served.notes, *made.notes),
            reference=__name__,
        )
    results: Mapping[str, Any] = concrete.structured_outputs
    opened = Opened(
        kind="savedmodel",
        path=path,
        inputs=tuple(_tensor(n, s.shape, s.dtype, "input", job.path) for n, s in fixed.items()),
        outputs=tuple(
            _tensor(n, results[n].shape, results[n].dtype, "output", job.path) for n in outputs
        ),
        title=served.title,
        sha256=sha256,
        notes=(*served.notes, *filled(job, axes)),
    )
    _signatures[path] = concrete
    return opened


def _needed(concrete: Any, owner: Any) -> Any:
    """What a function needs of the model: its variables alone, where it uses nothing else (a table,
    an asset). The rest of a Keras model are some hundred functions: DS-CNN was written in 1.15 s
    and read again in 1.27 s of a core, without them in .29 and .13.
    """
    variables = list(concrete.variables)
    held = {id(each.handle) for each in variables}
    used = [each for each in concrete.captured_inputs if each.dtype == tf.resource]
    return variables if all(id(each) in held for each in used) else owner


def reference(job: ReferenceJob) -> int:
    """Run samples through the signature and write its outputs; returns how many samples."""
    path = job.source.path
    signature = _signatures.get(path)
    if signature is None:
        signature = _signatures[path] = tf.saved_model.load(str(path)).signatures[_SIGNATURE]
    names = [tensor.name for tensor in job.source.inputs]
    wanted = [tensor.name for tensor in job.source.outputs]
    with writers(job.outputs) as results:
        for sample in rows(job.inputs):
            feeds = {n: tf.constant(array) for n, array in zip(names, sample, strict=True)}
            found = signature(**feeds)
            for into, name in zip(results, wanted, strict=True):
                into.append(found[name].numpy())
    return results[0].count


class _Served(NamedTuple):
    """A model that can be called."""

    owner: Any
    """What holds its variables."""
    call: Callable[[Mapping[str, Any]], dict[str, Any]]
    inputs: dict[str, Any]
    """Name to ``TensorSpec``, perhaps with open axes."""
    outputs: list[str]
    title: str
    notes: tuple[str, ...] = ()


def _from_savedmodel(job: OpenJob) -> _Served:
    path = job.path
    if not any(each.stat().st_size for each in path.glob("saved_model.pb*")):
        raise damaged(path, "a SavedModel with its variables", "its saved_model.pb is empty")
    try:
        signatures = loaded = load_served(path, job.workdir / "served")
        if signatures is None:
            loaded = tf.saved_model.load(str(path))
            signatures = dict(loaded.signatures)
    except Exception as error:
        cause = first_line(error).replace(str(job.workdir / "served"), str(path))
        raise damaged(path, "a SavedModel with its variables", cause) from error
    signature = signatures.get(_SIGNATURE)
    if signature is None and len(signatures) == 1:
        signature = next(iter(signatures.values()))
    if signature is None:
        raise SourceError(
            f"{path} has the signatures {', '.join(sorted(signatures)) or 'none at all'}",
            expected=f"one called {_SIGNATURE}, or a single one",
            remedy="Save it with model.export(folder), or tf.saved_model.save(…, signatures=…).",
        )
    inputs: dict[str, Any] = dict(signature.structured_input_signature[1])
    outputs = list(signature.structured_outputs)

    def call(feeds: Mapping[str, Any]) -> dict[str, Any]:
        return dict(signature(**feeds))

    return _Served(loaded, call, inputs, outputs, "SavedModel")


def _from_keras(job: OpenJob) -> _Served:
    model, title, notes = _load_keras(job.path)
    return _from_model(model, str(job.path), title=title, notes=notes)


def _from_model(model: Any, what: str, *, title: str, notes: tuple[str, ...] = ()) -> _Served:
    given = getattr(model, "inputs", None)
    if not given:
        raise SourceError(
            f"The model of {what} was never built: its inputs are not known",
            expected="a model with inputs",
            remedy="Call it once on data, or give its first layer an Input, and save it again.",
        )
    input_names = _unique([str(tensor.name).partition(":")[0] for tensor in given])
    output_names = _unique([str(name) for name in model.output_names])
    inputs = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype)
        for name, tensor in zip(input_names, given, strict=True)
    }

    def call(feeds: Mapping[str, Any]) -> dict[str, Any]:
        values = [feeds[name] for name in input_names]
        results = model(values[0] if len(values) == 1 else values, training=False)
        flat = tf.nest.flatten(results)
        return dict(zip(output_names, flat, strict=True))

    return _Served(model, call, inputs, output_names, title, notes)


def _load_keras(path: Path) -> tuple[Any, str, tuple[str, ...]]:
    keras = framework("keras")

    try:
        return (
            keras.models.load_model(str(path), compile=False),
            f"Keras {keras.__version__} {path.suffix}",
            (),
        )
    except Exception as error:  # noqa: BLE001 - tf-keras may still read it
        refused = error
    if path.suffix.lower() == ".keras":
        raise _unreadable(path, refused)
    tf_keras = framework("tf_keras")

    try:
        with framework("tf_keras.src.saving.serialization_lib").SafeModeScope(safe_mode=True):
            model = tf_keras.models.load_model(str(path), compile=False)
    except Exception as error:  # noqa: BLE001
        raise _unreadable(path, error) from refused
    return (
        model,
        f"Keras 2 {path.suffix}",
        (f"Keras {keras.__version__} refuses this file of Keras 2; it was read with tf-keras.",),
    )


def _unreadable(path: Path, error: Exception) -> SourceError:
    text = str(error)
    unknown = re.search(
        r"(?:Unknown|Could not locate|could not locate)[^'\"]*['\"](\w+)['\"]", text
    )
    if "Lambda" in text and ("unsafe" in text.lower() or "arbitrary code" in text):
        return SourceError(
            f"{path} holds a Lambda layer, which is code",
            expected="a model of layers alone",
            remedy="Save it as a SavedModel folder (model.export) and give that.",
        )
    if unknown is not None:
        return SourceError(
            f"{path} needs the class {unknown.group(1)!r}, which is not in the file",
            expected="a model of Keras's own layers",
            remedy="Save it as a SavedModel folder (model.export) and give that.",
        )
    if "No model config" in text or "no model config" in text.lower():
        return SourceError(
            f"{path} holds weights without a model",
            expected="a whole model, as model.save writes it",
            remedy="Build the model, load the weights, and model.save('….keras').",
        )
    return damaged(path, "a Keras model, as model.save writes it", first_line(error))


def _unique(names: list[str]) -> list[str]:
    """Names that can be keyword arguments of a signature, each one once."""
    plain = [re.sub(r"\W", "_", name) for name in names]
    return [
        name if plain.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(plain)
    ]


def _axes(job: OpenJob, name: str, shape: Any) -> list[int | None]:
    if getattr(shape, "rank", 0) is None:
        raise SourceError(
            f"Input {name!r} of {job.path} has no known number of axes",
            expected="a shape, with a batch axis in front",
            remedy="Save the model with an input signature.",
        )
    return list(shape)


def _tensor(name: str, shape: Any, dtype: Any, side: str, path: Path) -> Tensor:
    sizes = None if getattr(shape, "rank", 0) is None else list(shape)
    return fixed_tensor(name, sizes, tf.as_dtype(dtype).name, side=side, path=path)
