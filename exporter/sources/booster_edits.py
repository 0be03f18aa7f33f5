"""What onnxmltools leaves wrong of XGBoost's and LightGBM's trees, put right in its graph, and what
it has no words for, refused before.

It takes every model for one output a tree in turn, and knows few of the links between the sum of
the leaves and the answer. XGBoost's own file and LightGBM's dump say both.
"""

from __future__ import annotations

import json
import math
from typing import Any

from edgeml.errors import SourceError
from edgeml.targets.frameworks import framework

_SHARES = "reg:logistic"
_REMEDIES = {
    "dart": "Train it with booster='gbtree'.",
    "gblinear": "Train LinearRegression or LogisticRegression of scikit-learn: the same model.",
}


def is_booster(estimator: Any) -> bool:
    """Whether it is a model of XGBoost or LightGBM."""
    return hasattr(estimator, "get_booster") or _lightgbm(estimator) is not None


def categories(estimator: Any) -> list[int]:
    """The columns that hold numbers of categories."""
    booster = _lightgbm(estimator)
    if booster is None:
        types = estimator.get_booster().feature_types or ()
        return [index for index, kind in enumerate(types) if kind == "c"]
    told = booster.dump_model(num_iteration=1)["feature_infos"]
    names = enumerate(booster.feature_name())
    return [index for index, name in names if told.get(name, {}).get("values")]


def refuse_unknown(estimator: Any, call: str) -> None:
    """Refuse what has no form in ONNX's trees.

    Args:
        estimator: a model of XGBoost or LightGBM.
        call: where it came from, for errors.

    Raises:
        SourceError: it is one.
    """
    booster = _lightgbm(estimator)
    if booster is not None:
        if "\nis_linear=1" in booster.model_to_string():
            raise _refused(call, "LightGBM of linear_tree", "Train it without linear_tree.")
        return
    learner = _learner(estimator)
    name = str(learner["gradient_booster"]["name"])
    if name != "gbtree":
        raise _refused(call, f"XGBoost of booster {name!r}", _REMEDIES.get(name, ""))
    trees: list[dict[str, Any]] = learner["gradient_booster"]["model"]["trees"]
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in trees):
        remedy = "Train it with multi_strategy='one_output_per_tree'."
        raise _refused(call, "XGBoost whose trees have several outputs", remedy)


def mend(estimator: Any, model: Any) -> None:
    """Give each tree its output, and the sum of the leaves its link.

    Args:
        estimator: a model of XGBoost or LightGBM.
        model: what onnxmltools made of it, with one ensemble of trees; changed in place.
    """
    kinds = {"TreeEnsembleClassifier": "class", "TreeEnsembleRegressor": "target"}
    found = [node for node in model.graph.node if node.op_type in kinds]
    if len(found) != 1:
        return
    helper = framework("onnx").helper
    attributes = {each.name: helper.get_attribute_value(each) for each in found[0].attribute}
    side = kinds[found[0].op_type]
    booster = _lightgbm(estimator)
    if booster is not None:
        changes = _of_lightgbm(booster, attributes, side)
    else:
        learner = _learner(estimator)
        changes = _of_xgboost(learner, attributes, side)
        if learner["objective"]["name"] == _SHARES:  # ONNX Runtime's regressor leaves it out
            answer, margin = found[0].output[0], f"{found[0].output[0]}_margin"
            found[0].output[0] = margin
            model.graph.node.append(helper.make_node("Sigmoid", [margin], [answer]))
    kept = [each for each in found[0].attribute if each.name not in changes]
    del found[0].attribute[:]
    found[0].attribute.extend(kept)
    found[0].attribute.extend(helper.make_attribute(*each) for each in changes.items())


def _of_xgboost(learner: Any, attributes: dict[str, Any], side: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    objective = str(learner["objective"]["name"])
    groups: list[int] = learner["gradient_booster"]["model"]["tree_info"]
    base = str(learner["learner_model_param"]["base_score"]).strip("[]").split(",")
    if max(groups, default=0) > 0:
        changes[f"{side}_ids"] = [groups[tree] for tree in attributes[f"{side}_treeids"]]
        if side == "target":
            changes["base_values"] = [float(each) for each in base]
    if objective == "multi:softmax":
        changes["post_transform"] = "SOFTMAX"
    if objective == _SHARES:
        share = float(base[0])
        changes["base_values"] = [math.log(share / (1 - share))]
    return changes


def _of_lightgbm(booster: Any, attributes: dict[str, Any], side: str) -> dict[str, Any]:
    told = booster.dump_model()
    changes: dict[str, Any] = {}
    if told.get("average_output"):  # of random forests
        rounds = booster.num_trees() / booster.num_model_per_iteration()
        weights = attributes[f"{side}_weights"]
        changes[f"{side}_weights"] = [weight / rounds for weight in weights]
    if str(told.get("objective", "")).startswith("multiclassova"):
        changes["post_transform"] = "LOGISTIC"
    return changes


def _lightgbm(estimator: Any) -> Any:
    """LightGBM's booster; None of anything else."""
    if type(estimator).__module__.startswith("lightgbm"):
        return estimator.booster_
    return getattr(estimator, "booster", None) if hasattr(estimator, "IS_LIGHTGBM") else None


def _learner(estimator: Any) -> Any:
    return json.loads(bytes(estimator.get_booster().save_raw("json")))["learner"]


def _refused(call: str, what: str, remedy: str) -> SourceError:
    return SourceError(
        f"{call}: a model of {what} has no conversion to ONNX",
        expected="trees that compare numbers with thresholds, whose leaves are added up",
        remedy=remedy,
    )
