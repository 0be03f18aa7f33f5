"""What an export says while it runs: one JSON document a line on the standard output of
``edgeml.exporter``.

The order: :class:`Started`; then :class:`Stage`, :class:`Progress` and :class:`Note` as things go;
a :class:`Row` an artifact and a :class:`Refusal` a target that could not be made, when all is
measured and chosen; a :class:`Collapse` or a :class:`Parted` an artifact that failed its check; at
last :class:`Done`, or :class:`Failure` where there is no bundle. Whichever
comes last, the process then exits with its ``status``. A stream that ends with neither means that
the process was killed.

``python -m edgeml.exporter.events > docs/schema/events.json`` prints their JSON Schema.
"""

from __future__ import annotations

import sys
from typing import Literal

import msgspec

from edgeml.bundle.manifest import Certificate, Precision
from edgeml.decoding import json_decoder, json_schema

StageName = Literal[
    "toolchain",
    "source",
    "calibrate",
    "candidates",
    "search",
    "compile",
    "verify",
    "measure",
    "choose",
    "explain",
    "report",
    "pack",
]
STAGES: tuple[StageName, ...] = (
    "toolchain",
    "source",
    "calibrate",
    "candidates",
    "search",
    "compile",
    "verify",
    "measure",
    "choose",
    "explain",
    "report",
    "pack",
)
"""In the order in which they begin; ``toolchain`` only where one is to be installed. ``verify``
and ``measure`` take turns, artifact by artifact. With limits, a ``search`` for each target stands
in place of ``compile``, ``verify`` and ``measure``. ``report`` comes where one was asked for."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """Base of all events; ``event`` in the JSON is the name of the class."""


class Started(Event, frozen=True, kw_only=True, tag="started"):
    """The first event."""

    log: str
    """Path of the file that takes what the converters print."""


class Stage(Event, frozen=True, kw_only=True, tag="stage"):
    """A stage begins; the one before it is over."""

    name: StageName
    title: str
    """For people, such as ``Compiling 6 artifacts``."""
    steps: int = 0
    """How many :class:`Progress` events with ``step`` will come; 0 where that is not known."""


class Progress(Event, frozen=True, kw_only=True, tag="progress"):
    """Something of the current stage was done or begun."""

    text: str
    """``tflite int8``, say."""
    step: int = 0
    """Steps of the stage that are done, counting from 1; 0 for a mere word on what goes on."""


class Note(Event, frozen=True, kw_only=True, tag="note"):
    """Something that the user should know, and that is no failure."""

    text: str
    target: str = ""
    precision: Precision | None = None


class Row(Event, frozen=True, kw_only=True, tag="row"):
    """One artifact: a row of the table, and of ``artifacts`` in the JSON document."""

    target: str
    precision: Precision
    bytes: int
    passed: bool
    """It met its tolerance. One that did not is never chosen, nor in the bundle."""
    chosen: bool
    """It is in the bundle."""
    cosine: float | None = None
    """None, like all that needs the artifact to run, where nothing here can run it."""
    max_abs: float | None = None
    agreement: float | None = None
    samples: int = 0
    """How many the artifact was checked on."""
    metric: str = ""
    """What ``accuracy`` and ``drop`` are; empty where there is no metric."""
    accuracy: float | None = None
    accuracy_lower: float | None = None
    """One-sided 95 % bound, on the worse side."""
    drop: float | None = None
    """How far the metric is below the source's on the same samples, in its unit (.01: a point)."""
    certificate: Certificate | None = None
    """What is certain of the drop; None where it is beyond the limit."""
    load_ms: float | None = None
    """Without the import of the runtime."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    peak_rss_mb: float | None = None
    """Of the whole process, in MB (10^6 bytes), and likewise the next two."""
    loading_rss_mb: float | None = None
    """The peak until the model was loaded."""
    steady_rss_mb: float | None = None
    """After the last run."""
    float_layers: tuple[str, ...] = ()
    """Layers of a ``mixed`` one that stayed float, by the target's names."""
    missed: tuple[str, ...] = ()
    """The limits that it is beyond: ``latency 23.4 ms (at most 20 ms)``."""
    front: bool = False
    """It passed, and none that passed is better in one of latency, accuracy and bytes and no worse
    in the others."""
    step: str = ""
    """What its float layers brought over the one before."""
    not_checked: str = ""
    note: str = ""
    """Why it is not chosen, or not measured, or that it is slower than float here."""


