"""A user's file that only their own interpreter can run: it has no edgeml, which it checks."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

assert importlib.util.find_spec("edgeml") is None


def net():
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)
            self.head = nn.Linear(4 * 36, 3)

        def forward(self, image, *, gain=None):
            scores = self.head(self.conv(image).relu().flatten(1))
            return {"scores": scores if gain is None else scores * gain}

    return Net(), {"image": torch.zeros(2, 1, 8, 8), "gain": torch.ones(2, 3)}


def of_another_version():
    """As if this torch wrote files that the converters' torch does not read."""
    import torch

    def save(program, path):
        Path(path).write_bytes(b"of a version to come")

    torch.export.save = save
    return net()


def of_torch_1_12():
    """As if this torch had no programs, and knew no newer ONNX than that one."""
    import torch

    del torch.export.save
    export = torch.onnx.export

    def older(model, args, f, *, input_names, output_names, opset_version):
        if opset_version > 16:
            raise ValueError(f"Unsupported ONNX opset version: {opset_version}")
        names = {"input_names": input_names, "output_names": output_names}
        export(model, args, f, opset_version=opset_version, dynamo=False, **names)

    torch.onnx.export = older
    return net()


def logistic():
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, species = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])
    return LogisticRegression(max_iter=500).fit(rows.astype("float32"), names[species])


def keras_model():
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    return keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))


def bare():
    """Whose inputs nothing shows but samples."""
    return net()[0]


class Loader:
    """Samples with their labels, by a package of theirs."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        import torch

        images = np.random.default_rng(0).normal(0, 1, (self.count, 1, 8, 8))
        for index, image in enumerate(images.astype("float32")):
            yield torch.from_numpy(image), index % 3


samples = Loader(40)


def batches():
    for start in range(0, 60, 20):
        image = np.full((20, 1, 8, 8), start, "float32")
        yield {"image": image, "gain": np.ones((20, 3)), "labels": np.arange(start, start + 20)}


def large():
    """120 MB."""
    for index in range(200):
        yield np.full((1, 384, 384), index, "float32")


def broken():
    yield np.zeros((1, 8, 8), "float32"), 0
    raise ValueError("the second file is gone")


def words():
    yield "a text"


def lacks():
    import a_package_of_theirs

    return a_package_of_theirs


def raises():
    raise ValueError("the weights are gone\nand so is the rest")


def number():
    return 3


def leaves():
    sys.stdout.flush()
    import os

    os._exit(7)
