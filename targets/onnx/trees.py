"""Ensembles of trees in plain ONNX: see lowering.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edgeml.targets.onnx.plain import Builder, refused
from edgeml.targets.runtime import Array

_LOWEST = np.finfo(np.float32).min
"""In place of an infinity, which LiteRT compares otherwise."""


class Forest(NamedTuple):
    """All trees' nodes in one row; a leaf's children are the leaf itself."""

    roots: Array
    """Index of each tree's root, int64 [trees]."""
    feature: Array
    threshold: Array
    """float32 [nodes]: a sample goes left where its feature is at most this …"""
    least: Array
    """… and at least this, float32 [nodes]: the lowest, but where it looks for a category."""
    left: Array
    right: Array
    missing_left: Array
    """bool [nodes]: whether a missing value (NaN) goes left."""
    place: Mapping[tuple[int, int], int]
    """(tree, node) of the original to the index."""
    depth: int


def regressor(build: Builder, attributes: Mapping[str, Any]) -> None:
    """Lowers a TreeEnsembleRegressor."""
    forest = _forest(build, attributes)
    count = int(attributes.get("n_targets", 1))
    values = _leaves(forest, attributes, "target", count)
    leaves = _walk(build, forest, values)
    how = str(attributes.get("aggregate_function", "SUM"))
    axes = build.constant(np.array([0]))
    if how == "SUM":
        total = build.add("ReduceSum", leaves, axes, keepdims=1)
    elif how == "AVERAGE":
        summed = build.add("ReduceSum", leaves, axes, keepdims=1)
        total = build.add("Div", summed, build.constant(np.float32(len(forest.roots))))
    elif how in {"MIN", "MAX"} and count == 1:
        total = build.add(f"Reduce{how.title()}", leaves, keepdims=1)
    else:
        raise refused(build.node, f"its trees are taken together by {how}")
    total = _with_base(build, total, attributes, count)
    build.finish(0, build.transformed(total, str(attributes.get("post_transform", "NONE"))))


def classifier(build: Builder, attributes: Mapping[str, Any]) -> None:
    """Lowers a TreeEnsembleClassifier.

    Where two classes share one score, its sign decides, or, if no leaf is negative, whether it is
    above a half: that is how ONNX Runtime tells a margin from a probability.
    """
    forest = _forest(build, attributes)
    labels = build.labels(attributes)
    transform = str(attributes.get("post_transform", "NONE"))
    ids = sorted(set(attributes["class_ids"]))
    if len(labels) == 2 and len(ids) == 1:
        values = _leaves(forest, attributes, "class", 1, only=ids[0])
        score = build.add(
            "ReduceSum", _walk(build, forest, values), build.constant(np.array([0])), keepdims=1
        )
        base = np.asarray(attributes.get("base_values", ()), np.float32)
        if base.size:
            score = build.add("Add", score, build.constant(base[-1:]))
        one = build.constant(np.float32(1))
        if min(attributes["class_weights"]) >= 0:
            build.label_by(score, 0.5, labels)
            both = build.add("Sub", one, score), score
        else:
            build.label_by(score, 0.0, labels)
            both = build.add("Neg", score), score
            if transform == "LOGISTIC":
                both = build.add("Sigmoid", both[0]), build.add("Sigmoid", both[1])
        build.finish(1, build.add("Concat", *both, axis=1))
        return
    values = _leaves(forest, attributes, "class", len(labels))
    summed = build.add(
        "ReduceSum", _walk(build, forest, values), build.constant(np.array([0])), keepdims=1
    )
    scores = _with_base(build, summed, attributes, len(labels))
    build.label(build.add("ArgMax", scores, axis=1, keepdims=0), labels)
    build.finish(1, build.transformed(scores, transform))


def _with_base(build: Builder, total: str, attributes: Mapping[str, Any], count: int) -> str:
    base = np.asarray(attributes.get("base_values", ()), np.float32)
    if not base.size:
        return total
    if base.size != count:
        raise refused(build.node, f"it has {base.size} base values for {count} outputs")
    return build.add("Add", total, build.constant(base))