class Refusal(Event, frozen=True, kw_only=True, tag="refusal"):
    """A target of which there is no artifact: a row of ``refused`` in the JSON document."""

    target: str
    reason: str
    remedy: str = ""
    precision: Precision | None = None


class Difference(Event, frozen=True, kw_only=True, tag="difference"):
    """A member of a bundle that came out otherwise when it was made again."""

    member: str
    bytes: int = 0
    bytes_now: int = 0
    first: int = -1
    """Offset of the first byte that differs."""
    fields: tuple[str, ...] = ()
    """Of the manifest, those that differ."""


class Cause(Event, frozen=True, kw_only=True, tag="cause"):
    """What explains differences."""

    kind: str
    """``model``, ``calibration samples``, ``tools``, ``machine``, …; ``nothing``."""
    text: str


class LayerNoise(msgspec.Struct, frozen=True, kw_only=True):
    """A row of :class:`Collapse`."""

    name: str
    operator: str
    """As the target calls it."""
    module: str = ""
    line: str = ""
    shape: tuple[int, ...] = ()
    snr_db: float | None = None
    """Of what the layer makes; None where it differs in nothing from the float artifact."""
    input_snr_db: float | None = None
    """The lowest of what it reads."""
    first: bool = False
    """It is the first bad one, below 10 dB; none is where no layer is."""
    most: bool = False
    """Most of the noise arises in it."""


class Collapse(Event, frozen=True, kw_only=True, tag="collapse"):
    """Where an integer artifact that failed its check loses the signal."""

    target: str
    precision: Precision
    text: str
    """The first bad layer, for people."""
    layers: tuple[LayerNoise, ...]
    """Those that add most noise, in the order in which they run."""
    compared: int = 0
    """How many layers there are."""


class Parted(Event, frozen=True, kw_only=True, tag="parted"):
    """Where the outputs of a float artifact that failed its check first part from the source's."""

    target: str
    precision: Precision
    text: str
    output: str
    """The output that differs most."""
    sample: int
    """The first sample in which it does."""
    index: tuple[int, ...]
    """Of the element that differs most there."""
    source: float | None = None
    """The source's value; None where it is not finite."""
    artifact: float | None = None
    layer: str = ""
    """The first layer of the source whose values are not found in the artifact."""
    module: str = ""
    line: str = ""


class Failure(Event, frozen=True, kw_only=True, tag="failure"):
    """The end, without a bundle: an :class:`~edgeml.errors.EdgemlError` to be shown."""

    error: str
    """Name of the class in :mod:`edgeml.errors`; ``Exception`` for a fault of ours."""
    found: str
    expected: str = ""
    remedy: str = ""
    log: str = ""
    """Path of the log file where it says more than the error; empty where it does not."""
    status: int = 1


class Done(Event, frozen=True, kw_only=True, tag="done"):
    """The end, with a bundle."""

    bundle: str
    """Absolute path."""
    name: str
    version: str
    bytes: int
    """Of the bundle."""
    source_accuracy: float | None = None
    """Of the source model on the evaluation samples."""
    metric: str = ""
    """What that is."""
    samples: int = 0
    """How many samples the artifacts were checked on."""
    machine: str = ""
    isa: str = ""
    seconds: float = 0.0
    converted: float | None = None
    """Seconds until the last artifact was converted, of ``seconds``; the rest is proof, measurement
    and packing. None where that took turns, as in a search, and of a bundle made before."""
    log: str = ""
    status: int = 0
    """0 where every target was made, 1 where one was refused or is within no limits."""
    cached: bool = False
    """The bundle is one that was made before."""


AnyEvent = (
    Started
    | Stage
    | Progress
    | Note
    | Row
    | Refusal
    | Collapse
    | Parted
    | Failure
    | Done
    | Difference
    | Cause
)


def encode_event(event: Event) -> bytes:
    """One line, newline included."""
    return msgspec.json.encode(event) + b"\n"


def decode_event(line: bytes) -> AnyEvent:
    """Read a line that :func:`encode_event` wrote.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return _DECODER.decode(line)


_DECODER = json_decoder(AnyEvent)

if __name__ == "__main__":
    sys.stdout.buffer.write(json_schema(AnyEvent))
