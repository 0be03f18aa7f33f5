"""The shapes of a source's inputs and outputs: open axes are asked for or come from the data, and
what no artifact can have is refused, before anything of that size is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeml.bundle.manifest import Tensor
from edgeml.errors import SourceError, UsageError
from edgeml.exporter.sources.forms import ArrayShape, OpenJob

Axes = Sequence[int | None]
"""None is an axis that the model leaves open."""

MOST_ELEMENTS = 2**31 - 1
"""Of one sample: converters and runtimes count elements in 32 bits."""

_DTYPES = ("float32", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def closed_shape(job: OpenJob, name: str, axes: Axes) -> tuple[int, ...]:
    """An input's shape with its open axes filled in: as asked for, or else the batch with 1 and the
    others from the data. An axis that is to stay open is -1.

    Raises:
        UsageError: what was asked for contradicts the model.
        SourceError: nothing shows how long an axis is, or a sample would be empty or too large.
    """
    asked = job.asked.get(name)
    shape = _from_data(job, name, axes) if asked is None else _asked(name, asked, axes)
    refuse_size(name, shape, side="input", path=job.path)
    return shape


def filled(job: OpenJob, inputs: Mapping[str, Axes]) -> tuple[str, ...]:
    """Notes about axes that were fixed as the data has them."""
    notes: list[str] = []
    for name, axes in inputs.items():
        missing = [axis for axis, size in enumerate(axes) if size is None and axis > 0]
        if missing and name not in job.asked:
            shape = closed_shape(job, name, axes)
            notes.append(
                f"The model leaves {_axes(missing)} of {name!r} open; the artifacts take what the "
                f"samples have: {_shown(shape)}. Another length: --shape {name}={_typed(shape)}."
            )
    return tuple(notes)


def with_asked(job: OpenJob) -> tuple[ArrayShape, ...]:
    """The data's shapes, and in their place those that were asked for."""
    named = {shape.name: shape for shape in job.shapes if shape.name or not job.asked}
    for name, sizes in job.asked.items():
        given = named.get(name)
        dtype = given.dtype if given else next((s.dtype for s in job.shapes), "float32")
        named[name] = ArrayShape(name, at_hand(job, name, sizes)[1:], dtype)
    return tuple(named.values())


