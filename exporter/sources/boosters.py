"""Boosters as estimators: XGBoost's and LightGBM's own models, without the class they came from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.targets.frameworks import framework

Array = NDArray[Any]


def from_xgboost_booster(booster: Any) -> Any:
    """The estimator of XGBoost that a booster belongs to, by its objective."""
    xgboost = framework("xgboost")

    config = json.loads(booster.save_config())
    objective = str(config["learner"]["objective"]["name"])
    classifies = objective.startswith(("binary:", "multi:"))
    model = xgboost.XGBClassifier() if classifies else xgboost.XGBRegressor()
    # A ranker answers as a regressor does, and is told apart by this alone.
    booster.set_attr(scikit_learn=None)
    model.load_model(bytearray(booster.save_raw("ubj")))
    return model


class LightGbmModel:
    """A booster of LightGBM that answers as scikit-learn's estimators do."""

    IS_LIGHTGBM = True

    def __init__(self, booster: Any, classes: int) -> None:
        self.booster = booster
        self.n_features_in_ = int(booster.num_feature())
        if classes:
            self.classes_ = np.arange(classes)
        names = [str(name) for name in booster.feature_name()]
        if names != [f"Column_{index}" for index in range(len(names))]:
            self.feature_names_in_ = np.array(names, dtype=object)

    @classmethod
    def of(cls, booster: Any) -> LightGbmModel:
        """The classifier or regressor that a booster is, by its objective."""
        objective = str(booster.dump_model(num_iteration=1).get("objective", ""))
        if objective.startswith("binary"):
            return _Classifier(booster, 2)
        if objective.startswith("multiclass"):
            return _Classifier(booster, int(booster.num_model_per_iteration()))
        return cls(booster, 0)

    def predict(self, rows: Array) -> Array:
        """What the booster makes of rows [n, features]."""
        return np.asarray(self.booster.predict(rows))


class _Classifier(LightGbmModel):
    def predict_proba(self, rows: Array) -> Array:
        """Of each class, [n, classes]."""
        share = np.asarray(self.booster.predict(rows))
        return np.stack([1 - share, share], axis=1) if share.ndim == 1 else share

    def predict(self, rows: Array) -> Array:
        """The likeliest class's number, [n]."""
        return self.predict_proba(rows).argmax(axis=1)
