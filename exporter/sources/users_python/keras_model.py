"""A Keras model: handed over as a SavedModel, by which it is run, too."""

# pyright: basic
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


class KerasModel:
    """A model, and where it was saved."""

    def __init__(self, model) -> None:
        self.model = model
        self.folder = ""
        self.signature: Any = None
        self.owner: Any = None

    def open(self, order):
        path = os.path.join(order["folder"], "foreign")  # noqa: PTH118
        package = type(self.model).__mro__
        names = [base.__module__.split(".")[0] for base in package]
        keras = sys.modules[next(name for name in names if name in ("keras", "tf_keras"))]
        if hasattr(self.model, "export"):
            self.model.export(path)
        else:
            tensorflow = importlib.import_module("tensorflow")

            tensorflow.saved_model.save(self.model, path)
        self.folder = path
        return {
            "kind": "savedmodel",
            "version": getattr(keras, "__version__", ""),
            "path": path,
            "notes": [],
        }

    def answer(self, columns):
        numpy = importlib.import_module("numpy")
        tensorflow = importlib.import_module("tensorflow")

        if self.signature is None:
            loaded = tensorflow.saved_model.load(self.folder)
            self.signature = loaded.signatures["serving_default"]
            self.owner = loaded
        found = {}
        for row in range(len(next(iter(columns.values())))):
            feeds = {
                name: tensorflow.constant(numpy.array(column[row : row + 1]))
                for name, column in columns.items()
            }
            for name, value in self.signature(**feeds).items():
                found.setdefault(name, []).append(value.numpy())
        return {name: numpy.concatenate(rows) for name, rows in found.items()}