def _forest(build: Builder, attributes: Mapping[str, Any]) -> Forest:
    if any(name.endswith("_as_tensor") for name in attributes):
        raise refused(build.node, "its thresholds are float64, and would be rounded")
    trees, nodes = attributes["nodes_treeids"], attributes["nodes_nodeids"]
    place = {key: index for index, key in enumerate(zip(trees, nodes, strict=True))}
    count = len(place)
    modes = [_word(mode) for mode in attributes["nodes_modes"]]
    own = np.arange(count)
    left, right = own.copy(), own.copy()
    threshold = np.asarray(attributes["nodes_values"], np.float32).copy()
    least = np.full(count, _LOWEST, np.float32)
    tracks = np.asarray(attributes.get("nodes_missing_value_tracks_true") or [0] * count, bool)
    missing_left = tracks.copy()
    for index, (tree, mode) in enumerate(zip(trees, modes, strict=True)):
        if mode == "LEAF":
            continue
        true = place[tree, attributes["nodes_truenodeids"][index]]
        false = place[tree, attributes["nodes_falsenodeids"][index]]
        if mode in {"BRANCH_LT", "BRANCH_GTE"}:
            # x < t is x <= the number before t.
            threshold[index] = np.nextafter(threshold[index], np.float32(-np.inf))
        elif mode == "BRANCH_EQ":
            least[index] = threshold[index]
        elif mode not in {"BRANCH_LEQ", "BRANCH_GT"}:
            raise refused(build.node, f"its nodes compare by {mode}")
        if mode in {"BRANCH_GT", "BRANCH_GTE"}:
            true, false = false, true
            missing_left[index] = not tracks[index]
        left[index], right[index] = true, false
    roots = np.array(sorted({tree: index for (tree, _), index in reversed(place.items())}.values()))
    return Forest(
        roots=roots,
        feature=np.asarray(attributes["nodes_featureids"], np.int64),
        threshold=threshold,
        least=least,
        left=left,
        right=right,
        missing_left=missing_left,
        place=place,
        depth=_depth(roots, left, right),
    )


def _depth(roots: Array, left: Array, right: Array) -> int:
    """Steps until every tree is at a leaf."""
    depth, level = 0, set(roots.tolist())
    while level := {
        int(child) for node in level if left[node] != node for child in (left[node], right[node])
    }:
        depth += 1
    return depth


def _leaves(
    forest: Forest, attributes: Mapping[str, Any], what: str, columns: int, only: int | None = None
) -> Array:
    """What each leaf adds to each output, float32 [nodes, columns]."""
    values = np.zeros((len(forest.left), columns), np.float64)
    for tree, node, column, weight in zip(
        attributes[f"{what}_treeids"],
        attributes[f"{what}_nodeids"],
        attributes[f"{what}_ids"],
        attributes[f"{what}_weights"],
        strict=True,
    ):
        values[forest.place[tree, node], 0 if only is not None else column] += weight
    return values.astype(np.float32)


def _walk(build: Builder, forest: Forest, values: Array) -> str:
    """What the leaf that a sample comes to in each tree holds [trees, columns]."""
    x = build.flat(build.floats(0))
    tables = {
        name: build.constant(table)
        for name, table in (
            ("feature", forest.feature),
            ("threshold", forest.threshold),
            ("left", forest.left.astype(np.int64)),
            ("right", forest.right.astype(np.int64)),
        )
    }
    splits = forest.left != np.arange(len(forest.left))
    missing = build.constant(forest.missing_left) if (forest.missing_left & splits).any() else ""
    least = build.constant(forest.least) if (forest.least > _LOWEST).any() else ""
    here = build.constant(forest.roots.astype(np.int64))
    for _ in range(forest.depth):
        value = build.add("Gather", x, build.add("Gather", tables["feature"], here))
        threshold = build.add("Gather", tables["threshold"], here)
        goes_left = build.add("LessOrEqual", value, threshold)
        if least:
            enough = build.add("GreaterOrEqual", value, build.add("Gather", least, here))
            goes_left = build.add("And", goes_left, enough)
        if missing:
            lost = build.add("And", build.add("IsNaN", value), build.add("Gather", missing, here))
            goes_left = build.add("Or", goes_left, lost)
        here = build.add(
            "Where",
            goes_left,
            build.add("Gather", tables["left"], here),
            build.add("Gather", tables["right"], here),
        )
    return build.add("Gather", build.constant(values), here)


def _word(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
