"""Image files as raw frames: uint8, height × width × channels, as a camera gives them.

The orientation that a camera noted in the file (EXIF) is applied. Palettes are resolved, an alpha
channel is dropped. Needs Pillow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundle.manifest import Tensor
from edgeml.data.samples import Array
from edgeml.errors import RefusedError, SourceError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

_MODES = {1: "L", 3: "RGB"}
"""Pillow's, by the number of channels."""

_DEEP = ("I", "F")
"""First letters of modes with more than 8 bits a channel."""


def reader(tensor: Tensor, declared: Mapping[str, Any] | None) -> Callable[[Path], Array]:
    """What turns a file into a sample of an input.

    Args:
        tensor: the input.
        declared: the parameters of the step ``image``: ``shape`` (height, width, channels),
            ``order`` of the channels and what happens to files of ``other_sizes``; None: nothing
            is declared.

    Raises:
        SourceError: nothing is declared, and the input does not take pixels as they are.
    """
    if declared is not None:
        height, width, channels = (int(size) for size in declared["shape"])
        other = str(declared.get("other_sizes", "refuse"))
        bgr = declared.get("order") == "bgr"
        return lambda file: _frame(file, (height, width, channels), other=other, bgr=bgr)
    layout = tensor.layout or "NHWC"
    sizes = dict(zip(layout, tensor.shape, strict=False)) if len(tensor.shape) == 4 else {}
    if tensor.dtype != "uint8" or sizes.get("C") not in _MODES:
        raise SourceError(
            f"The images are pixels of 0..255, and '{tensor.name}' takes {tensor.dtype} "
            f"{list(tensor.shape)}",
            expected="a model that takes uint8 images, or a declaration of what makes its input of "
            "pixels",
            remedy="The scaling of the training is not guessed: declare --preprocess FILE.toml "
            "(docs/preprocessing.md), and the artifacts take raw pixels themselves.",
        )
    shape = (sizes["H"], sizes["W"], sizes["C"])
    first = layout == "NCHW"

    def read(file: Path) -> Array:
        frame = _frame(file, shape, other="refuse", bgr=False)
        return np.ascontiguousarray(frame.transpose(2, 0, 1)) if first else frame

    return read


def pixels(file: Path, channels: int = 3) -> Array:
    """A file's pixels, uint8 [height, width, channels] in RGB order (or grey)."""
    return _array(_opened(file, channels), channels)


def _frame(file: Path, shape: tuple[int, int, int], *, other: str, bgr: bool) -> Array:
    height, width, channels = shape
    image = _opened(file, channels)
    if image.size != (width, height):
        if other == "refuse":
            raise SourceError(
                f"{file} is {image.size[1]} pixels high and {image.size[0]} wide",
                expected=f"{height} by {width}, as the model's raw input has it",
                remedy='Declare what to do with such files (other_sizes = "fill" or "stretch", '
                "docs/preprocessing.md), or resize them as the device would give them.",
            )
        if other == "fill":
            image = _pillow("ImageOps").fit(image, (width, height))
        else:
            image = image.resize((width, height))
    array = _array(image, channels)
    return np.ascontiguousarray(array[..., ::-1]) if bgr else array


def _opened(file: Path, channels: int) -> Any:
    library = _pillow("Image")
    try:
        with library.open(file) as found:
            if found.mode.startswith(_DEEP):
                raise SourceError(
                    f"{file} has more than 8 bits a channel (mode {found.mode})",
                    expected="images of 8 bits a channel",
                    remedy="Convert it: how its range maps to 0..255 is not guessed.",
                )
            return _pillow("ImageOps").exif_transpose(found).convert(_MODES[channels])
    except (OSError, SyntaxError, ValueError, library.DecompressionBombError) as error:
        raise SourceError(
            f"{file} cannot be read as an image: {error}",
            expected="a complete image file",
            remedy="Remove it, or write it again.",
        ) from error


def _array(image: Any, channels: int) -> Array:
    return np.array(image, dtype=np.uint8).reshape(image.size[1], image.size[0], channels)


def _pillow(module: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError as error:
        raise RefusedError(
            "Reading image files needs Pillow, which is not installed here",
            remedy="pip install pillow, or give the pixels as .npy.",
        ) from error
