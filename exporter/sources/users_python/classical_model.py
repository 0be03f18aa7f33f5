"""An estimator of scikit-learn and its like: handed over as ONNX, and run where it is."""

# pyright: basic
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

from . import Wrong


class ClassicalModel:
    """An estimator or a pipeline."""

    def __init__(self, model) -> None:
        self.model = model

    def open(self, order):
        numpy = importlib.import_module("numpy")

        model = self.model
        while hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        self.model = model
        if not hasattr(model, "n_features_in_"):
            raise Wrong(
                f"{order['call']}: the {type(model).__name__} is not fitted",
                "a model that has been trained",
                "Call fit before it is returned.",
            )
        if importlib.util.find_spec("skl2onnx") is None:
            raise Wrong(
                f"{sys.executable} has no skl2onnx to convert a {type(model).__name__} with",
                "the package skl2onnx beside scikit-learn",
                f"{sys.executable} -m pip install skl2onnx",
            )
        skl2onnx = importlib.import_module("skl2onnx")

        register_boosters(model)
        types_of = importlib.import_module("skl2onnx.common.data_types")

        width = int(model.n_features_in_)
        names = [str(name) for name in getattr(model, "feature_names_in_", ())]
        types = [("X", types_of.FloatTensorType([1, width]))]
        if order["by_name"]:
            types = [(name, types_of.FloatTensorType([1, 1])) for name in names]
        options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
        try:
            made = skl2onnx.to_onnx(model, initial_types=types, options=options)
        except NameError:
            made = skl2onnx.to_onnx(model, initial_types=types)
        except RuntimeError as error:
            if order["by_name"] or "column name" not in str(error):
                raise
            return self.open(dict(order, by_name=True))
        path = os.path.join(order["folder"], "foreign.onnx")  # noqa: PTH118
        with open(path, "wb") as stream:  # noqa: PTH123
            stream.write(made.SerializeToString())
        classes = getattr(model, "classes_", None)
        if isinstance(classes, list):
            raise Wrong(
                f"{order['call']} decides several things at once",
                "one target column",
                "Export a model for each of them.",
            )
        methods = ["predict", "predict_proba", "decision_function", "transform", "labels_"]
        return {
            "kind": "classical",
            "version": importlib.import_module("sklearn").__version__,
            "path": path,
            "width": width,
            "names": names,
            "by_name": bool(order["by_name"]),
            "classes": None if classes is None else numpy.asarray(classes).tolist(),
            "methods": [name for name in methods if hasattr(model, name)],
            "title": type(model).__name__,
            "notes": [],
        }

    def answer(self, method, rows):
        numpy = importlib.import_module("numpy")

        names = getattr(self.model, "feature_names_in_", None)
        fed = rows
        if names is not None and importlib.util.find_spec("pandas"):
            fed = importlib.import_module("pandas").DataFrame(rows, columns=list(names))
        found = numpy.asarray(getattr(self.model, method)(fed))
        return found.astype(str) if found.dtype.kind == "O" else found


def register_boosters(model):
    """Tell skl2onnx of XGBoost's and LightGBM's estimators, where onnxmltools is there."""
    steps = [step for _, step in getattr(model, "steps", ())]
    roots = {type(each).__module__.split(".")[0] for each in [model, *steps]}
    rows = {
        "xgboost": ("XGB", "XGBoostXGB", "XGBoost"),
        "lightgbm": ("LGBM", "LightGbmLGBM", "LightGbm"),
    }
    for library in roots & set(rows):
        if importlib.util.find_spec("onnxmltools") is None:
            raise Wrong(
                f"{sys.executable} has no onnxmltools to convert a model of {library} with",
                "the packages skl2onnx and onnxmltools there",
                f"{sys.executable} -m pip install onnxmltools, or give the model's own file",
            )
        skl2onnx = importlib.import_module("skl2onnx")
        shapes = importlib.import_module("skl2onnx.common.shape_calculator")

        prefix, alias, part = rows[library]
        path = f"onnxmltools.convert.{library}.operator_converters.{part}"
        convert = getattr(importlib.import_module(path), "convert_" + library)
        options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
        for suffix, shape, given in (
            ("Classifier", shapes.calculate_linear_classifier_output_shapes, options),
            ("Regressor", shapes.calculate_linear_regressor_output_shapes, {"split": None}),
        ):
            owner = getattr(sys.modules[library], prefix + suffix)
            skl2onnx.update_registered_converter(
                owner, alias + suffix, shape, convert, options=given
            )
