"""Telling the forms of MODEL apart, and refusing at once what is missing, damaged or none of them.

The documents that pass between the export and a source's child process are here too.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from edgeml.bundle.manifest import Tensor
from edgeml.errors import SourceError, UsageError
from edgeml.exporter.user_code import imports_torch
from edgeml.targets.registry import SourceKind

Form = Literal[
    "factory",
    "pickle",
    "torch-pickle",
    "pt2",
    "onnx",
    "keras",
    "h5",
    "savedmodel",
    "tflite",
    "xgboost",
    "lightgbm",
]

FORMS = (
    "FILE.py:FACTORY (PyTorch, Keras, scikit-learn, XGBoost, LightGBM), .pt2, .onnx, .keras, .h5, "
    "a SavedModel folder, a float .tflite, XGBoost's .json or .ubj, LightGBM's .txt, or with "
    "--trust a pickle (.joblib, .pkl, .pt)"
)

KINDS: dict[Form, SourceKind] = {
    "factory": "torch",
    "pickle": "classical",
    "torch-pickle": "torch",
    "pt2": "torch",
    "onnx": "onnx",
    "keras": "savedmodel",
    "h5": "savedmodel",
    "savedmodel": "savedmodel",
    "tflite": "tflite",
    "xgboost": "classical",
    "lightgbm": "classical",
}

MODULES: dict[SourceKind, str] = {
    "torch": "edgeml.exporter.sources.torch_source",
    "savedmodel": "edgeml.exporter.sources.tf_source",
    "onnx": "edgeml.exporter.sources.onnx_source",
    "tflite": "edgeml.exporter.sources.tflite_source",
    "classical": "edgeml.exporter.sources.classical_source",
}
"""Where each kind's ``open_source`` and ``reference`` are."""

OBJECTS = "edgeml.exporter.sources.objects"
"""Where forms are opened that hold an object of any kind."""

FOREIGN = "edgeml.exporter.sources.foreign"
"""Where a factory is run by the user's own interpreter."""


class ModelSource(NamedTuple):
    """MODEL, taken apart but not yet read."""

    form: Form
    path: Path
    attribute: str = ""
    """The name inside ``FILE.py``; empty for the other forms."""

    python: str = ""
    """The interpreter that a factory runs in; empty: the converters' own."""

    def __str__(self) -> str:
        return f"{self.path}:{self.attribute}" if self.attribute else str(self.path)

    @property
    def kind(self) -> SourceKind:
        """What it becomes; where it is not :attr:`settled`, what it most likely does."""
        return KINDS[self.form]

    @property
    def settled(self) -> bool:
        """Whether the kind is known before the model is opened."""
        return self.form not in {"factory", "pickle"}

    @property
    def opener(self) -> str:
        """The module whose ``open_source`` reads it."""
        if self.python:
            return FOREIGN
        objects = {"factory", "pickle", "torch-pickle"}
        return OBJECTS if self.form in objects else MODULES[self.kind]


def framework(model: ModelSource) -> str:
    """What reading a model imports first, where that is sure; empty where it is not, or where the
    model's own code may have to be first."""
    if model.form in {"keras", "h5", "savedmodel"}:
        return "tensorflow"
    torch = model.form in {"pt2", "torch-pickle"} or (
        model.form == "factory" and not model.python and imports_torch(model.path)
    )
    return "torch" if torch else ""


