"""From an estimator to an ONNX graph, and what each of the graph's outputs is to the estimator.

skl2onnx converts, with onnxmltools' parts for XGBoost and LightGBM
(:mod:`edgeml.exporter.sources.classical_convert`). What they leave to the caller is done here:
columns that a pipeline takes by name come in one input, classes that are text become numbers, and
the scores of a classifier without probabilities have a column a class.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tensor
from edgeml.errors import SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources import booster_edits, classical_convert, classical_edits
from edgeml.exporter.sources.boosters import LightGbmModel
from edgeml.exporter.sources.classical_edits import INPUT
from edgeml.targets.frameworks import framework

Array = NDArray[Any]
Answer = Literal["predict", "predict_proba", "decision_function", "transform"]

_PROBES = 16


class Graph(NamedTuple):
    """A converted estimator."""

    model: Any
    outputs: tuple[Tensor, ...]
    methods: tuple[Answer, ...]
    """The estimator's own method for each output."""
    notes: tuple[str, ...]


def convert(estimator: Any, *, width: int, names: Sequence[str], call: str) -> Graph:
    """Convert a fitted estimator or pipeline.

    Args:
        estimator: what answers are checked against.
        width: columns of its input.
        names: of them; may be empty.
        call: where it came from, for errors.

    Raises:
        SourceError: it takes text, answers for several targets at once, or has a step without a
            conversion.
    """
    _refuse_text(estimator, call)
    boosters = [
        part for part in classical_convert.parts(estimator) if booster_edits.is_booster(part)
    ]
    for booster in boosters:
        booster_edits.refuse_unknown(booster, call)
    by_name = _takes_names(estimator)
    try:
        model = classical_convert.to_onnx(estimator, list(names) if by_name else [], width)
    except SourceError:
        raise
    except Exception as error:
        raise _no_conversion(estimator, call, error) from error
    if len(boosters) == 1:
        booster_edits.mend(boosters[0], model)
    graph = finish(estimator, model, width=width, by_name=by_name, call=call)
    if booster_edits.is_booster(estimator):
        _refuse_other_answers(estimator, graph, width, call)
    return graph


def answers(estimator: Any, graph: Graph, rows: Array) -> list[Array]:
    """What an estimator itself makes of rows [n, features], an array an output of its graph."""
    fed = _framed(estimator, rows)
    found: list[Array] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method, tensor in zip(graph.methods, graph.outputs, strict=True):
            value = np.asarray(getattr(estimator, method)(fed))
            if method == "predict" and tensor.name == "label":
                value = _class_numbers(estimator, value)
            elif method == "decision_function" and value.ndim == 1 and tensor.shape[1] == 2:
                value = np.stack([-value, value], axis=1)
            found.append(value.reshape(len(rows), *tensor.shape[1:]).astype(tensor.dtype))
    return found


def _refuse_other_answers(estimator: Any, graph: Graph, width: int, call: str) -> None:
    """Refuse what onnxmltools makes of a booster where it answers otherwise than the booster."""
    rows = _probes(width)
    whole = booster_edits.categories(estimator)
    rows[:, whole] = np.abs(rows[:, whole]).round()
    try:
        expected = answers(estimator, graph, rows)
    except Exception as error:
        raise SourceError(
            f"{call}: it takes no rows of plain numbers, as devices give them",
            expected="a model that was trained on numbers",
            remedy="Number the categories before (pandas: .cat.codes), and train it on the array "
            "of all columns (to_numpy), with 'c' in feature_types for those.",
        ) from error
    found = [_run(graph.model, row[None]) for row in rows]
    for at, (tensor, truth) in enumerate(zip(graph.outputs, expected, strict=True)):
        made = np.concatenate([each[at] for each in found])
        if truth.dtype.kind == "f" and not np.allclose(made, truth, rtol=1e-3, atol=1e-3):
            worst = np.unravel_index(np.abs(made - truth).argmax(), truth.shape)
            raise SourceError(
                f"{call}: what onnxmltools makes of it computes something else: {tensor.name} is "
                f"{made[worst]:.4g} where the model itself says {truth[worst]:.4g}",
                expected="a model whose ONNX answers as it does itself",
                remedy="Train it with a plain objective; the root of reg_sqrt can be taken of "
                "the targets before.",
            )


def finish(estimator: Any, model: Any, *, width: int, by_name: bool, call: str) -> Graph:
    """What converters leave to the caller.

    Args:
        estimator: what was converted.
        model: what a converter made of it.
        width: columns of its input.
        by_name: whether the model has an input a column.
        call: where it came from, for errors.

    Raises:
        SourceError: it answers for several targets at once.
    """
    if by_name:
        classical_edits.gather_columns(model, width)
    classes: Any = getattr(estimator, "classes_", None)
    methods = _methods(estimator, len(model.graph.output))
    if classes is not None:
        if isinstance(classes, list) or np.asarray(classes).ndim != 1:
            raise SourceError(
                f"{call}: the {type(estimator).__name__} decides several things at once",
                expected="one target column",
                remedy="Export a model for each of them.",
            )
        if np.asarray(classes).dtype.kind in "OUS":
            classical_edits.number_classes(model, [str(each) for each in classes])
    del model.graph.output[len(methods) :]
    if methods[-1] == "decision_function" and classes is not None and len(classes) == 2:
        methods = _two_scores(estimator, model, width, methods)
    titles = _titles(estimator, methods)
    names = (each.name for each in model.graph.output)
    classical_edits.rename(model, dict(zip(names, titles, strict=True)))
    found = _run(model, _probes(width)[:1])
    tensors: list[Tensor] = []
    named = () if classes is None else tuple(str(each) for each in classes)
    for value, title, array in zip(model.graph.output, titles, found, strict=True):
        scores = title in {"probabilities", "scores"} and classes is not None
        tensors.append(
            Tensor(
                name=title,
                shape=(1, *array.shape[1:]),
                dtype=str(array.dtype),
                meaning="scores" if scores and array.shape[1] > 1 else "tensor",
                feature_names=named if scores else (),
            )
        )
        dims = value.type.tensor_type.shape
        del dims.dim[:]
        for size in tensors[-1].shape:
            dims.dim.add().dim_value = size
    del model.graph.value_info[:]
    notes: tuple[str, ...] = ()
    if classes is not None and np.asarray(classes).dtype.kind in "OUS":
        shown = ", ".join(f"{index} {each}" for index, each in enumerate(list(classes)[:8]))
        more = ", …" if len(classes) > 8 else ""
        notes = (f"The classes are text; label is the number of one: {shown}{more}.",)
    return Graph(model, tuple(tensors), tuple(methods), notes)


