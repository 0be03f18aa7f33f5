"""scikit-learn, XGBoost and LightGBM, normalised to an ONNX graph with operators of ``ai.onnx.ml``.

One input ``X``, float32 [1, features]. A classifier gives ``label`` (its class, or the number of
its class where classes are text) and ``probabilities`` (``scores`` where it has only a decision
function), whose columns are named after the classes; a regressor gives ``prediction``, an outlier
detector and a clusterer ``label`` and ``scores``, a transformer ``transformed``.

The reference is the estimator itself, so that the check of an artifact proves the conversion, too.
Runs in a child process.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tensor
from edgeml.columns import load, writers
from edgeml.errors import SourceError, ToolchainError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources import classical_graph, ubjson
from edgeml.exporter.sources.boosters import LightGbmModel, from_xgboost_booster
from edgeml.exporter.sources.forms import Opened, OpenJob, ReferenceJob, damaged
from edgeml.exporter.sources.shapes import refuse_open, refuse_unknown
from edgeml.targets.frameworks import framework

Array = NDArray[Any]

_ROWS_AT_ONCE = 1024
_TITLES = {"sklearn": "scikit-learn", "xgboost": "XGBoost", "lightgbm": "LightGBM"}

_models: dict[Path, tuple[Any, classical_graph.Graph]] = {}
"""Of this process: the reference is the estimator, which no file holds that may be opened."""


def open_source(job: OpenJob) -> Opened:
    """Read XGBoost's or LightGBM's own file.

    Raises:
        SourceError: the file is damaged, or holds what cannot be converted.
    """
    if job.form == "xgboost":
        booster = framework("xgboost").Booster()
        try:
            if job.path.suffix.lower() == ".ubj":
                ubjson.check(job.path.read_bytes())
            booster.load_model(str(job.path))
        except Exception as error:
            title = "an XGBoost model, as save_model writes it"
            raise damaged(job.path, title, first_line(error)) from error
        return open_made(job, booster, job.path.name)
    title = "a LightGBM model, as save_model writes it"
    # LightGBM ends the process where trees are missing.
    if b"end of trees" not in job.path.read_bytes():
        raise damaged(job.path, title, "its last tree is missing")
    try:
        booster = framework("lightgbm").Booster(model_file=str(job.path))
    except Exception as error:
        raise damaged(job.path, title, first_line(error)) from error
    return open_made(job, booster, job.path.name)


def open_made(job: OpenJob, model: Any, call: str) -> Opened:
    """Convert an estimator that is there already.

    Args:
        job: with the form and the folder for the graph.
        model: the estimator, pipeline or booster.
        call: where it came from, for errors.

    Raises:
        SourceError: it is not fitted, takes text, or has a step without a conversion.
    """
    estimator = _estimator(model)
    refuse_unknown(job, ["X"])
    refuse_open(job)
    names = feature_names(estimator)
    width = _width(estimator, call)
    graph = classical_graph.convert(estimator, width=width, names=names, call=call)
    opened = _opened(job, graph, names, width)
    _models[opened.path] = estimator, graph
    library = type(model).__module__.partition(".")[0]
    library = library if library in _TITLES else "sklearn"
    version = getattr(framework(library), "__version__", "")
    title = f"{_TITLES[library]} {version} {type(model).__name__}"
    own_file = job.form in {"xgboost", "lightgbm"}
    sha256 = "" if own_file else opened.sha256
    return msgspec.structs.replace(opened, title=title, sha256=sha256)


def open_converted(
    job: OpenJob, estimator: Any, file: Path, *, by_name: bool
) -> tuple[Opened, classical_graph.Graph]:
    """Likewise with an estimator that was converted elsewhere.

    Args:
        job: with the folder for the graph.
        estimator: answers as the one that was converted does.
        file: what skl2onnx made of it.
        by_name: whether it has an input a column.
    """
    names = feature_names(estimator)
    width = _width(estimator, job.attribute)
    model = framework("onnx").load(str(file))
    graph = classical_graph.finish(
        estimator, model, width=width, by_name=by_name, call=f"{job.path.name}:{job.attribute}"
    )
    return _opened(job, graph, names, width), graph


def _opened(
    job: OpenJob, graph: classical_graph.Graph, names: tuple[str, ...], width: int
) -> Opened:
    path = job.workdir / "source.onnx"
    content: bytes = graph.model.SerializeToString()
    path.write_bytes(content)
    return Opened(
        kind="classical",
        path=path,
        inputs=(Tensor(name="X", shape=(1, width), dtype="float32", feature_names=names),),
        outputs=graph.outputs,
        title="scikit-learn",
        sha256=hashlib.sha256(content).hexdigest(),
        notes=graph.notes,
    )


def reference(job: ReferenceJob) -> int:
    """Run samples through the estimator itself; returns how many samples."""
    found = _models.get(job.source.path)
    if found is None:
        raise ToolchainError(
            "The process that held the estimator is gone", remedy="Export it once more."
        )
    return write_answers(job, *found)


def write_answers(job: ReferenceJob, estimator: Any, graph: classical_graph.Graph) -> int:
    """Write what an estimator makes of samples, some at a time; returns how many."""
    column = load(job.inputs[0])
    with writers(job.outputs) as results:
        for start in range(0, len(column), _ROWS_AT_ONCE):
            rows = np.array(column[start : start + _ROWS_AT_ONCE])
            answers = classical_graph.answers(estimator, graph, rows)
            for into, answer in zip(results, answers, strict=True):
                into.append(answer)
    return results[0].count


def feature_names(estimator: Any) -> tuple[str, ...]:
    """Names of the columns that it was fitted on; empty where it saw none."""
    try:
        names = estimator.feature_names_in_
    except AttributeError:
        return ()
    return tuple(str(name) for name in names)


def _estimator(model: Any) -> Any:
    while hasattr(model, "best_estimator_"):  # what a search found
        model = model.best_estimator_
    package = type(model).__module__.partition(".")[0]
    if type(model).__name__ == "Booster":
        return LightGbmModel.of(model) if package == "lightgbm" else from_xgboost_booster(model)
    return model


def _width(estimator: Any, call: str) -> int:
    try:
        return int(cast("int", estimator.n_features_in_))
    except AttributeError as error:
        raise SourceError(
            f"{call}: the {type(estimator).__name__} is not fitted",
            expected="a model that has been trained",
            remedy="Call fit before it is returned or saved.",
        ) from error