class ArrayShape(msgspec.Struct, frozen=True):
    """One array of samples, before the model is known."""

    name: str
    """Empty for the single array of an ``.npy``."""
    shape: tuple[int, ...]
    """Of a sample: without the axis of samples."""
    dtype: str


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A model to be read and normalised."""

    form: Form
    path: Path
    attribute: str
    workdir: Path
    shapes: tuple[ArrayShape, ...] = ()
    """Of the DATA, for axes that the model leaves open; empty where DATA is code."""
    python: str = ""
    """The user's interpreter that a factory runs in; empty: this one."""
    asked: dict[str, tuple[int, ...]] = {}
    """``--shape``: input to shape; -1 keeps an axis open."""
    iterable: tuple[Path, str] | None = None
    """DATA that is code, for a factory that gives no example inputs."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A normalised source."""

    kind: SourceKind
    path: Path
    inputs: tuple[Tensor, ...]
    """Float32 or integers, batch 1; -1 is an axis that stays open. Meanings come later."""
    outputs: tuple[Tensor, ...]
    title: str
    """For people: the form and what made it, such as ``Keras 2.11 .h5``."""
    sha256: str = ""
    """Of weights and graph, for a factory: its file alone does not say what was exported."""
    notes: tuple[str, ...] = ()
    reference: str = ""
    """The module whose ``reference`` answers for it; empty: that of its kind."""

    @property
    def answers(self) -> str:
        """The module whose ``reference`` answers for it."""
        return self.reference or MODULES[self.kind]


class ReferenceJob(msgspec.Struct, frozen=True, kw_only=True):
    """Samples to run through a normalised source."""

    source: Opened
    inputs: tuple[Path, ...]
    """An ``.npy`` an input, in their order, first axis samples."""
    outputs: tuple[Path, ...]
    """Where to write an ``.npy`` an output."""


def parse_model(
    text: str, *, trust: bool = False, python: str = "", of_samples: bool = False
) -> ModelSource:
    """Take MODEL apart and look at its first bytes.

    Args:
        text: as it was given.
        trust: whether pickles may be opened.
        python: the interpreter that a factory is to run in.
        of_samples: whether there are samples that it is to run, too.

    Raises:
        UsageError: it has none of the forms, or is a pickle that nobody vouched for.
        SourceError: there is no such file, or it is cut short or something else inside.
    """
    head, colon, attribute = text.rpartition(":")
    if colon and head.endswith(".py"):
        if not attribute.isidentifier():
            raise UsageError(f"{text!r} names no factory", expected="FILE.py:FACTORY")
        if python and not Path(python).exists():
            raise SourceError(
                f"There is no {python}",
                expected="the Python interpreter that --python is to run the factory in",
                remedy="Check the path.",
            )
        return ModelSource("factory", _existing(Path(head)), attribute, python)
    if python and not of_samples:
        raise UsageError(
            f"--python was given, and {text} is no code that it could run",
            expected="FILE.py:FACTORY, or samples of FILE.py:ITERABLE",
            remedy="Write a function that returns the model, or leave --python out.",
        )
    path = Path(text)
    if path.is_dir():
        return ModelSource("savedmodel", _savedmodel(path))
    row = _SUFFIXES.get(path.suffix.lower())
    if row is None:
        remedy = _REMEDIES.get(path.suffix.lower(), "")
        if not remedy and not path.exists():
            raise SourceError(f"There is no {path}", expected=FORMS, remedy="Check the path.")
        raise UsageError(
            f"{text!r} is no form of model that edgeml reads", expected=FORMS, remedy=remedy
        )
    form, title, looks_right = row
    _existing(path)
    try:
        right = looks_right(path)
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error.strerror or error}", expected=title
        ) from error
    if not right:
        raise damaged(path, title)
    if form in {"pickle", "torch-pickle"}:
        _refuse_pickle(path, torch=form == "torch-pickle", trust=trust)
    return ModelSource(form, path)


def _refuse_pickle(path: Path, *, torch: bool, trust: bool) -> None:
    if torch and _is_torchscript(path):
        raise UsageError(
            f"{path} is TorchScript, which torch no longer develops and no converter here reads",
            expected="the module that it was made from",
            remedy="Give FILE.py:FUNCTION that returns that module with its weights loaded, or a "
            ".pt2 of torch.export.export.",
        )
    if trust:
        return
    if torch:
        around = (
            "Or write a function that returns the module with its weights loaded "
            "(torch.load(…, weights_only=True)), and give FILE.py:FUNCTION."
        )
    else:
        around = (
            "Models of XGBoost and LightGBM have files without code: save_model('….json') and "
            "booster_.save_model('….txt')."
        )
    raise UsageError(
        f"{path} is a pickle, and a pickle runs any code that its author put in as soon as it is "
        "opened",
        expected="a file that holds nothing but data, or your word for this one",
        remedy=f"If you made it, or trust who did, add --trust. {around}",
    )