def _methods(estimator: Any, outputs: int) -> tuple[Answer, ...]:
    if hasattr(estimator, "predict"):
        scores: Answer | None = None
        if hasattr(estimator, "predict_proba"):
            scores = "predict_proba"
        elif hasattr(estimator, "decision_function"):
            scores = "decision_function"
        elif hasattr(estimator, "transform"):
            scores = "transform"
        return ("predict", scores) if scores and outputs > 1 else ("predict",)
    return ("transform",)


def _titles(estimator: Any, methods: Sequence[Answer]) -> list[str]:
    if methods[0] == "transform":
        return ["transformed"]
    second = "probabilities" if methods[-1] == "predict_proba" else "scores"
    if len(methods) == 2:
        return ["label", second]
    labelled = hasattr(estimator, "classes_") or hasattr(estimator, "labels_")
    return ["label" if labelled else "prediction"]


def _takes_names(estimator: Any) -> bool:
    """Whether a part of it picks its columns by name."""
    for part in classical_convert.parts(estimator):
        for _, _, columns in getattr(part, "transformers_", ()):
            chosen: Array = np.asarray(columns).ravel()
            if chosen.dtype.kind in "OU" and all(map(_text, chosen)):
                return chosen.size > 0
    return False


def _refuse_text(estimator: Any, call: str) -> None:
    for part in classical_convert.parts(estimator):
        lists: Any = getattr(part, "categories_", ())
        text = [each for known in lists for each in map(_text, known) if each]
        text += list(map(str, getattr(part, "vocabulary_", ())))
        if text:
            shown = ", ".join(repr(value) for value in text[:3])
            raise SourceError(
                f"{call}: its step {type(part).__name__} takes text ({shown}, …)",
                expected="columns of numbers: no runtime of a device takes text",
                remedy="Number the categories before the pipeline (pandas: "
                ".astype('category').cat.codes), and fit it on those numbers.",
            )


def _text(value: object) -> str:
    return str(value) if isinstance(value, str) else ""


def _no_conversion(estimator: Any, call: str, error: Exception) -> SourceError:
    text = " ".join(str(error).split())
    unknown = re.search(r"(?:type|for) '?<class '([\w.]+)'>", text)
    what = unknown.group(1).rpartition(".")[2] if unknown else _title(estimator)
    remedy = "Use a model or an objective that is converted: see skl2onnx.supported_converters()."
    if hasattr(estimator, "steps"):
        remedy = (
            "Take that step out of the pipeline and do it before the samples are given, or use "
            "one that is converted: see skl2onnx.supported_converters()."
        )
    why = "" if unknown else f": {first_line(error)}"
    return SourceError(
        f"{call}: {what} has no conversion to ONNX{why}",
        expected="steps and models that skl2onnx and onnxmltools convert",
        remedy=remedy,
    )


def _title(estimator: Any) -> str:
    name = type(estimator).__name__
    return "LightGBM's Booster" if isinstance(estimator, LightGbmModel) else name


def _two_scores(
    estimator: Any, model: Any, width: int, methods: tuple[Answer, ...]
) -> tuple[Answer, ...]:
    """A column a class for a decision between two, of which converters give either side first.

    Where neither is the estimator's own, the label stands alone.
    """
    rows = _probes(width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = np.asarray(estimator.decision_function(_framed(estimator, rows)))
    first = np.array([_run(model, row[None])[1].ravel()[0] for row in rows])
    scale = float(np.abs(truth).max()) or 1.0
    for sign in (1, -1):
        if np.abs(sign * first - truth).max() < 1e-3 * scale:
            break
    else:
        del model.graph.output[1:]
        return methods[:1]
    classical_edits.give_both_sides(model, second_first=sign == 1)
    return methods


def _class_numbers(estimator: Any, labels: Array) -> Array:
    classes: Array = np.asarray(getattr(estimator, "classes_", ()))
    if classes.dtype.kind not in "OUS":
        return labels
    order = {str(each): index for index, each in enumerate(classes)}
    return np.array([order[str(label)] for label in labels.ravel()]).reshape(labels.shape)


def _framed(estimator: Any, rows: Array) -> Any:
    """Rows as it was fitted on them: with names, if it knows any."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or isinstance(estimator, LightGbmModel):
        return rows
    try:
        pandas = framework("pandas")
    except ImportError:
        return rows
    return pandas.DataFrame(rows, columns=[str(name) for name in names])


def _probes(width: int) -> Array:
    return np.random.default_rng(0).normal(0, 1, (_PROBES, width)).astype("float32")


def _run(model: Any, rows: Array) -> list[Array]:
    runtime = framework("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(array) for array in session.run(None, {INPUT: rows})]
