"""A declared input compiled to a program: plain operations with constant arrays.

Every framework and every target has these operations, and the constants are computed here once, so
that raw input means the same everywhere. The program works on one sample with its batch axis of 1.
Images are kept as [1, channels, height, width] inside, sound as [1, samples], then [1, frames,
mels].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeml.exporter.preprocessing import filters, spectra
from edgeml.exporter.preprocessing.declaration import (
    AudioInput,
    Crop,
    ImageInput,
    Input,
    Layout,
    LogMel,
    Normalize,
    Order,
    Resize,
    Scale,
)

Array = NDArray[Any]

TIE = 2.0**-13
"""So little below a half still goes up where pixels are rounded. Halves are frequent where an image
has few shades, and would fall to either side with the last bit of a sum, on each target as its
sums are ordered. Pillow's weights have 22 bits, so that it is no nearer to a half itself."""

Kind = Literal[
    "cast",
    "slice",
    "take",
    "product",
    "bands",
    "scale",
    "shift",
    "square",
    "sqrt",
    "log",
    "least",
    "most",
    "floor",
    "reshape",
    "transpose",
]


class Op(NamedTuple):
    """One operation on the single tensor x.

    * ``cast``: to float32
    * ``slice``: along ``axis``, rows ``numbers[0]`` to ``numbers[1]``
    * ``take``: along ``axis``, the rows ``array`` (int64 [n], or [n, m], which adds an axis)
    * ``product``: x @ ``array``, float32 [k, m]: along the last axis
    * ``bands``: likewise, one after another along that axis: columns ``first`` to ``last`` of x @
      ``weights`` of each band
    * ``scale``, ``shift``: x · ``array``, x + ``array``, float32 and broadcast
    * ``least``, ``most``: at least, at most ``numbers[0]``
    * ``square``, ``sqrt``, ``log`` (natural), ``floor``
    * ``reshape``, ``transpose``: to, by ``numbers``
    """

    kind: Kind
    array: Array | None = None
    numbers: tuple[float, ...] = ()
    axis: int = 0
    bands: tuple[filters.Band, ...] = ()

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All constant arrays."""
        own = () if self.array is None else (self.array,)
        return (*own, *(band.weights for band in self.bands))

    @property
    def whole(self) -> tuple[int, ...]:
        """The numbers of an operation that takes whole ones."""
        return tuple(int(number) for number in self.numbers)


class Program(NamedTuple):
    """What is done to one raw input."""

    raw: tuple[int, ...]
    """Shape of the raw input, with the batch axis."""
    dtype: str
    ops: tuple[Op, ...]
    shape: tuple[int, ...]
    """Of the result, float32."""


def compile_input(declared: Input) -> Program:
    """The program of a declared input.

    Raises:
        ValueError: a step cannot follow the one before it; the text says why.
    """
    if isinstance(declared, ImageInput):
        height, width, channels = declared.shape
        raw = (1, height, width, channels)
        return Program(raw, "uint8", *_image(declared))
    return Program((1, declared.samples), "int16", *_audio(declared))


def run(program: Program, raw: Array) -> Array:
    """The program in NumPy, on samples [n, …]: what the emitters are compared with in tests."""
    return np.concatenate([_run(program, raw[row : row + 1]) for row in range(len(raw))])


def _run(program: Program, x: Array) -> Array:
    for op in program.ops:
        x = _NUMPY[op.kind](x, op)
    return x


_NUMPY: dict[Kind, Callable[[Array, Any], Array]] = {
    "cast": lambda x, _: x.astype(np.float32),
    "slice": lambda x, op: np.take(x, range(*op.whole), axis=op.axis),
    "take": lambda x, op: np.take(x, op.array, axis=op.axis),
    "product": lambda x, op: x @ op.array,
    "bands": lambda x, op: np.concatenate(
        [x[..., band.first : band.last] @ band.weights for band in op.bands], axis=-1
    ),
    "scale": lambda x, op: x * op.array,
    "shift": lambda x, op: x + op.array,
    "square": lambda x, _: x * x,
    "sqrt": lambda x, _: np.sqrt(x),
    "log": lambda x, _: np.log(x),
    "least": lambda x, op: np.maximum(x, np.float32(op.numbers[0])),
    "most": lambda x, op: np.minimum(x, np.float32(op.numbers[0])),
    "floor": lambda x, _: np.floor(x),
    "reshape": lambda x, op: x.reshape(op.whole),
    "transpose": lambda x, op: x.transpose(op.whole),
}


class _Image:
    """An image on its way: [1, h, w, c] until something is computed, [1, c, h, w] from then on."""

    def __init__(self, declared: ImageInput) -> None:
        self.height, self.width, self.channels = declared.shape
        self.order = declared.order
        self.layout = "NCHW"
        self.ops: list[Op] = []
        self._planes = False
        if (self.channels == 1) != (self.order == "grey"):
            raise ValueError(f"{self.channels} channels in the order {self.order}")

    def planes(self) -> None:
        """Floats, channels first."""
        if not self._planes:
            self.ops += [Op("cast"), Op("transpose", None, (0, 3, 1, 2))]
            self._planes = True

    def crop(self, step: Crop) -> None:
        top, left = _corner(step, self.height, self.width)
        axis = 2 if self._planes else 1
        self.height, self.width = step.size
        self.ops += [
            Op("slice", None, (top, top + self.height), axis),
            Op("slice", None, (left, left + self.width), axis + 1),
        ]

    def take(self, step: Resize | Order | Scale | Normalize) -> None:
        self.planes()
        if isinstance(step, Resize):
            self.ops += _resize(step, self.height, self.width)
            self.height, self.width = step.size
        elif isinstance(step, Order):
            if self.order == "grey":
                raise ValueError("a grey image has no order of channels")
            if step.to != self.order:
                self.ops.append(Op("take", np.array([2, 1, 0]), (), 1))
            self.order = step.to
        else:
            self.ops += _affine(step, (1, -1, 1, 1), self.channels)


def _image(declared: ImageInput) -> tuple[tuple[Op, ...], tuple[int, ...]]:
    image = _Image(declared)
    for step in declared.steps:
        if isinstance(step, Layout):
            _last(step, declared.steps)
            if step.to not in {"NCHW", "NHWC"}:
                raise ValueError(f"the layout {step.to!r} is none of NCHW, NHWC")
            image.layout = step.to
        elif isinstance(step, Crop):
            image.crop(step)
        else:
            image.take(step)
    image.planes()
    ops = _merged(image.ops)
    shape = (1, image.channels, image.height, image.width)
    if image.layout == "NHWC":
        ops.append(Op("transpose", None, (0, 2, 3, 1)))
        shape = (1, image.height, image.width, image.channels)
    return tuple(ops), shape


def _last(step: Layout, steps: Sequence[object]) -> None:
    if step is not steps[-1]:
        raise ValueError("the layout is not the last step")


def _corner(step: Crop, height: int, width: int) -> tuple[int, int]:
    rows, columns = step.size
    if step.at == "centre":
        top, left = round((height - rows) / 2), round((width - columns) / 2)
    else:
        top, left = step.at
    if top < 0 or left < 0 or top + rows > height or left + columns > width:
        raise ValueError(f"a crop of {rows} by {columns} from {height} by {width}")
    return top, left


def _resize(step: Resize, height: int, width: int) -> list[Op]:
    if step.method == "nearest":
        if step.antialias:
            raise ValueError("nearest has no antialias")
        rows, columns = (
            filters.nearest(length, size)
            for length, size in zip((height, width), step.size, strict=True)
        )
        return [Op("take", rows, (), 2), Op("take", columns, (), 3)]
    if step.method == "area" and not step.antialias:
        raise ValueError("area always averages: antialias = true")
    rounding = [
        Op("shift", np.array(0.5 + TIE, np.float32)),
        Op("floor"),
        Op("least", None, (0.0,)),
        Op("most", None, (255.0,)),
    ]
    ops: list[Op] = []
    if step.size[1] != width:  # across first, as Pillow does: it matters where each pass rounds
        ops.append(_along(step, width, step.size[1]))
        ops += rounding if step.round else []
    if step.size[0] != height:
        turned = Op("transpose", None, (0, 1, 3, 2))
        ops += [turned, _along(step, height, step.size[0])]
        ops += rounding if step.round else []
        ops.append(turned)
    return ops


def _along(step: Resize, length: int, size: int) -> Op:
    """The resize of the last axis."""
    assert step.method != "nearest"
    bands = filters.bands(filters.matrix(length, size, step.method, antialias=step.antialias))
    return Op("product", bands[0].weights) if len(bands) == 1 else Op("bands", bands=bands)


def _audio(declared: AudioInput) -> tuple[tuple[Op, ...], tuple[int, ...]]:
    ops: list[Op] = [Op("cast")]
    shape: tuple[int, ...] = (1, declared.samples)
    letters = "NT"
    for step in declared.steps:
        if isinstance(step, LogMel):
            if letters == "NTF":
                raise ValueError("a second log-mel")
            made, frames = _log_mel(step, declared)
            ops += made
            shape, letters = (1, frames, step.mels), "NTF"
        elif isinstance(step, Layout):
            _last(step, declared.steps)
            found = step.to.replace("C", "")
            if sorted(found) != sorted(letters) or step.to[0] != "N":
                raise ValueError(f"the layout {step.to!r} of axes {letters}")
            order = tuple(letters.index(letter) for letter in found)
            if order != tuple(range(len(order))):
                ops.append(Op("transpose", None, order))
            sizes = {letter: shape[letters.index(letter)] for letter in letters} | {"C": 1}
            shape = tuple(sizes[letter] for letter in step.to)
            if "C" in step.to:
                ops.append(Op("reshape", None, shape))
        else:
            ops += _affine(step, (1,) * (len(shape) - 1) + (-1,), shape[-1])
    return tuple(_merged(ops)), shape


def _log_mel(step: LogMel, declared: AudioInput) -> tuple[list[Op], int]:
    if step.length > step.fft:
        raise ValueError(f"a window of {step.length} samples in a transform of {step.fft}")
    if not step.fmin < step.fmax <= declared.rate / 2:
        raise ValueError(
            f"mel bands of {step.fmin:g} to {step.fmax:g} Hz at a rate of {declared.rate} Hz"
        )
    if step.log == "db" and step.power == 1:
        raise ValueError("decibels of a magnitude: power = 2, or log10")
    index, valid = spectra.frames(declared.samples, step.fft, step.hop, step.centre)
    transform = spectra.transform(step.window, step.length, step.fft)
    bank = spectra.mel_bank(
        declared.rate, step.fft, step.mels, step.fmin, step.fmax, step.scale, step.norm
    )
    ops = [Op("take", index, (), 1)]
    if not valid.all():
        ops.append(Op("scale", valid[np.newaxis].astype(np.float32)))
    # Real parts beside imaginary ones: their squares are added by the next product.
    ops += [Op("product", transform), Op("square")]
    if step.power == 2:
        ops.append(Op("product", np.concatenate([bank, bank])))
    else:
        eye = np.eye(len(bank), dtype=np.float32)
        ops += [Op("product", np.concatenate([eye, eye])), Op("sqrt"), Op("product", bank)]
    floor = np.float32(step.floor)
    ops.append(
        Op("least", None, (step.floor,)) if step.floor_by == "max" else Op("shift", np.array(floor))
    )
    ops.append(Op("log"))
    factor = {"ln": 1.0, "log10": 1 / np.log(10), "db": 10 / np.log(10)}[step.log]
    if factor != 1:
        ops.append(Op("scale", np.array(factor, np.float32)))
    return ops, len(index)


def _affine(step: Scale | Normalize, shape: tuple[int, ...], channels: int) -> list[Op]:
    if isinstance(step, Scale):
        ops = [Op("scale", np.array(step.factor, np.float64))]
        return [*ops, Op("shift", np.array(step.offset, np.float64))] if step.offset else ops
    for what, numbers in (("mean", step.mean), ("std", step.std)):
        if len(numbers) not in {1, channels}:
            raise ValueError(f"{len(numbers)} numbers of {what} for {channels} channels")
    mean, std = (np.array(numbers, np.float64) for numbers in (step.mean, step.std))
    mean, std = np.broadcast_arrays(mean, std)
    if mean.size > 1:
        mean, std = mean.reshape(shape), std.reshape(shape)
    else:
        mean, std = mean.reshape(()), std.reshape(())
    return [Op("shift", -mean), Op("scale", 1 / std)]


def _merged(ops: list[Op]) -> list[Op]:
    """Scales and shifts that follow one another as one of each, computed in float64."""
    merged: list[Op] = []
    run: list[Op] = []
    for op in [*ops, Op("cast")]:
        if op.kind in {"scale", "shift"}:
            run.append(op)
            continue
        if run:
            factor, offset = np.array(1.0), np.array(0.0)
            for each in run:
                constant = np.asarray(each.array, np.float64)
                if each.kind == "scale":
                    factor, offset = factor * constant, offset * constant
                else:
                    offset = offset + constant
            if (factor != 1).any():
                merged.append(Op("scale", factor.astype(np.float32)))
            if offset.any():
                merged.append(Op("shift", offset.astype(np.float32)))
            run = []
        merged.append(op)
    return merged[:-1]
