"""The user's file, imported as they would, and what is taken from it."""

# pyright: basic
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import importlib.util
import os
import sys

from . import Wrong

BASES = {
    "torch.nn.modules.module.Module": "torch",
    "sklearn.base.BaseEstimator": "classical",
}


def kind_of(value):
    """Whose model it is, by the names of its classes."""
    for base in type(value).__mro__:
        kind = BASES.get(base.__module__ + "." + base.__name__)
        if kind:
            return kind
        root = base.__module__.split(".")[0]
        if base.__name__ == "Model" and root in ("keras", "tf_keras"):
            return "keras"
    return ""


def attribute_of(path, attribute, what):
    """Import the user's file as they would, once, and give what has this name in it."""
    name = os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122
    module = sys.modules.get(name)
    if getattr(module, "__file__", None) != path:
        folder = os.path.dirname(path)  # noqa: PTH120
        if folder not in sys.path:
            sys.path.insert(0, folder)
        sys.argv = [path]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == name]
        raise Wrong(
            f"{path} has no {attribute!r}",
            what + ", among what it defines: " + ", ".join(own[:12]),
            "Check the name after the colon.",
        )
    return getattr(module, attribute)


def run_factory(path, attribute):
    """Call the factory."""
    factory = attribute_of(path, attribute, "a function that returns a model")
    if kind_of(factory):
        return factory
    if not callable(factory):
        name = os.path.basename(path)  # noqa: PTH119
        raise Wrong(f"{name}:{attribute} is of type {type(factory).__name__}", "a function", "")
    return factory()


def open_iterable(path, attribute):
    """What gives the samples: itself, or what it returns."""
    found = attribute_of(path, attribute, "an iterable, or a function that returns one")

    def iterable(value):
        return hasattr(value, "__iter__") or hasattr(value, "__getitem__")

    if callable(found) and (not iterable(found) or isinstance(found, type)):
        found = found()
    if not iterable(found) or isinstance(found, (str, bytes, dict)):
        raise Wrong(
            f"{path}:{attribute} is of type {type(found).__name__}",
            "something to iterate over, or a function that returns it",
            "Arrays that are complete are better saved with numpy.savez and given as .npz.",
        )
    return found