def at_hand(job: OpenJob, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape with the samples' lengths in its open axes (-1), to trace a model with.

    Raises:
        SourceError: the samples do not show them, or show a length of 1, which tracers take for
            one that never changes.
    """
    shown = _in_data(job, name, len(shape))
    found = tuple(
        size if size >= 0 else shown[axis - 1] if shown else 0 for axis, size in enumerate(shape)
    )
    if any(size < 0 <= length < 2 for size, length in zip(shape, found, strict=True)):
        raise SourceError(
            f"--shape {name}={_typed(shape)} keeps an axis open, and the samples do not show a "
            "length of 2 or more to trace the model with",
            expected="samples of one such length, as .npz or .npy",
            remedy="Give them with --calibration or --evaluate.",
        )
    return found


def stays_open(job: OpenJob) -> bool:
    """Whether an axis was asked to stay open."""
    return any(-1 in shape for shape in job.asked.values())


def refuse_unknown(job: OpenJob, names: Sequence[str]) -> None:
    """Refuse a ``--shape`` for an input that the model does not have.

    Raises:
        UsageError: there is one.
    """
    unknown = sorted(job.asked.keys() - set(names))
    if unknown:
        raise UsageError(
            f"--shape names {', '.join(map(repr, unknown))}, and the model has no such input",
            expected=f"one of {', '.join(map(repr, names))}",
        )


def refuse_open(job: OpenJob) -> None:
    """Refuse a -1 in ``--shape``, for a source whose axes cannot stay open.

    Raises:
        UsageError: there is one.
    """
    for name, shape in job.asked.items():
        if -1 in shape:
            raise UsageError(
                f"--shape {name}={_typed(shape)} keeps an axis open, which such a model cannot",
                expected="a length for every axis; models of PyTorch, Keras and TensorFlow "
                "(without --python), and in ONNX, can keep some open",
                remedy=f"Give numbers: --shape {name}={_typed([max(size, 1) for size in shape])}.",
            )


def fed(shapes: Mapping[str, Sequence[int]]) -> str:
    """The shapes that a model is tried with, in words."""
    return ", ".join(f"{name} {_shown(shape)}" for name, shape in shapes.items())


def refuse_size(name: str, shape: Sequence[int], *, side: str, path: Path) -> None:
    """Refuse a tensor without elements, or with more than anything can count.

    Raises:
        SourceError: it is one.
    """
    count = math.prod(abs(size) for size in shape)
    if 0 < count <= MOST_ELEMENTS:
        return
    shown = f"The {side} {name!r} of {path} has the shape {_shown(shape)}"
    if count == 0:
        raise SourceError(
            f"{shown}: it holds no values",
            expected="at least one element in every axis",
            remedy="If the length was meant to be open, export the model with a symbolic one.",
        )
    raise SourceError(
        f"{shown}: {count:,} values in a sample",
        expected=f"at most {MOST_ELEMENTS:,}",
        remedy="Give the model smaller samples, in parts.",
    )


def fixed_tensor(
    name: str, shape: Sequence[object] | None, dtype: str, *, side: str, path: Path
) -> Tensor:
    """An input or output of a normalised source.

    Raises:
        SourceError: its shape is not fixed, has no batch axis of 1 in front, or is empty or too
            large; or its dtype is one that artifacts do not take.
    """
    sizes = [size for size in shape or () if isinstance(size, int) and not isinstance(size, bool)]
    if shape is None or not sizes or len(sizes) != len(shape) or sizes[0] != 1:
        shown = "unknown" if shape is None else _shown(shape)
        raise SourceError(
            f"The {side} {name!r} of {path} has the shape {shown}"
            f"{' (a scalar)' if shape is not None and not shape else ''}",
            expected="a batch axis of 1 in front, and a fixed length for every other axis",
            remedy="Save the model for a batch of one sample (or an open batch axis), and keep "
            "that axis in all that it returns.",
        )
    refuse_size(name, sizes, side=side, path=path)
    if dtype not in _DTYPES:
        raise SourceError(
            f"The {side} {name!r} of {path} is {dtype}",
            expected="float32, or integers",
            remedy="Convert the model to float32 first (PyTorch: module.float()); the precision of "
            "an artifact is chosen with --precision.",
        )
    return Tensor(name=name, shape=tuple(sizes), dtype=dtype)


def _asked(name: str, asked: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    fits = len(asked) == len(axes) and all(
        size in (None, want) for want, size in zip(asked, axes, strict=True)
    )
    if not fits or any(size == 0 or size < -1 for size in asked):
        raise UsageError(
            f"--shape {name}={_typed(asked)} does not fit the input, whose shape is {_shown(axes)}",
            expected="a length for every axis, the model's own where it has one",
        )
    if asked[0] != 1:
        raise UsageError(
            f"--shape {name}={_typed(asked)} has a batch of {asked[0]}",
            expected="1 in front: every artifact takes one sample at a time",
            remedy=f"--shape {name}={_typed((1, *asked[1:]))}",
        )
    return asked


def _from_data(job: OpenJob, name: str, axes: Axes) -> tuple[int, ...]:
    known = _in_data(job, name, len(axes))
    sizes: list[int] = []
    for axis, size in enumerate(axes):
        if size is not None:
            sizes.append(size)
        elif axis == 0:
            sizes.append(1)
        elif known is not None:
            sizes.append(known[axis - 1])
        else:
            example = [size or (1 if at == 0 else "N") for at, size in enumerate(axes)]
            raise SourceError(
                f"Input {name!r} of {job.path} has the shape {_shown(axes)}",
                expected="to be told how long its open axes are",
                remedy=f"Say it: --shape {name}={_typed(example)} with numbers in place of N, or "
                "give real samples of one shape as .npz or .npy with --calibration or --evaluate.",
            )
    return tuple(sizes)


def _in_data(job: OpenJob, name: str, rank: int) -> tuple[int, ...] | None:
    """The shape of a sample of an input, where the data shows one of that many axes."""
    named = {given.name: given for given in job.shapes}
    given = named.get(name) or named.get("")
    return given.shape if given is not None and len(given.shape) == rank - 1 else None


def _axes(numbers: Sequence[int]) -> str:
    words = ", ".join(map(str, numbers))
    return f"axis {words}" if len(numbers) == 1 else f"axes {words}"


def _shown(shape: Sequence[object]) -> str:
    return f"[{', '.join('any' if size in (None, -1) else str(size) for size in shape)}]"


def _typed(shape: Sequence[object]) -> str:
    return ",".join(map(str, shape))
