"""Operators of ai.onnx.ml in plain ONNX, for targets that have none of them.

scikit-learn, XGBoost and LightGBM become ONNX with trees, linear models, scalers and encoders as
operators of a domain of their own, which only ONNX Runtime's CPU provider runs. Here each becomes
the few plain operators that compute the same, for a batch of 1 and in float32.

Trees are walked, all at once, a level a step (the traversal of Nakandala and others, "A Tensor
Compiler for Unified Machine Learning Prediction Serving", OSDI 2020): at each step every tree reads
its node's feature and threshold and goes to the left or the right child; leaves stay where they
are. That compares the same numbers as the original, so no sample falls on another side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeml.targets import sources
from edgeml.targets.onnx.distances import at_once
from edgeml.targets.onnx.plain import Builder, refused
from edgeml.targets.onnx.trees import classifier, regressor
from edgeml.targets.runtime import Array

DOMAIN = "ai.onnx.ml"


def lower(model: Any) -> Any:
    """The same model without operators of ai.onnx.ml, and with distances taken at once.

    Args:
        model: checked, with fixed shapes; only the outputs that are asked for.

    Raises:
        RefusedError: an operator has no plain form, or none that is written here.
    """
    onnx = sources.framework("onnx")

    plain = [each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}]
    if not plain:  # a graph of nothing but trees names no other domain
        model.opset_import.append(onnx.helper.make_opsetid("", _OPSET))
        model.ir_version = max(model.ir_version, _IR_VERSION)
    elif plain[0] < _LEAST_OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
    lowered: Any = onnx.ModelProto()
    lowered.CopyFrom(model)
    graph = lowered.graph
    nodes = _needed(graph)
    del graph.node[:]
    shapes = _shapes(model)
    for node in nodes:
        if node.op_type == "Scan":
            attributes = {each.name: _value(each) for each in node.attribute}
            if at_once(Builder(graph, node, shapes), attributes):
                continue
        if node.domain != DOMAIN:
            graph.node.append(node)
            continue
        handler = _HANDLERS.get(node.op_type)
        if handler is None:
            raise refused(node, "it has no form in plain ONNX that is written here")
        handler(Builder(graph, node, shapes), {each.name: _value(each) for each in node.attribute})
    opsets = [each for each in lowered.opset_import if each.domain != DOMAIN]
    del lowered.opset_import[:]
    lowered.opset_import.extend(opsets)
    del graph.value_info[:]
    onnx.checker.check_model(lowered)
    return onnx.shape_inference.infer_shapes(lowered, data_prop=True)


# The operators that are written here are those of opset 13 and later.
_LEAST_OPSET = 13
_OPSET = 18
_IR_VERSION = 8  # the first that knows opset 18


def _needed(graph: Any) -> list[Any]:
    """The nodes that the outputs hang on: a label in words that nobody asked for is not lowered."""
    wanted = {value.name for value in graph.output}
    kept: list[Any] = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= {name for name in node.input if name}
            kept.append(node)
    for node in kept:
        if node.domain == DOMAIN:  # elsewhere an output that nobody reads may have to have a name
            node.output[:] = [name if name in wanted else "" for name in node.output]
    return kept[::-1]


def _shapes(model: Any) -> Mapping[str, tuple[int, ...]]:
    """Shapes as far as they are known."""
    onnx = sources.framework("onnx")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {tensor.name: tuple(map(int, tensor.dims)) for tensor in model.graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        found[value.name] = tuple(int(axis.dim_value) for axis in value.type.tensor_type.shape.dim)
    return found


def _value(attribute: Any) -> Any:
    onnx = sources.framework("onnx")
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    return value


Attributes = Mapping[str, Any]


def _floats(attributes: Attributes, name: str) -> Array:
    return np.asarray(attributes.get(name, ()), np.float32)


def _scaler(build: Builder, attributes: Attributes) -> None:
    x = build.floats(0)
    moved = build.add("Sub", x, build.constant(_floats(attributes, "offset")))
    build.finish(0, build.add("Mul", moved, build.constant(_floats(attributes, "scale"))))


def _normalizer(build: Builder, attributes: Attributes) -> None:
    x = build.floats(0)
    build.finish(0, build.normalized(x, str(attributes.get("norm", "MAX"))))


def _imputer(build: Builder, attributes: Attributes) -> None:
    x = build.floats(0)
    if "imputed_value_int64s" in attributes:
        values = np.asarray(attributes["imputed_value_int64s"], np.float32)
        marker = np.float32(attributes.get("replaced_value_int64", 0))
    else:
        values = _floats(attributes, "imputed_value_floats")
        marker = np.float32(attributes.get("replaced_value_float", 0.0))
    if np.isnan(marker):
        missing = build.add("IsNaN", x)
    else:
        missing = build.add("Equal", x, build.constant(marker))
    build.finish(0, build.add("Where", missing, build.constant(values), x))


def _binarizer(build: Builder, attributes: Attributes) -> None:
    threshold = np.float32(attributes.get("threshold", 0.0))
    above = build.add("Greater", build.floats(0), build.constant(threshold))
    build.finish(0, build.cast(above, "FLOAT"))


def _feature_extractor(build: Builder, attributes: Attributes) -> None:
    del attributes
    taken = build.add("Gather", build.node.input[0], build.flat(build.node.input[1]), axis=-1)
    if len(build.shape(0)) == 1:
        taken = build.add("Unsqueeze", taken, build.constant(np.array([0])))
    build.finish(0, taken)


def _feature_vectorizer(build: Builder, attributes: Attributes) -> None:
    del attributes
    columns = [build.floats(index) for index in range(len(build.node.input))]
    build.finish(0, build.add("Concat", *columns, axis=1))


def _one_hot(build: Builder, attributes: Attributes) -> None:
    if "cats_int64s" not in attributes:
        raise refused(build.node, "its categories are words")
    if not attributes.get("zeros", 1):
        raise refused(build.node, "it is to fail where a category is unknown, and no target can")
    categories = np.asarray(attributes["cats_int64s"], np.float32)
    apart = build.add("Unsqueeze", build.floats(0), build.constant(np.array([-1])))
    same = build.add("Equal", apart, build.constant(categories))
    build.finish(0, build.cast(same, "FLOAT"))


def _label_encoder(build: Builder, attributes: Attributes) -> None:
    keys = _table(attributes, "keys")
    values = _table(attributes, "values")
    if keys is None or values is None:
        raise refused(build.node, "it maps from or to words")
    whole = values.dtype.kind == "i"
    otherwise = (
        attributes.get("default_int64", -1) if whole else attributes.get("default_float", 0.0)
    )
    if "default_tensor" in attributes:
        otherwise = np.asarray(attributes["default_tensor"]).ravel()[0]
    apart = build.add("Unsqueeze", build.floats(0), build.constant(np.array([-1])))
    same = build.cast(build.add("Equal", apart, build.constant(keys.astype(np.float32))), "FLOAT")
    # The key that is met brings its value's distance from the default; where none is, 0.
    steps = (values.astype(np.float64) - float(otherwise)).astype(np.float32)
    step = build.add("MatMul", same, build.constant(steps))
    found = build.add("Add", step, build.constant(np.float32(otherwise)))
    build.finish(0, build.cast(found, "INT64") if whole else found)


def _table(attributes: Attributes, side: str) -> Array | None:
    for suffix in ("int64s", "floats", "tensor"):
        found = attributes.get(f"{side}_{suffix}")
        if found is not None:
            table = np.asarray(found)
            return None if table.dtype.kind not in "if" else table.ravel()
    return None


def _linear_scores(build: Builder, attributes: Attributes) -> tuple[str, int]:
    """X·Wᵀ + b [1, rows], and the number of rows."""
    weights = _floats(attributes, "coefficients")
    offset = _floats(attributes, "intercepts")
    shape = build.shape(0)
    # Shapes behind an operator of ai.onnx.ml are not inferred: there the intercepts tell.
    features = shape[-1] if shape else len(weights) // max(1, offset.size)
    rows = len(weights) // features
    made = build.add(
        "MatMul", build.floats(0), build.constant(weights.reshape(rows, features).T.copy())
    )
    return (build.add("Add", made, build.constant(offset)) if offset.size else made), rows


def _linear_regressor(build: Builder, attributes: Attributes) -> None:
    made, _ = _linear_scores(build, attributes)
    build.finish(0, build.transformed(made, str(attributes.get("post_transform", "NONE"))))


def _linear_classifier(build: Builder, attributes: Attributes) -> None:
    made, rows = _linear_scores(build, attributes)
    labels = build.labels(attributes)
    transform = str(attributes.get("post_transform", "NONE"))
    if rows == 1:
        if len(labels) != 2:
            raise refused(build.node, f"it has one row of weights for {len(labels)} classes")
        build.label_by(made, 0.0, labels)
        positive = build.transformed(made, transform)
        # Of a margin, too, ONNX Runtime gives 1 less it to the other class.
        negative = build.add("Sub", build.constant(np.float32(1)), positive)
        build.finish(1, build.add("Concat", negative, positive, axis=1))
        return
    build.label(build.add("ArgMax", made, axis=1, keepdims=0), labels)
    build.finish(1, build.transformed(made, transform))


def _svm_regressor(build: Builder, attributes: Attributes) -> None:
    if int(attributes.get("one_class", 0)):
        raise refused(build.node, "a one-class machine has no plain form written here")
    count = int(attributes.get("n_supports", 0))
    x = build.floats(0)
    coefficients = _floats(attributes, "coefficients")
    if count == 0:
        made = build.add("MatMul", x, build.constant(coefficients.reshape(-1, 1)))
    else:
        vectors = _floats(attributes, "support_vectors").reshape(count, -1)
        kernel = _kernel(build, x, vectors, attributes)
        made = build.add("MatMul", kernel, build.constant(coefficients.reshape(count, 1)))
    rho = build.constant(_floats(attributes, "rho")[:1])
    made = build.add("Add", made, rho)
    build.finish(0, build.transformed(made, str(attributes.get("post_transform", "NONE"))))


def _kernel(build: Builder, x: str, vectors: Array, attributes: Attributes) -> str:
    """Its value for x and each support vector [1, vectors]."""
    given: Sequence[float] = attributes.get("kernel_params", (0.0, 0.0, 0.0))
    gamma, coef0, degree = (np.float32(value) for value in given)
    kind = str(attributes.get("kernel_type", "LINEAR"))
    if kind == "RBF":
        apart = build.add("Sub", x, build.constant(vectors))
        squares = build.add("Mul", apart, apart)
        distance = build.add("ReduceSum", squares, build.constant(np.array([1])), keepdims=0)
        scaled = build.add("Mul", distance, build.constant(-gamma))
        return build.add("Unsqueeze", build.add("Exp", scaled), build.constant(np.array([0])))
    product = build.add("MatMul", x, build.constant(vectors.T.copy()))
    if kind == "LINEAR":
        return product
    moved = build.add(
        "Add", build.add("Mul", product, build.constant(gamma)), build.constant(coef0)
    )
    if kind == "POLY":
        return build.add("Pow", moved, build.constant(degree))
    if kind == "SIGMOID":
        return build.add("Tanh", moved)
    raise refused(build.node, f"its kernel {kind} has no plain form written here")


def _zip_map(build: Builder, attributes: Attributes) -> None:
    del attributes
    raise refused(
        build.node,
        "it gives a list of dictionaries and no tensor: convert the model with "
        "options={'zipmap': False}",
    )


_HANDLERS: Mapping[str, Callable[[Builder, Attributes], None]] = {
    "ArrayFeatureExtractor": _feature_extractor,
    "Binarizer": _binarizer,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LabelEncoder": _label_encoder,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot,
    "SVMRegressor": _svm_regressor,
    "Scaler": _scaler,
    "TreeEnsembleClassifier": classifier,
    "TreeEnsembleRegressor": regressor,
    "ZipMap": _zip_map,
}
