"""What a camera's frame and a microphone's samples mean as a model's input. Pure.

Models whose preprocessing is inside the artifact take what the sensor gives: uint8 [1, height,
width, channels], int16 [1, samples]. The manifest says in which order of channels and at which
rate; where it does not, the configuration must: a guess would be a wrong input that nobody sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import Manifest
from edgeml.bundle.manifest import Tensor
from edgeml.errors import SourceError, UsageError

Frame = NDArray[np.uint8]
Pcm = NDArray[np.int16]


class ImageInput(msgspec.Struct, frozen=True):
    """The one input of a model that takes images, as a camera must fill it.

    Attributes:
        name: of the input.
        height: pixels.
        width: pixels.
        order: of the channels.
        channels_first: [1, channels, height, width] instead of [1, height, width, channels].
    """

    name: str
    height: int
    width: int
    order: str
    channels_first: bool

    def of(self, frame: Frame) -> dict[str, Frame]:
        """A frame [height, width, 3] in OpenCV's order (BGR) as the model's input.

        Raises:
            SourceError: it has another size.
        """
        if frame.shape[:2] != (self.height, self.width):
            raise SourceError(
                f"The frame has {frame.shape[1]}x{frame.shape[0]} pixels",
                expected=f"{self.width}x{self.height}",
                remedy='Set the camera to that, or allow fit = "stretch".',
            )
        image = self._ordered(frame)
        if self.channels_first:
            image = np.ascontiguousarray(image.transpose(2, 0, 1))
        return {self.name: image[np.newaxis]}

    def _ordered(self, frame: Frame) -> Frame:
        if self.order == "bgr":
            return frame.copy()
        if self.order == "rgb":
            return np.ascontiguousarray(frame[..., ::-1])
        # ITU-R BT.601, as OpenCV and Pillow have it.
        luma = frame.astype(np.float32) @ np.array([0.114, 0.587, 0.299], dtype=np.float32)
        return np.rint(luma).astype(np.uint8)[..., np.newaxis]


def image_input(manifest: Manifest, order: str = "") -> ImageInput:
    """How a model takes a camera's frames.

    Args:
        manifest: of the bundle.
        order: of the channels, by the configuration; empty for the manifest's.

    Raises:
        UsageError: it takes something else, or nobody says in which order.
    """
    tensor = _only(manifest, "image", "uint8", axes=4)
    channels_first = tensor.layout == "NCHW"
    _, *sides = tensor.shape
    channels, height, width = sides if channels_first else (sides[2], *sides[:2])
    order = order or str(_declared(manifest, "image", tensor).get("order", ""))
    wanted = 1 if order == "grey" else 3
    if not order or channels != wanted:
        raise UsageError(
            f"'{tensor.name}' of {manifest.name} has {channels} channels, in the order "
            f"'{order or 'unknown'}'",
            expected="rgb or bgr for three, grey for one",
            remedy='Say so under [[model.camera]]: order = "rgb".',
        )
    return ImageInput(tensor.name, height, width, order, channels_first)


class SoundInput(msgspec.Struct, frozen=True):
    """The one input of a model that takes sound.

    Attributes:
        name: of the input.
        samples: of one input.
        rate: samples a second.
    """

    name: str
    samples: int
    rate: int

    def of(self, samples: Pcm) -> dict[str, Pcm]:
        """Samples as the model's input."""
        return {self.name: samples.reshape(1, -1).copy()}


def sound_input(manifest: Manifest, rate: int = 0) -> SoundInput:
    """How a model takes a microphone's samples.

    Args:
        manifest: of the bundle.
        rate: by the configuration; 0 for the manifest's.

    Raises:
        UsageError: it takes something else, or nobody says at which rate.
    """
    tensor = _only(manifest, "audio", "int16", axes=2)
    rate = rate or int(_declared(manifest, "audio", tensor).get("rate", 0))
    if not rate:
        raise UsageError(
            f"Nobody says how many samples a second '{tensor.name}' of {manifest.name} takes",
            remedy="Say so under [[model.audio]]: rate = 16000.",
        )
    return SoundInput(tensor.name, tensor.shape[1], rate)


def mono(samples: Pcm, channels: Literal["refuse", "first", "average"]) -> Pcm:
    """Samples [n, channels] as [n].

    Raises:
        SourceError: there are several channels, and nobody says what becomes of them.
    """
    if samples.shape[1] == 1 or channels == "first":
        return samples[:, 0]
    if channels == "average":
        return np.rint(samples.mean(axis=1)).astype(np.int16)
    raise SourceError(
        f"The sound has {samples.shape[1]} channels",
        expected="one",
        remedy='Say what becomes of them: channels = "first", or "average".',
    )


class Cutter:
    """Cuts a stream of samples into inputs.

    Args:
        length: samples of an input.
        hop: from the beginning of one to that of the next; 0 for ``length``.
    """

    def __init__(self, length: int, hop: int = 0) -> None:
        self._length = length
        self._hop = hop or length
        self._held: Pcm = np.zeros(0, dtype=np.int16)
        self._skip = 0

    def cut(self, samples: Pcm) -> Iterator[Pcm]:
        """Take in more; give each input that is complete. What is left waits for more."""
        skipped = min(self._skip, len(samples))
        self._skip -= skipped
        held = np.concatenate([self._held, samples[skipped:]])
        begin = 0
        while begin + self._length <= len(held):
            yield held[begin : begin + self._length]
            begin += self._hop
        self._skip += max(0, begin - len(held))
        self._held = held[begin:].copy()


def _only(manifest: Manifest, meaning: str, dtype: str, *, axes: int) -> Tensor:
    (first, *more) = manifest.inputs
    fits = first.dtype == dtype and len(first.shape) == axes
    if more or not fits:
        found = ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in manifest.inputs)
        raise UsageError(
            f"{manifest.name} takes {found}",
            expected=f"one {meaning} input, {dtype} with {axes} axes, as the sensor gives it",
            remedy="Put the preprocessing into the artifact: edgeml export --preprocess.",
        )
    return first


def _declared(manifest: Manifest, kind: str, tensor: Tensor) -> dict[str, Any]:
    """What the preprocessing inside the artifact was told of the sensor."""
    for step in manifest.inside:
        if step.name == kind and step.parameters.get("input") == tensor.name:
            return step.parameters
    return {}