def _is_torchscript(path: Path) -> bool:
    """By its members: TorchScript keeps source code beside the tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def damaged(path: Path, title: str, cause: str = "") -> SourceError:
    """The error for a model file that is cut short, or something else inside."""
    size = path.stat().st_size if path.is_file() else 0
    about = f" ({size:,} bytes)" if path.is_file() else ""
    why = f": {cause}" if cause else ""
    return SourceError(
        f"{path}{about} is cut short, damaged, or something else inside{why}",
        expected=title,
        remedy="Save or download it again.",
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise SourceError(f"There is no file {path}", expected="a model", remedy="Check the path.")
    return path


def _savedmodel(path: Path) -> Path:
    if not any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise SourceError(
            f"The folder {path} holds no saved_model.pb",
            expected="a SavedModel folder, with saved_model.pb and variables/",
            remedy="Give the folder itself, not the one above it.",
        )
    return path


def _starts_with(*starts: bytes) -> Callable[[Path], bool]:
    def check(path: Path) -> bool:
        with path.open("rb") as stream:
            return stream.read(16).startswith(starts)

    return check


def _tflite(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(8)[4:] == b"TFL3"


def _lightgbm(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(16).replace(b"\r", b"").startswith(b"tree\n")


def _something(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(1) not in {b"", b"<"}


# The end of a zip archive is its directory: one that was cut short has none.
_SUFFIXES: dict[str, tuple[Form, str, Callable[[Path], bool]]] = {
    ".pt2": ("pt2", "a file that torch.export.save wrote", zipfile.is_zipfile),
    ".onnx": ("onnx", "an ONNX model", _starts_with(b"\x08", b"\x12", b"\x1a", b":", b"B")),
    ".keras": (
        "keras",
        "a Keras 3 archive, as model.save('….keras') writes it",
        zipfile.is_zipfile,
    ),
    ".h5": (
        "h5",
        "a Keras model in HDF5, as model.save('….h5') writes it",
        _starts_with(b"\x89HDF"),
    ),
    ".hdf5": ("h5", "a Keras model in HDF5", _starts_with(b"\x89HDF")),
    ".tflite": ("tflite", "a LiteRT (TensorFlow Lite) model", _tflite),
    ".json": ("xgboost", "an XGBoost model, as save_model('….json') writes it", _starts_with(b"{")),
    ".ubj": (
        "xgboost",
        "an XGBoost model, as save_model('….ubj') writes it",
        _starts_with(b"{L", b"{i", b"{U"),
    ),
    ".txt": ("lightgbm", "a LightGBM model, as save_model('….txt') writes it", _lightgbm),
    ".joblib": ("pickle", "a pickle of joblib.dump", _something),
    ".pkl": ("pickle", "a pickle", _something),
    ".pickle": ("pickle", "a pickle", _something),
    ".pt": ("torch-pickle", "a file that torch.save wrote", _something),
    ".pth": ("torch-pickle", "a file that torch.save wrote", _something),
}

_REMEDIES = {
    ".py": "Add a colon and the name of a function that returns the module: model.py:build.",
    ".ckpt": "It holds weights without a model: write a function that returns the module with them "
    "loaded, and give FILE.py:FUNCTION.",
    ".safetensors": "It holds weights without a model: write a function that returns the module "
    "with them loaded, and give FILE.py:FUNCTION.",
    ".pb": "Give the folder that the file lies in.",
}
