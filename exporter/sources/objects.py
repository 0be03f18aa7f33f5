"""Models that are objects in memory: what a user's factory returns, and what a pickle holds.

Which kind it is shows only then: the class says whose it is, and the module of that kind goes on
with it. Runs in a child process, the one in which the user's code runs.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import msgspec

from edgeml.errors import SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources.forms import Opened, OpenJob, damaged
from edgeml.exporter.user_code import blaming, imports_torch, load_attribute
from edgeml.targets.frameworks import framework
from edgeml.targets.registry import SourceKind

_EXPECTED = (
    "an nn.Module, or a pair (nn.Module, example inputs); a Keras model; an estimator or pipeline "
    "of scikit-learn, XGBoost or LightGBM"
)

_BASES: dict[str, SourceKind] = {
    "torch.nn.modules.module.Module": "torch",
    "torch.export.exported_program.ExportedProgram": "torch",
    "keras.src.models.model.Model": "savedmodel",
    "tf_keras.src.engine.training.Model": "savedmodel",
    "sklearn.base.BaseEstimator": "classical",
    "xgboost.core.Booster": "classical",
    "lightgbm.basic.Booster": "classical",
}
"""Classes of which a model is one, by their names, so that telling them apart imports none."""


def kind_of(value: object) -> SourceKind | None:
    """What kind of model an object is; None where it is none."""
    for base in type(value).__mro__:
        kind = _BASES.get(f"{base.__module__}.{base.__qualname__}")
        if kind is not None:
            return kind
    return None


def open_source(job: OpenJob) -> Opened:
    """Make or unpickle the object, and normalise it as its kind asks.

    Raises:
        SourceError: the user's code fails, or there is no model in the end; see the modules of the
            kinds for what is wrong with one.
    """
    if job.form == "factory":
        call = f"{job.path.name}:{job.attribute}"
        made, notes = _from_factory(job, call), ()
    else:
        call = job.path.name
        made, notes = _from_pickle(job)
    opened = _normalised(job, made, call)
    return msgspec.structs.replace(opened, notes=(*notes, *opened.notes))


def _normalised(job: OpenJob, made: Any, call: str) -> Opened:
    model = _first(made)
    kind = kind_of(model)
    if kind == "torch":
        from edgeml.exporter.sources import torch_source

        return torch_source.open_made(job, made, call)
    if kind == "savedmodel":
        from edgeml.exporter.sources import tf_source

        return tf_source.open_made(job, model, call)
    if kind == "classical":
        from edgeml.exporter.sources import classical_source

        return classical_source.open_made(job, model, call)
    holds = "holds" if job.form != "factory" else "returns"
    if hasattr(made, "keys") and job.form == "torch-pickle":
        raise SourceError(
            f"{call} holds weights without a model",
            expected="a whole nn.Module, as torch.save(module, …) writes it",
            remedy="Write a function that builds the module, loads the weights and returns it, and "
            "give FILE.py:FUNCTION.",
        )
    raise SourceError(
        f"{call} {holds} {type(made).__name__}",
        expected=_EXPECTED,
        remedy="Have the function build the model, load its weights and return it."
        if job.form == "factory"
        else "Write a function that takes the model out of it, and give FILE.py:FUNCTION.",
    )


def _first(made: Any) -> Any:
    """The model of a pair with its example inputs."""
    if isinstance(made, tuple):
        pair = cast("tuple[Any, ...]", made)
        return pair[0] if len(pair) == 2 else pair
    return made


def _from_factory(job: OpenJob, call: str) -> Any:
    if imports_torch(job.path):
        with contextlib.suppress(ImportError):  # told where it matters
            framework("torch")  # as we import it: without a look for garbage, .2 s of a core
    factory = load_attribute(job.path, job.attribute, f"a function that returns {_EXPECTED}")
    if kind_of(_first(factory)) is not None:  # the model itself: most can be called, too
        return factory
    if not callable(factory):
        raise SourceError(
            f"{call} is of type {type(factory).__name__}",
            expected=f"a function that returns {_EXPECTED}",
        )
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise SourceError(
            f"{call} cannot be called without arguments: {error}",
            expected="a function that needs none",
            remedy="Wrap it in one that passes them.",
        ) from error
    except ValueError:
        pass  # it has no signature to look at
    with blaming(job.path, call):
        return factory()


def _from_pickle(job: OpenJob) -> tuple[Any, tuple[str, ...]]:
    """Opens it, which runs whatever code is in it: the user said that it may."""
    with _beside(job.path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            made = _unpickled(job)
        except (AttributeError, ImportError) as error:
            raise SourceError(
                f"{job.path} needs code that is not here: {first_line(error)}",
                expected="a pickle whose classes can be imported, from what is installed with the "
                "converters or from a file beside it",
                remedy="Write a function that loads and returns the model, and give "
                "FILE.py:FUNCTION; with --python your own interpreter runs it.",
            ) from error
        except MemoryError:
            raise
        except Exception as error:
            raise damaged(job.path, "a pickle", first_line(error)) from error
    # scikit-learn warns once a class: one note will do.
    skewed = (each.message for each in caught if hasattr(each.message, "original_sklearn_version"))
    return made, tuple(_skew(job.path, message) for message in skewed)[:1]


def _skew(path: Path, message: Any) -> str:
    return (
        f"{path.name} was written by scikit-learn {message.original_sklearn_version} and is read "
        f"by {message.current_sklearn_version}, which may understand it otherwise."
    )


def _unpickled(job: OpenJob) -> Any:
    if job.form == "torch-pickle":
        torch = framework("torch")
        return torch.load(str(job.path), map_location="cpu", weights_only=False)
    return framework("joblib").load(str(job.path))


@contextlib.contextmanager
def _beside(path: Path) -> Generator[None, None, None]:
    """Lets classes be found in files beside a pickle, as they were when it was written there."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
