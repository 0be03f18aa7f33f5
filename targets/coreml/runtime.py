"""Runs Core ML artifacts, on a Mac, by coremltools' binding of the system's own runtime.

It has run nowhere yet: the machines that this was written on were no Macs.
"""

from __future__ import annotations

import importlib
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.runtime import Array, Session, TensorInfo

# By their numbers in Core ML's format of models (FeatureTypes.proto).
_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Unpacks a ``.mlpackage.zip`` and loads it. There are no options.

    The system chooses its threads itself: ``threads`` is not heard.

    Raises:
        SourceError: the file is no Core ML package, or an option was given.
        RefusedError: coremltools cannot be imported, or the system cannot load the model.
    """
    del threads
    if options:
        raise SourceError(f"coreml has no session option {sorted(options)}", expected="none")
    tools = library()
    folder = tempfile.TemporaryDirectory(suffix=".mlpackage")
    try:
        with zipfile.ZipFile(entry) as archive:
            archive.extractall(folder.name)
    except zipfile.BadZipFile as error:
        folder.cleanup()
        raise SourceError(
            f"{entry.name} is no Core ML package: {error}", expected="an artifact for coreml"
        ) from error
    try:
        model = tools.models.MLModel(folder.name)
    except Exception as error:
        folder.cleanup()
        raise RefusedError(
            f"Core ML cannot load {entry.name}: {error}", remedy="It needs macOS 13 or later."
        ) from error
    return _CoreMlSession(model, folder)


def library() -> Any:
    """Imports coremltools.

    Raises:
        RefusedError: it cannot be imported.
    """
    try:
        return importlib.import_module("coremltools")
    except ImportError as error:
        raise RefusedError(
            f"coremltools cannot be imported ({error})", remedy="pip install 'edgeml[coreml]'"
        ) from error


class _CoreMlSession:
    def __init__(self, model: Any, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._model: Any = model
        self._folder = folder
        described: Any = model.get_spec().description
        self.inputs = tuple(_info(each) for each in described.input)
        self.outputs = tuple(_info(each) for each in described.output)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        made: dict[str, Any] = self._model.predict(dict(feeds))
        return {info.name: np.array(made[info.name], info.dtype) for info in self.outputs}

    def close(self) -> None:
        self._model = None
        self._folder.cleanup()


def _info(feature: Any) -> TensorInfo:
    array: Any = feature.type.multiArrayType
    shape = tuple(int(size) for size in array.shape)
    return TensorInfo(str(feature.name), shape, _DTYPES.get(int(array.dataType), "unknown"))
