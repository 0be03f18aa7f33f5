"""skl2onnx and onnxmltools, called as each estimator asks for, and around what they trip over."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Iterator
from typing import Any

from edgeml.exporter.sources.boosters import LightGbmModel
from edgeml.exporter.sources.classical_edits import INPUT
from edgeml.targets.frameworks import framework

_OPSETS = {"": 18, "ai.onnx.ml": 3}

# A tree's thresholds lie at the values that it was trained on: a scaler in front that rounds
# otherwise than scikit-learn's sends samples down another branch.
_TREES = ("sklearn.tree", "sklearn.ensemble", "xgboost", "lightgbm")


def to_onnx(estimator: Any, columns: list[str], width: int) -> Any:
    """Convert a fitted estimator or pipeline.

    Args:
        estimator: of scikit-learn, XGBoost or LightGBM.
        columns: the names of its columns where it picks them by name, else none.
        width: how many columns there are.

    Raises:
        Exception: whatever the converters raise.
    """
    with warnings.catch_warnings(), _whole_numbers(), _nameless(estimator):
        warnings.simplefilter("ignore")
        if isinstance(estimator, LightGbmModel):
            return _from_lightgbm(estimator, width)
        return _from_sklearn(estimator, columns, width)


def _from_sklearn(estimator: Any, columns: list[str], width: int) -> Any:
    skl2onnx = framework("skl2onnx")
    types = framework("skl2onnx.common.data_types")
    _register_boosters()

    if columns:
        given = [(name, types.FloatTensorType([1, 1])) for name in columns]
    else:
        given = [(INPUT, types.FloatTensorType([1, width]))]
    options: dict[int, dict[str, Any]] = {}
    if any(type(part).__module__.startswith(_TREES) for part in parts(estimator)):
        scalers = (part for part in parts(estimator) if type(part).__name__ == "StandardScaler")
        options = {id(part): {"div": "div"} for part in scalers}
    keywords: dict[str, Any] = {"initial_types": given, "target_opset": _OPSETS}
    if hasattr(estimator, "classes_"):
        flat = {**options, id(estimator): {"zipmap": False}}
        with contextlib.suppress(NameError):  # this one has no dictionaries to switch off
            return skl2onnx.to_onnx(estimator, options=flat, **keywords)
    return skl2onnx.to_onnx(estimator, options=options or None, **keywords)


def _from_lightgbm(estimator: LightGbmModel, width: int) -> Any:
    onnxmltools = framework("onnxmltools")
    types = framework("onnxmltools.convert.common.data_types")

    return onnxmltools.convert_lightgbm(
        estimator.booster,
        initial_types=[(INPUT, types.FloatTensorType([1, width]))],
        zipmap=False,
        target_opset=15,
    )


def _register_boosters() -> None:
    """Tells skl2onnx of the estimators that onnxmltools converts, wherever in a pipeline."""
    skl2onnx = framework("skl2onnx")
    shapes = framework("skl2onnx.common.shape_calculator")
    classify = shapes.calculate_linear_classifier_output_shapes
    regress = shapes.calculate_linear_regressor_output_shapes
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    for library, alias, part in (
        ("xgboost", "XGBoostXGB", "onnxmltools.convert.xgboost.operator_converters.XGBoost"),
        ("lightgbm", "LightGbmLGBM", "onnxmltools.convert.lightgbm.operator_converters.LightGbm"),
    ):
        module, parts = framework(library), framework(part)
        made = getattr(parts, f"convert_{library}")
        prefix = alias[-3:] if library == "xgboost" else "LGBM"
        skl2onnx.update_registered_converter(
            getattr(module, f"{prefix}Classifier"),
            f"{alias}Classifier",
            classify,
            made,
            options=options,
        )
        skl2onnx.update_registered_converter(
            getattr(module, f"{prefix}Regressor"),
            f"{alias}Regressor",
            regress,
            made,
            options={"split": None} if library == "lightgbm" else None,
        )


@contextlib.contextmanager
def _whole_numbers() -> Generator[None, None, None]:
    """skl2onnx 1.20 hands the booleans of histogram trees to onnx, which takes integers only."""
    trees = framework("skl2onnx.common.tree_ensemble")
    original = trees.add_node
    missing = "nodes_missing_value_tracks_true"

    def add_node(*args: Any, **keywords: Any) -> None:
        if missing in keywords:
            keywords[missing] = int(keywords[missing])
        original(*args, **keywords)

    trees.add_node = add_node
    try:
        yield
    finally:
        trees.add_node = original


@contextlib.contextmanager
def _nameless(estimator: Any) -> Generator[None, None, None]:
    """onnxmltools reads the columns of XGBoost's trees off names such as f0 alone."""
    taken: list[tuple[Any, Any]] = []
    for part in parts(estimator):
        if hasattr(part, "get_booster"):
            booster = part.get_booster()
            taken.append((booster, booster.feature_names))
            booster.feature_names = None
    try:
        yield
    finally:
        for booster, names in taken:
            booster.feature_names = names


def parts(estimator: Any) -> Iterator[Any]:
    """An estimator and what it is made of, wherever scikit-learn nests it."""
    yield estimator
    for _, step in getattr(estimator, "steps", ()):
        yield from parts(step)
    for _, step, _ in getattr(estimator, "transformers_", ()):
        yield from parts(step)
    for _, step in getattr(estimator, "transformer_list", ()):
        yield from parts(step)
    ensemble = getattr(estimator, "estimators_", ())
    if hasattr(estimator, "final_estimator_") or hasattr(estimator, "voting"):
        for step in ensemble:
            yield from parts(step)
    if hasattr(estimator, "final_estimator_"):
        yield from parts(estimator.final_estimator_)
