"""Operators of ai.onnx.ml in plain ONNX: the same numbers as ONNX Runtime makes of the original."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest
import xgboost
from onnx import TensorProto, helper
from sklearn import (
    ensemble,
    gaussian_process,
    linear_model,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    svm,
    tree,
)
from sklearn import preprocessing as prepare
from sklearn.impute import SimpleImputer

from edgeml.errors import RefusedError
from edgeml.exporter.sources.classical_graph import convert
from edgeml.targets.onnx.lowering import DOMAIN, lower

RANDOM = np.random.default_rng(4)
ROWS = RANDOM.normal(0, 2, (200, 6)).astype("float32")
TWO = (ROWS[:, 0] + ROWS[:, 1] ** 2 > 1).astype(int)
THREE = np.digitize(ROWS[:, 0] - ROWS[:, 2], [-1, 1])
VALUES = ROWS[:, 0] * 2 - np.abs(ROWS[:, 3])
HELD_BACK = np.concatenate([RANDOM.normal(0, 2, (40, 6)).astype("float32"), ROWS[:8]])


def fit(estimator: Any, target: np.ndarray, rows: np.ndarray = ROWS) -> onnx.ModelProto:
    return convert(estimator.fit(rows, target), width=6, names=(), call="the model").model


def with_gaps(rows: np.ndarray) -> np.ndarray:
    gaps = rows.copy()
    gaps[::3, 1] = np.nan
    gaps[1::4, 4] = np.nan
    return gaps


SMALL = {"n_estimators": 5, "max_depth": 3}
MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "scaled logistic, two classes": lambda: fit(
        pipeline.make_pipeline(prepare.StandardScaler(), linear_model.LogisticRegression()), TWO
    ),
    "logistic, three classes": lambda: fit(linear_model.LogisticRegression(), THREE),
    "linear": lambda: fit(linear_model.LinearRegression(), VALUES),
    "imputed ridge": lambda: fit(
        pipeline.make_pipeline(SimpleImputer(), linear_model.Ridge()), VALUES, with_gaps(ROWS)
    ),
    "normalized": lambda: fit(
        pipeline.make_pipeline(prepare.Normalizer("l1"), linear_model.Ridge()), VALUES
    ),
    "binarized": lambda: fit(
        pipeline.make_pipeline(prepare.Binarizer(threshold=0.3), linear_model.Ridge()), VALUES
    ),
    "tree": lambda: fit(tree.DecisionTreeClassifier(max_depth=4), THREE),
    "forest, two classes": lambda: fit(ensemble.RandomForestClassifier(**SMALL), TWO),
    "forest, three classes": lambda: fit(ensemble.RandomForestClassifier(**SMALL), THREE),
    "forest of values": lambda: fit(ensemble.RandomForestRegressor(**SMALL), VALUES),
    "isolation-free boosting": lambda: fit(ensemble.GradientBoostingClassifier(**SMALL), TWO),
    "boosting by histograms": lambda: fit(
        ensemble.HistGradientBoostingClassifier(max_iter=5), THREE, with_gaps(ROWS)
    ),
    "perceptron": lambda: fit(neural_network.MLPClassifier((8,), max_iter=30), TWO),
    "bayes": lambda: fit(naive_bayes.GaussianNB(), THREE),
    "scaled neighbours": lambda: fit(
        pipeline.make_pipeline(prepare.StandardScaler(), neighbors.KNeighborsClassifier()), THREE
    ),
    "neighbours, by blocks": lambda: fit(neighbors.KNeighborsRegressor(p=1), VALUES),
    "gaussian process": lambda: fit(gaussian_process.GaussianProcessRegressor(), VALUES),
    "support vectors, rbf": lambda: fit(svm.SVR(), VALUES),
    "support vectors, poly": lambda: fit(svm.SVR(kernel="poly"), VALUES),
    "xgboost, two classes": lambda: fit(xgboost.XGBClassifier(**SMALL), TWO),
    "xgboost, three classes": lambda: fit(xgboost.XGBClassifier(**SMALL), THREE, with_gaps(ROWS)),
    "xgboost, values": lambda: fit(xgboost.XGBRegressor(**SMALL), VALUES),
    "lightgbm, two classes": lambda: fit(lightgbm.LGBMClassifier(verbose=-1, **SMALL), TWO),
    "lightgbm, three classes": lambda: fit(lightgbm.LGBMClassifier(verbose=-1, **SMALL), THREE),
    "lightgbm, values": lambda: fit(lightgbm.LGBMRegressor(verbose=-1, **SMALL), VALUES),
}


def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
    """With a batch of 1, as a source is normalised."""
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in model.graph.output:
        value.type.tensor_type.shape.ClearField("dim")
    del model.graph.value_info[:]
    return model


def run(model: onnx.ModelProto, rows: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (name,) = (value.name for value in session.get_inputs())
    made = [session.run(None, {name: rows[i : i + 1]}) for i in range(len(rows))]
    return [np.concatenate([each[k] for each in made]) for k in range(len(made[0]))]


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_the_original_does(name: str):
    model = fixed(MODELS[name]())
    assert any(node.domain == DOMAIN for node in model.graph.node) or name in {
        "perceptron",
        "bayes",
        "gaussian process",
    }
    lowered = lower(model)
    assert {node.domain for node in lowered.graph.node} <= {"", "ai.onnx"}
    assert "Scan" not in {node.op_type for node in lowered.graph.node}
    rows = with_gaps(HELD_BACK) if name in {"imputed ridge"} else HELD_BACK
    if "histograms" in name or name == "xgboost, three classes":
        rows = with_gaps(HELD_BACK)  # which way a missing value goes was learnt
    for expected, found in zip(run(model, rows), run(lowered, rows), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected.reshape(found.shape), atol=2e-5, rtol=2e-5)


def one_node(operator: str, outputs: int = 1, shape=(1, 4), **attributes: Any) -> onnx.ModelProto:
    """A model of a single operator on float32."""
    names = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(operator, ["x"], names, domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in names],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    types = {"y0": TensorProto.FLOAT, "y1": TensorProto.FLOAT}
    if operator == "LinearClassifier" or attributes.get("values_int64s"):
        types["y0"] = TensorProto.INT64
    for value in model.graph.output:
        rank = {"OneHotEncoder": 3, "LinearClassifier": 1}.get(operator, 2)
        axes = [None] * (2 if value.name == "y1" else rank)
        value.CopyFrom(helper.make_tensor_value_info(value.name, types[value.name], axes))
    return model


@pytest.mark.parametrize(
    "model",
    [
        one_node("Normalizer", norm="MAX"),
        one_node("Normalizer", norm="L2"),
        one_node("OneHotEncoder", cats_int64s=[-1, 0, 1, 2]),
        one_node("LabelEncoder", keys_floats=[-1.0, 0.0, 2.0], values_int64s=[5, 9, -2]),
        one_node("LabelEncoder", keys_floats=[0.0, 1.0], values_floats=[0.5, 3.0]),
        one_node("LinearRegressor", coefficients=[1.0, -2, 3, 0.5], intercepts=[0.25]),
        one_node("LinearClassifier", 2, coefficients=[1.0, -2, 3, 0.5], intercepts=[0.25],
                 classlabels_ints=[3, 8], post_transform="LOGISTIC"),
        one_node("LinearClassifier", 2, coefficients=[1.0, -2, 3, 0.5], intercepts=[0.25],
                 classlabels_ints=[3, 8]),
        one_node("Imputer", imputed_value_floats=[1.0, 2, 3, 4], replaced_value_float=2.0),
    ],
    ids=lambda model: model.graph.node[0].op_type,
)  # fmt: skip
def test_an_operator_alone(model: onnx.ModelProto):
    rows = np.random.default_rng(0).integers(-2, 4, (32, 4)).astype("float32")
    for expected, found in zip(run(model, rows), run(lower(model), rows), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: fit(svm.SVC(), TWO), "SVMClassifier"),
        (
            lambda: fit(tree.DecisionTreeClassifier(max_depth=2), np.array(["a", "b"])[TWO]),
            "labels are words",
        ),
    ],
)
def test_what_has_no_plain_form_is_refused_with_a_way_round(make: Callable, reason: str):
    with pytest.raises(RefusedError, match=reason) as caught:
        lower(fixed(make()))
    assert "Export to onnx" in caught.value.remedy


def test_scores_of_classes_with_names_need_no_names():
    """Only the label is a word: who takes the probabilities alone is served."""
    names = np.array(["a", "b"])[TWO]
    model = fixed(fit(tree.DecisionTreeClassifier(max_depth=2), names))
    expected = run(model, HELD_BACK)[1]
    del model.graph.output[0]
    np.testing.assert_allclose(run(lower(model), HELD_BACK)[0], expected, atol=1e-6)
