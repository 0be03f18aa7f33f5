"""Sources for the converters' tests: small real models on disk, with what they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import torch
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.registry import Precision, SourceKind

Arrays = Mapping[str, np.ndarray]
Make = Callable[[str, str, Precision], CompileResult]


@dataclass(frozen=True)
class Source:
    """A model on disk, with samples and what it makes of them."""

    kind: SourceKind
    path: Path
    feeds: Arrays
    expected: Arrays

    def job(self, precision: Precision, workdir: Path, calibration: Path | None) -> CompileJob:
        return CompileJob(
            source_kind=self.kind,
            source=self.path,
            precision=precision,
            inputs=tuple(self.feeds),
            outputs=tuple(self.expected),
            workdir=workdir,
            calibration=calibration,
        )


def calibration_folder(folder: Path, *arrays: np.ndarray) -> Path:
    """Samples as a ``CompileJob`` wants them: a file an input, in order."""
    folder.mkdir(exist_ok=True)
    for index, array in enumerate(arrays):
        np.save(folder / f"{index}.npy", array)
    return folder


def save_torch(module: torch.nn.Module, feeds: Arrays, path: Path) -> None:
    example = tuple(torch.from_numpy(array[:1]) for array in feeds.values())
    torch.export.save(torch.export.export(module.eval(), example), path)


def torch_source(module: torch.nn.Module, feeds: Arrays, outputs: list[str], path: Path) -> Source:
    save_torch(module, feeds, path)
    with torch.no_grad():
        made = module(*(torch.from_numpy(array) for array in feeds.values()))
    made = made if isinstance(made, tuple) else (made,)
    expected = {name: value.numpy() for name, value in zip(outputs, made, strict=True)}
    return Source("torch", path, feeds, expected)


def savedmodel_source(path: Path) -> Source:
    """A convolution net in TensorFlow with two inputs of one shape, two outputs, an open batch."""
    random = np.random.default_rng(3)
    kernel = tf.Variable(random.normal(0, 0.3, (3, 3, 3, 8)).astype("float32"))
    head = tf.Variable(random.normal(0, 0.5, (8, 8)).astype("float32"))

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel, self.head = kernel, head

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 16, 16, 3], tf.float32, name=name)
                for name in ("left", "right")
            ]
        )
        def __call__(self, left, right):
            first, second = (
                tf.nn.relu(tf.nn.conv2d(side, self.kernel, 2, "SAME")) for side in (left, right)
            )
            return {
                "total": tf.reduce_mean(first + 0.5 * second, [1, 2]) @ self.head,
                "difference": tf.reduce_mean(first - 2.0 * second, [1, 2]),
            }

    model = Model()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.__call__})
    feeds = pair_feeds((16, 16, 3))
    made = model(**{name: tf.constant(array) for name, array in feeds.items()})
    return Source("savedmodel", path, feeds, {name: made[name].numpy() for name in made})


def forest_source(path: Path) -> Source:
    """A boosted forest behind a scaler, as scikit-learn's converter writes it."""
    random = np.random.default_rng(6)
    rows = random.normal(0, 2, (248, 6)).astype("float32")
    classes = np.digitize(rows[:, 0] - rows[:, 2] ** 2 / 4, [-1, 1])
    forest = GradientBoostingClassifier(n_estimators=4, max_depth=3, random_state=0)
    pipeline = make_pipeline(StandardScaler(), forest).fit(rows[48:], classes[48:])
    graph = to_onnx(pipeline, rows[:1], options={"zipmap": False}, target_opset={"": 18})
    path.write_bytes(graph.SerializeToString())
    expected = pipeline.predict_proba(rows[:48]).astype("float32")
    return Source("classical", path, {"X": rows[:48]}, {"probabilities": expected})


def lite_source(source: Source, path: Path) -> Source:
    """A SavedModel as TensorFlow's own converter writes it: its batch is open."""
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(source.path)).convert())
    return Source("tflite", path, source.feeds, source.expected)


def pair_feeds(shape: tuple[int, ...]) -> Arrays:
    random = np.random.default_rng(5)
    return {
        "left": random.normal(0, 1, (48, *shape)).astype("float32"),
        "right": random.normal(0.5, 1, (48, *shape)).astype("float32"),
    }
