"""The declaration of preprocessing: a TOML file, read strictly and checked as far as it can be
without the model.

A table an input of the model, named after it. ``kind`` says what the sensor gives (``image`` or
``audio``), ``steps`` what is done to it, in order. Nothing has a default that would
change a number: whatever the training chose is written down.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgeml.bundle.manifest import Step

Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Step(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step"
):
    pass


class Crop(_Step, frozen=True, kw_only=True, tag="crop"):
    """Part of the image."""

    size: tuple[Size, Size]
    """Height and width."""
    at: Literal["centre"] | tuple[int, int] = "centre"
    """Top and left; or the middle, rounded as torchvision does."""


class Resize(_Step, frozen=True, kw_only=True, tag="resize"):
    """The image at another size; both sides are stated, so the aspect ratio may change."""

    size: tuple[Size, Size]
    """Height and width."""
    method: Literal["nearest", "bilinear", "bicubic", "area"]
    antialias: bool
    """Whether the filter grows with the reduction, as Pillow's always does and ``interpolate`` of
    torch and OpenCV's ``resize`` do not by default. Nearest never does, area always."""
    round: bool = False
    """Whether each of the two passes ends in whole numbers of 0..255, as in Pillow on uint8."""


class Order(_Step, frozen=True, kw_only=True, tag="order"):
    """The order of the channels that the model was trained with."""

    to: Literal["rgb", "bgr"]


class Scale(_Step, frozen=True, kw_only=True, tag="scale"):
    """Multiplied, then added to."""

    factor: float
    offset: float = 0.0


class Normalize(_Step, frozen=True, kw_only=True, tag="normalize"):
    """(x − mean) / std, one number, or one a channel."""

    mean: tuple[float, ...]
    std: tuple[Positive, ...]


class LogMel(_Step, frozen=True, kw_only=True, tag="log-mel"):
    """The logarithm of a mel spectrogram: [frames, mels]."""

    window: Literal["hann", "hamming", "rectangular"]
    """Periodic, as for spectral analysis."""
    length: Size
    """Of the window, in samples."""
    hop: Size
    """Between frames, in samples."""
    fft: Size
    """Length of the Fourier transform; a shorter window stands in its middle."""
    centre: Literal["reflect", "zero"] | None
    """How the signal is padded by half a transform at both ends (torch's and librosa's centre);
    ``none`` in the file: not at all."""
    mels: Size
    fmin: Annotated[float, msgspec.Meta(ge=0)]
    fmax: Positive
    """Hz."""
    scale: Literal["htk", "slaney"]
    """Of the mel axis."""
    norm: Literal["slaney"] | None
    """Whether filters have equal areas; ``none`` in the file: equal heights."""
    power: Literal[1, 2]
    """Of the magnitude."""
    log: Literal["ln", "log10", "db"]
    """``db``: 10·log10, of a power."""
    floor: Positive
    floor_by: Literal["max", "add"]
    """Whether the floor is the least value or is added, before the logarithm."""


class Layout(_Step, frozen=True, kw_only=True, tag="layout"):
    """The order of the axes that the model takes: NCHW or NHWC for an image; letters of N (batch,
    first), T (frames), F (mels) and C (an axis of 1) for audio."""

    to: str


ImageStep = Crop | Resize | Order | Scale | Normalize | Layout
AudioStep = Scale | Normalize | LogMel | Layout


class _Input(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    pass


class ImageInput(_Input, frozen=True, kw_only=True, tag="image"):
    """uint8, height × width × channels."""

    shape: tuple[Size, Size, Literal[1, 3]]
    order: Literal["rgb", "bgr", "grey"]
    """Of the channels, as the sensor gives them."""
    steps: tuple[ImageStep, ...]
    other_sizes: Literal["refuse", "fill", "stretch"] = "refuse"
    """What happens to image *files* of another size when samples are read: ``fill`` resizes and
    cuts evenly, ``stretch`` resizes. A device gives the stated shape."""


class AudioInput(_Input, frozen=True, kw_only=True, tag="audio"):
    """int16 PCM, mono."""

    rate: Size
    """Hz."""
    samples: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
    steps: tuple[AudioStep, ...]
    channels: Literal["refuse", "first", "average"] = "refuse"
    """Of WAV *files* with several, when samples are read; likewise the next two."""
    shorter: Literal["refuse", "pad"] = "refuse"
    longer: Literal["refuse", "cut"] = "refuse"


Input = ImageInput | AudioInput


class Declaration(msgspec.Struct, frozen=True):
    """What is declared, an input of the model at a time."""

    inputs: dict[str, Input]
    path: Path

    def steps(self) -> tuple[Step, ...]:
        """As the manifest has them: a step ``image`` or ``audio`` for the raw input, then each."""
        found: list[Step] = []
        for name, each in self.inputs.items():
            fields: dict[str, Any] = msgspec.to_builtins(each)
            steps = fields.pop("steps")
            found.append(Step(name=fields.pop("kind"), parameters={"input": name, **fields}))
            found += [
                Step(name=step.pop("step"), parameters={"input": name, **step}) for step in steps
            ]
        return tuple(found)
