"""Models of XGBoost and LightGBM of every kind: their graph answers as they do, also in plain
operators, as for tflite and openvino; or they are refused with the reason."""

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pytest
import xgboost

from edgeml.errors import SourceError
from edgeml.exporter.sources import classical_graph
from edgeml.exporter.sources.boosters import LightGbmModel, from_xgboost_booster
from edgeml.targets.onnx.lowering import lower

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(0, 1, (300, 5)).astype("float32")
ROWS[:, 4] = RANDOM.integers(0, 5, 300)
KINDS = ["q", "q", "q", "q", "c"]
"""The last column holds numbers of categories."""
TWO = (ROWS[:, 0] + ROWS[:, 1] ** 2 > 1) ^ np.isin(ROWS[:, 4], [1, 3])
THREE = np.digitize(ROWS[:, 0] - ROWS[:, 2], [-1, 1])
VALUES = np.abs(ROWS[:, 0]) * 2 + (ROWS[:, 4] == 2)
GAPS = np.where(RANDOM.random(ROWS.shape) < 0.15, np.nan, ROWS).astype("float32")
SMALL: dict[str, Any] = {"n_estimators": 6, "max_depth": 3, "n_jobs": 1}
QUIET: dict[str, Any] = {**SMALL, "verbose": -1}
IN_PART = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}


def xgb(model: Any, *, rows: np.ndarray = ROWS, target: np.ndarray = VALUES, **given: Any) -> Any:
    """As it comes out of its own file."""
    return from_xgboost_booster(model.fit(rows, target, **given).get_booster())


def lgb(model: Any, *, rows: np.ndarray = ROWS, target: np.ndarray = VALUES, **given: Any) -> Any:
    return LightGbmModel.of(model.fit(rows, target, **given).booster_)


MODELS: dict[str, Callable[[], Any]] = {
    "xgboost, three classes": lambda: xgb(xgboost.XGBClassifier(**SMALL), rows=GAPS, target=THREE),
    "xgboost, two outputs": lambda: xgb(
        xgboost.XGBRegressor(**SMALL), target=np.stack([VALUES, 3 * VALUES], 1)
    ),
    "xgboost, a forest of classes": lambda: xgb(xgboost.XGBRFClassifier(**SMALL), target=THREE),
    "xgboost, a forest of values": lambda: xgb(xgboost.XGBRFRegressor(**SMALL)),
    "xgboost, shares": lambda: xgb(
        xgboost.XGBRegressor(objective="reg:logistic", **SMALL), target=TWO
    ),
    "xgboost, counts": lambda: xgb(xgboost.XGBRegressor(objective="count:poisson", **SMALL)),
    "xgboost, ranks": lambda: xgb(xgboost.XGBRanker(**SMALL), target=THREE, group=[150, 150]),
    "xgboost, the likeliest class": lambda: from_xgboost_booster(
        xgboost.train(
            {"objective": "multi:softmax", "num_class": 3}, xgboost.DMatrix(ROWS, THREE), 4
        )
    ),
    "xgboost, categories": lambda: xgb(
        xgboost.XGBClassifier(feature_types=KINDS, enable_categorical=True, **SMALL), target=TWO
    ),
    "lightgbm, three classes": lambda: lgb(
        lightgbm.LGBMClassifier(**QUIET), rows=GAPS, target=THREE
    ),
    "lightgbm, categories": lambda: lgb(
        lightgbm.LGBMClassifier(**QUIET), target=TWO, categorical_feature=[4]
    ),
    "lightgbm, a forest of classes": lambda: lgb(
        lightgbm.LGBMClassifier(**IN_PART, **QUIET), target=THREE
    ),
    "lightgbm, a forest of values": lambda: lgb(lightgbm.LGBMRegressor(**IN_PART, **QUIET)),
    "lightgbm, one class against all": lambda: lgb(
        lightgbm.LGBMClassifier(objective="multiclassova", **QUIET), target=THREE
    ),
    "lightgbm, ranks": lambda: lgb(lightgbm.LGBMRanker(**QUIET), target=THREE, group=[150, 150]),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_answers_as_the_model_does(name: str):
    model = MODELS[name]()
    graph = classical_graph.convert(model, width=5, names=(), call="the model")
    rows = (GAPS if "three classes" in name else ROWS)[:40]
    expected = classical_graph.answers(model, graph, rows)
    for made in (graph.model, lower(graph.model)):
        session = onnxruntime.InferenceSession(made.SerializeToString())
        found = [session.run(None, {"X": row[None]}) for row in rows]
        for at, truth in enumerate(expected):
            column = np.concatenate([each[at] for each in found])
            np.testing.assert_allclose(column, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "found", "remedy"),
    [
        (lambda: xgb(xgboost.XGBRegressor(booster="dart", **SMALL)), "booster 'dart'", "gbtree"),
        (lambda: xgb(xgboost.XGBRegressor(booster="gblinear")), "'gblinear'", "LinearRegression"),
        (
            lambda: xgb(
                xgboost.XGBRegressor(multi_strategy="multi_output_tree", **SMALL),
                target=np.stack([VALUES, VALUES], 1),
            ),
            "several outputs",
            "one_output_per_tree",
        ),
        (
            lambda: lgb(lightgbm.LGBMRegressor(linear_tree=True, **QUIET)),
            "linear_tree",
            "without linear_tree",
        ),
        (
            lambda: lgb(lightgbm.LGBMRegressor(objective="cross_entropy", **QUIET), target=TWO),
            "LightGBM's Booster has no conversion to ONNX",
            "Use a model or an objective",
        ),
        # onnxmltools converts it, and leaves the square out.
        (
            lambda: lgb(lightgbm.LGBMRegressor(reg_sqrt=True, **QUIET)),
            "computes something else: prediction is",
            "reg_sqrt",
        ),
    ],
)
def test_what_has_no_form_in_onnx_is_refused_at_once(
    make: Callable[[], Any], found: str, remedy: str
):
    with pytest.raises(SourceError) as caught:
        classical_graph.convert(make(), width=5, names=(), call="the model")
    assert found in caught.value.found
    assert remedy in caught.value.remedy


def test_a_model_of_a_table_with_categories_says_that_it_takes_no_numbers():
    import pandas as pd

    table = pd.DataFrame(ROWS).astype({4: int}).astype({4: "category"})
    model = xgb(xgboost.XGBClassifier(enable_categorical=True, **SMALL), rows=table, target=TWO)
    with pytest.raises(SourceError, match="takes no rows of plain numbers") as caught:
        classical_graph.convert(model, width=5, names=(), call="the model")
    assert "feature_types" in caught.value.remedy
