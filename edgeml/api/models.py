"""Models that live in the caller's process, written to files that the exporter reads.

Only the framework that the model is made of is imported: it is there already.
"""

from __future__ import annotations

import importlib
import inspect
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np

from edgeml.api.samples import Array, Written, array
from edgeml.decoding import from_json
from edgeml.errors import SourceError

_BASES = {
    "torch.nn.modules.module.Module": "torch",
    "torch.export.exported_program.ExportedProgram": "program",
    "keras.src.models.model.Model": "keras",
    "tf_keras.src.engine.training.Model": "tf_keras",
    "sklearn.base.BaseEstimator": "pickle",
    "xgboost.core.Booster": "pickle",
    "lightgbm.basic.Booster": "pickle",
}
"""Classes of which a model is one, by their names."""


class WrittenModel(NamedTuple):
    """A model in a file."""

    path: Path
    trusted: bool = False
    """Whether it is a pickle that we have just written ourselves."""
    note: str = ""
    """What the user should know."""


Unread = Callable[[Path, str], str]
"""Why the converters' torch does not read a ``.pt2`` that this version of torch wrote; empty: it
does."""


class Given(NamedTuple):
    """What else the caller gave that a module is traced with."""

    examples: Any = None
    """Inputs, a batch: a tensor, a tuple or a mapping of them. None: taken from the samples."""
    samples: Written | None = None
    shapes: Mapping[str, Sequence[int]] = {}
    """Of inputs; −1 is an axis that is to stay open."""


def write(model: Any, folder: Path, given: Given, *, unread: Unread) -> WrittenModel:
    """Write a live model to a file in ``folder``.

    Args:
        model: an ``nn.Module``, an ``ExportedProgram``, a Keras model, or an estimator of
            scikit-learn, XGBoost or LightGBM.
        folder: empty.
        given: for a module.
        unread: asked about a module's ``.pt2``; where it is not read the module goes as ONNX.

    Raises:
        SourceError: it is no model, or cannot be exported.
    """
    kind = kind_of(model)
    name = re.sub(r"[^A-Za-z0-9]+", "-", type(model).__name__).strip("-").lower() or "model"
    if kind == "torch":
        return _torch(model, folder / f"{name}.pt2", given, unread)
    if kind == "program":
        path = folder / "program.pt2"
        importlib.import_module("torch").export.save(model, str(path))
    elif kind == "keras":
        path = _keras(model, folder / f"{getattr(model, 'name', '') or name}.keras")
    elif kind == "tf_keras":
        path = folder / f"{getattr(model, 'name', '') or name}.h5"
        model.save(str(path), save_format="h5")
    elif kind == "pickle":
        path = folder / f"{name}.joblib"
        importlib.import_module("joblib").dump(model, path)
        return WrittenModel(path, trusted=True)
    else:
        raise SourceError(
            f"The model is of type {type(model).__name__}",
            expected="a path, an nn.Module, an ExportedProgram, a Keras model, or an estimator of "
            "scikit-learn, XGBoost or LightGBM",
        )
    return WrittenModel(path)


def kind_of(value: object) -> str:
    """Which of these an object is; empty where it is none."""
    for base in type(value).__mro__:
        kind = _BASES.get(f"{base.__module__}.{base.__qualname__}")
        if kind is not None:
            return kind
    return ""


def _keras(model: Any, path: Path) -> Path:
    """A Keras 3 model as an archive, whose bytes are always the same; one with layers of the user's
    own, whose code no archive holds, as a SavedModel."""
    model.save(str(path))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = from_json(members["config.json"])
    if _own_code(config):
        path.unlink()
        folder = path.with_suffix("")
        try:
            model.export(str(folder), verbose=False)
        except Exception as error:
            raise SourceError(
                f"The Keras model {path.stem!r} has layers of its own code, and Keras cannot write "
                f"it as a SavedModel: {str(error).strip().splitlines()[0][:300]}",
                expected="a model that was built, or one of Keras's own layers alone",
                remedy="Call it once on data; or write a function that returns it, and give "
                "FILE.py:FUNCTION.",
            ) from error
        return folder
    # It says when it was written, and where in memory objects lay that layers share.
    metadata = from_json(members["metadata.json"], dict[str, Any])
    metadata["date_saved"] = "1980-01-01@00:00:00"
    members["metadata.json"] = msgspec.json.encode(metadata)
    _number(config, {})
    members["config.json"] = msgspec.json.encode(config)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return path


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """The objects of a Keras configuration, however deep."""
    if isinstance(config, dict):
        own = cast("dict[str, Any]", config)
        yield own
        config = list(own.values())
    if isinstance(config, list):
        for each in cast("list[Any]", config):
            yield from _objects(each)


def _own_code(config: Any) -> bool:
    """Whether a configuration names a class that is not Keras's, or holds code."""
    return any(
        each["class_name"] == "__lambda__"
        or ("module" in each and not str(each["module"]).startswith("keras"))
        for each in _objects(config)
        if "class_name" in each
    )


def _number(config: Any, numbers: dict[int, int]) -> None:
    for each in _objects(config):
        if "shared_object_id" in each:
            found: int = each["shared_object_id"]
            each["shared_object_id"] = numbers.setdefault(found, len(numbers))


