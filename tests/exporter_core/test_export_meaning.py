"""What tensors mean, inferred from shapes and values."""

import numpy as np
import pytest

from edgeml.bundle.manifest import Tensor
from edgeml.exporter.meaning import class_labels, infer_input, infer_outputs


def test_labels_are_classes_by_number_or_by_name():
    assert class_labels(np.array([2, 0]), 3) is not None
    assert class_labels(np.array(["b", "a"]), 2) is None
    named = class_labels(np.array(["b", "a", "b"]), 2, ("a", "b"))
    assert named is not None
    assert named.tolist() == [1, 0, 1]
    signs = class_labels(np.array([-1, 1]), 2, ("-1", "1"))
    assert signs is not None
    assert signs.tolist() == [0, 1]
    # A class that the model never saw: then they are no labels of its classes.
    assert class_labels(np.array(["c"]), 2, ("a", "b")) is None
    numbers = class_labels(np.array([1, 0]), 2, ("False", "True"))
    assert numbers is not None
    assert numbers.tolist() == [1, 0]


def test_what_the_source_knows_to_be_scores_is_not_inferred():
    known = Tensor(name="x", shape=(1, 2), dtype="float32", meaning="scores")
    values = {"x": np.array([[-5.0, 5.0], [-4.0, 4.0]], np.float32)}
    assert infer_outputs((known,), values, None) == (known,)


def tensor(*shape: int, dtype: str = "float32") -> Tensor:
    return Tensor(name="x", shape=shape, dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "kind", "meaning", "layout"),
    [
        ((1, 3, 32, 32), "torch", "image", "NCHW"),
        ((1, 32, 32, 3), "savedmodel", "image", "NHWC"),
        ((1, 32, 32, 3), "torch", "image", "NHWC"),
        ((1, 1, 28, 28), "onnx", "image", "NCHW"),
        ((1, 4, 4, 4), "torch", "image", "NCHW"),
        ((1, 4, 4, 4), "savedmodel", "image", "NHWC"),
        ((1, 64, 32, 32), "torch", "tensor", ""),
        ((1, 3, 2, 2), "torch", "tensor", ""),
        ((1, 12), "torch", "features", ""),
        ((1, 1000), "torch", "tensor", ""),
        ((1, 16, 12), "torch", "tensor", ""),
    ],
)
def test_inputs(shape: tuple[int, ...], kind: str, meaning: str, layout: str):
    found = infer_input(tensor(*shape), kind)  # type: ignore[arg-type]
    assert (found.meaning, found.layout) == (meaning, layout)


def test_int16_along_one_axis_is_audio():
    assert infer_input(tensor(1, 16000, dtype="int16"), "torch").meaning == "audio"
    assert infer_input(tensor(1, 1, 8000, dtype="int16"), "onnx").meaning == "audio"
    assert infer_input(tensor(1, 12, dtype="int16"), "torch").meaning == "features"


def outputs(values: np.ndarray, labels: np.ndarray | None = None) -> str:
    one = Tensor(name="y", shape=(1, *values.shape[1:]), dtype="float32")
    return infer_outputs((one,), {"y": values}, labels)[0].meaning


def test_probabilities_are_scores():
    assert outputs(np.array([[0.2, 0.8], [0.5, 0.5]])) == "scores"


def test_what_looks_like_the_logits_of_a_trained_classifier_is_scores():
    logits = np.random.default_rng(0).normal(0, 8, (50, 10))
    assert outputs(logits) == "scores"


def test_what_labels_name_the_columns_of_is_scores():
    unsure = np.random.default_rng(0).normal(0, 0.01, (50, 10))
    assert outputs(unsure) == "tensor"
    assert outputs(unsure, np.arange(50) % 10) == "scores"


def test_an_embedding_and_a_box_are_no_scores():
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(50, 128))
    assert outputs(embedding / np.linalg.norm(embedding, axis=1, keepdims=True)) == "tensor"
    assert outputs(rng.uniform(0, 200, (50, 4))) == "tensor"


def test_one_column_is_no_decision():
    assert outputs(np.ones((5, 1))) == "tensor"


def test_labels_are_class_numbers_or_nothing():
    assert class_labels(np.array([[0], [2]]), 3).tolist() == [0, 2]  # type: ignore[union-attr]
    assert class_labels(np.array([0, 3]), 3) is None
    assert class_labels(np.array([-1, 0]), 3) is None
    assert class_labels(np.array([0.5, 1.0]), 3) is None
    assert class_labels(np.eye(3), 3) is None
    assert class_labels(None, 3) is None


def test_a_single_column_is_a_score_where_labels_are_two_classes():
    column = np.array([[-3.0], [2.0], [1.0], [-1.0]])
    assert outputs(column, np.array([0, 1, 1, 0])) == "scores"
    assert outputs(column, np.array([0.5, 1.5, 2.5, 3.5])) == "tensor"
    assert outputs(column, np.array([0, 0, 0, 0])) == "tensor"


def test_a_single_column_is_a_score_where_it_looks_like_a_sigmoid():
    sure = np.array([[0.01], [0.98], [0.95], [0.02], [0.4]])
    assert outputs(sure) == "scores"
    assert outputs(np.linspace(0, 1, 50)[:, None]) == "tensor"  # a share of something
    assert outputs(np.array([[0.99], [0.97]])) == "tensor"  # decides nothing
