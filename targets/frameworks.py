"""Importing frameworks late and without their types."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import typing
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

_LOOKS_FOR: Mapping[str, tuple[str, ...]] = {
    "tensorflow": ("keras", "jax"),
    "tf2onnx": ("keras",),
    "keras": ("sklearn", "pandas"),
    "nncf": ("torch",),
    "torch": ("torch.distributed.fsdp",),
}
"""What a framework imports only where it is there, and does without. Seconds of a core for the
import, with them and without: TensorFlow 4.5, 2.3, of which JAX .5; TensorFlow and Keras 4.5, 3.6;
NNCF 1.7, 0.4; torch.export 1.6, 1.3."""


def threads() -> int:
    """How many threads one process of an export computes on: half of the cores, since the source
    model runs while others convert. Threads that share their cores with other processes wait for
    each other, and spin while they do: a first pass through MobileNetV2 on two of torch's took 4 s
    beside others' work, on one .05."""
    return max(1, (os.cpu_count() or 1) // 2)


def framework(name: str) -> Any:
    """Imports a framework or a part of one, as late as possible and without its types.

    None of them has types of use, and none is installed where this code is checked. What it would
    only look for is not imported with it, and can be afterwards.
    """
    with absent(*_LOOKS_FOR.get(name.partition(".")[0], ())), uncollected():
        return importlib.import_module(name)


@contextlib.contextmanager
def uncollected() -> Generator[None]:
    """While the block lasts, Python looks for no garbage, nor ever after among what is there then.

    For imports: they make some hundred thousand objects that stay, and each full collection looks
    at all of them. It takes a tenth off the time of torch's, and more off the work that follows.
    """
    if not gc.isenabled():  # one block inside another
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def hints_once() -> Generator[None]:
    """While the block lasts, the type hints of a class are found once, for this one thread.

    ``torch.export.load`` asks for those of its forty classes once for each of a program's thousands
    of values: MobileNetV2's takes .40 s of a core so, and .62 without.
    """
    find = typing.get_type_hints
    found: dict[Any, tuple[dict[str, Any], object]] = {}

    def once(thing: Any, *names: Any, **options: Any) -> dict[str, Any]:
        given = (*names, *options.values())
        key = (thing, *map(id, given), *options)
        if key not in found:  # what was given stays alive with it, and so its identity
            found[key] = find(thing, *names, **options), given
        return dict(found[key][0])

    typing.get_type_hints = once
    try:
        yield
    finally:
        typing.get_type_hints = find


def save_program(program: Any, path: Path) -> None:
    """``torch.export.save`` without its test of itself, which copies the whole description of the
    program and sorts it, and throws that away: MobileNetV2's takes .16 s of a core so, and .44
    with it. The file is the same. What is wrong with it shows where it is loaded."""
    serde = framework("torch._export.serde.serialize")
    test = getattr(serde, "canonicalize", None)  # other versions may lack it
    if test is not None:
        serde.canonicalize = _untested
    try:
        framework("torch").export.save(program, str(path))
    finally:
        if test is not None:
            serde.canonicalize = test


def _untested(*_: object, **__: object) -> None:
    pass


@contextlib.contextmanager
def absent(*names: str) -> Generator[None]:
    """While the block lasts, importing these fails as if they were not installed.

    For libraries that import others only where they are there, which takes longer than the work.
    What was imported before is left alone.
    """
    modules = cast("dict[str, Any]", sys.modules)
    hidden = [name for name in names if name not in modules]
    for name in hidden:
        modules[name] = None
    try:
        yield
    finally:
        for name in hidden:
            if modules.get(name, name) is None:
                del modules[name]