def _torch(module: Any, path: Path, given: Given, unread: Unread) -> WrittenModel:
    """Trace a copy of the module, on the CPU, in float32 and in evaluation mode."""
    torch: Any = importlib.import_module("torch")
    copied: Any = importlib.import_module("copy").deepcopy(module).eval().to("cpu").float()
    names = _parameters(module)
    attempts = _feeds(names, given.examples, given.samples)
    failure: Exception | None = None
    exporter: Any = getattr(torch, "export", None)
    able = hasattr(exporter, "save")  # it came with torch 2.1
    options: dict[str, Any] = {}
    if able and "strict" in _named_by(exporter.export):
        options["strict"] = False
    for named in attempts:
        feeds = {name: _tensor(torch, value) for name, value in named.items()}
        leading = [name for name in names if name in feeds]
        args = tuple(feeds[name] for name in leading)
        if any(-1 in shape for shape in given.shapes.values()):
            shapes = [given.shapes.get(name, ()) for name in leading]
            options["dynamic_shapes"] = tuple(_open_dims(exporter, shape) for shape in shapes)
        try:
            with torch.no_grad():
                made = copied(*args)
                program = exporter.export(copied, args, **options) if able else None
        except Exception as error:  # noqa: BLE001 - told below, as the user's own
            failure = failure or error
            continue
        why = "this one has no torch.export"
        if able:
            exporter.save(program, str(path))
            why = unread(path, torch.__version__)
        return _as_onnx(copied, args, made, path, why) if why else WrittenModel(path)
    shown = ", ".join(f"{name} {list(value.shape)}" for name, value in attempts[0].items())
    raise SourceError(
        f"torch.export cannot trace {type(module).__name__} on {shown}: "
        f"{type(failure).__name__}: {str(failure).strip().splitlines()[0][:300]}",
        expected="a module that takes a batch of one such sample, and whose course does not hang "
        "on the values in a tensor",
        remedy="Give examples= with inputs that it takes, the batch axis included.",
    ) from failure


def _as_onnx(module: Any, args: Any, made: Any, program: Path, why: str) -> WrittenModel:
    """The module in a form that every version reads, where its program is not."""
    script: Any = importlib.import_module("edgeml.exporter.sources.users_python.torch_model")
    path = program.with_suffix(".onnx")
    outputs = [name for name, _ in script.flat_outputs(made)]
    try:
        script.write_onnx(module, args, {}, outputs, str(path))
    except script.Wrong as error:
        found, expected, remedy = error.args
        raise SourceError(found, expected=expected, remedy=remedy) from error
    except Exception as error:
        raise SourceError(
            f"The torch here and the converters' do not read each other's files ({why}), and "
            f"torch.onnx cannot export {type(module).__name__}: {str(error).strip()[:300]}",
            expected="a module that goes over as a program or as ONNX",
            remedy="Use the converters' version of torch (`edgeml toolchain list` says where they "
            "are), or write the ONNX file yourself and give that.",
        ) from error
    program.unlink(missing_ok=True)
    note = (
        f"The torch here and the converters' do not read each other's files ({why}): the model "
        "went over as ONNX."
    )
    return WrittenModel(path, note=note)


def _open_dims(exporter: Any, shape: Sequence[int]) -> dict[int, Any]:
    """The axes of a shape that stay open, for ``torch.export`` of any version."""
    dynamic = getattr(exporter.Dim, "DYNAMIC", None)
    axes = [axis for axis, size in enumerate(shape) if size < 0]
    return {axis: dynamic or exporter.Dim(f"length_{axis}") for axis in axes}


def _named_by(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _parameters(module: Any) -> dict[str, bool]:
    """Names of forward's parameters, and whether each must be given."""
    kinds = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    found = inspect.signature(module.forward).parameters
    empty = inspect.Parameter.empty
    return {name: each.default is empty for name, each in found.items() if each.kind not in kinds}


def _feeds(
    names: Mapping[str, bool], examples: Any, samples: Written | None
) -> list[dict[str, Any]]:
    """Inputs with a batch of one, the likeliest reading first."""
    if examples is not None:
        return [_named(names, examples, _batch)]
    if samples is None:
        raise SourceError(
            "The shapes of the module's inputs are not known",
            expected="samples in memory that show them, or examples=",
            remedy="Give examples= with a batch of inputs as the module takes them.",
        )
    batch = _named(names, samples.first, _batch)
    if samples.batched:
        return [batch]
    # An item may be a sample, or a batch without saying so.
    return [_named(names, samples.first, _sample), batch]


def _named(names: Mapping[str, bool], item: Any, cut: Callable[[Array], Array]) -> dict[str, Any]:
    if isinstance(item, Mapping):
        named = cast("Mapping[str, Any]", item)
        unknown = [name for name in named if name not in (*names, "labels")]
        if unknown:
            raise SourceError(
                f"The samples have {', '.join(map(repr, unknown))}",
                expected=f"names of forward's parameters: {', '.join(names)}",
            )
        return {n: cut(array(v, f"{n!r}")) for n, v in named.items() if n in names}
    values = cast("Sequence[Any]", item) if isinstance(item, tuple | list) else (item,)
    # One array more than forward needs is the labels.
    needed = [name for name, must in names.items() if must]
    return {n: cut(array(v, f"{n!r}")) for n, v in zip(needed or names, values, strict=False)}


def _batch(value: Array) -> Array:
    return value[:1]


def _sample(value: Array) -> Array:
    return value[np.newaxis]


def _tensor(torch: Any, value: Any) -> Any:
    made = torch.from_numpy(value.copy())
    return made.float() if made.is_floating_point() else made
