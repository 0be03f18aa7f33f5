"""What a bundle says of itself: the structs behind ``manifest.json``.

One schema in code; ``python -m edgeml.bundle`` prints it as JSON Schema for docs/. A reader refuses
an unknown *major* schema before it looks at anything else, and ignores fields that a newer *minor*
one added.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from edgeml.decoding import from_json
from edgeml.errors import BundleError

SCHEMA = "1.2"
"""Major.minor. The major number changes when an older reader would misread a bundle."""

Precision = Literal[
    "fp32", "fp16", "int8", "int8-dynamic", "int16x8", "int8-weights", "int4-weights", "mixed"
]
"""``int8`` is static: activations in int8 too, by ranges measured on samples; ``int8-dynamic``
takes the ranges while it runs. ``int16x8`` has 16 bits in the activations, ``…-weights`` floats.
``mixed`` is ``int8`` but for the layers in :attr:`Artifact.float_layers`."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Meaning = Literal["image", "audio", "features", "embedding", "scores", "tensor"]


class Tensor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output of the model, under the source model's own name."""

    name: str
    shape: tuple[int, ...]
    """With the batch axis, which is 1 in every artifact."""
    dtype: str
    """A NumPy name, such as ``float32``."""
    meaning: Meaning = "tensor"
    layout: str = ""
    """Axis letters of an image, ``NCHW`` or ``NHWC``; empty for anything else."""
    feature_names: tuple[str, ...] = ()
    missing: bool = False
    """Whether NaN stands for a value that is missing: some samples had it, the source model
    answered them with finite numbers, and the artifacts were checked on them."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of preprocessing. A reader refuses a bundle with a step *outside* its artifacts
    that it does not know (schema 1 defines none); those inside need nothing of it."""

    name: str
    parameters: dict[str, Any] = {}


class File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member of the archive."""

    path: str
    sha256: str
    bytes: int


class Requirement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an artifact needs of the device that is to run it."""

    packages: tuple[str, ...]
    """Python distributions of which any one will do, the preferred one first."""
    options: dict[str, str] = {}
    """Options for the runtime; for an ONNX Runtime execution provider, its provider options."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Latency and memory of an artifact in a fresh process, on the machine that exported it."""

    machine: str
    isa: str
    """The widest instruction set relevant to inference, such as ``avx512_vnni``."""
    threads: int
    samples: int
    load_ms: float
    """From the file to a session that can run, in a process that has imported the runtime."""
    p50_ms: float
    p99_ms: float
    peak_rss_mb: float
    """Peak resident set of the whole process, runtime and model included, in MB (10^6 bytes)."""
    loading_rss_mb: float | None = None
    """The peak until the model was loaded; None where it was not told apart."""
    steady_rss_mb: float | None = None
    """Resident set after the last run."""
    cores: int | None = None
    """How many the process was pinned to; None where it could not be."""
    turns_ms: tuple[float, ...] = ()
    """Medians of the turns that it took with others of its target, which :attr:`p50_ms` and
    :attr:`p99_ms` are of: those of one number are within milliseconds of each other. Empty where it
    was measured alone."""


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A metric on the evaluation samples, with a one-sided confidence bound."""

    metric: str
    value: float
    lower: float
    """The bound on the worse side: for ``mse``, of which less is better, it lies above."""
    confidence: float
    samples: int


class Certificate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is certain of the loss against the source model, from paired outcomes."""

    metric: str
    """``top-1``, say, or ``agreement`` where there are no labels."""
    drop: float
    """On the evaluation samples the metric drops by at most this much, in its unit (.01 is one
    point)…"""
    confidence: float
    """… with this confidence, at whatever sample the test stopped; for certain where it saw all."""
    samples: int
    """How many of the evaluation samples the test saw."""
    method: str
    """``betting`` (anytime-valid), or ``bootstrap`` for a metric that is no mean."""
    population: int
    """How many evaluation samples there are."""
    beyond: float
    """On new samples like these, it drops by at most this much with the same confidence; 1 where
    the samples are too few to say."""


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What parity with the source model an artifact had to reach."""

    cosine: float
    agreement: float | None = None


class Parity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How near an artifact comes to the source model on held-back samples."""

    cosine: float
    """Smallest over outputs of the cosine between all source and all artifact values."""
    max_abs: float
    """Largest absolute difference over outputs, samples and elements, in the output's unit."""
    samples: int
    tolerance: Tolerance
    agreement: float | None = None
    """Share of samples with the same decision (arg max, or the side of the threshold for a single
    column); None where the output is no decision."""


class Artifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The model in a form that one target runs."""

    id: str
    """``target-precision``, unique in its bundle."""
    target: str
    precision: Precision
    files: tuple[File, ...]
    """The first is the one that the runtime opens; the others lie beside it."""
    inputs: dict[str, str]
    """Source name → the name that the runtime knows."""
    outputs: dict[str, str]
    requires: Requirement
    parity: Parity | None = None
    """None where nothing here can run it: see ``not_checked``."""
    not_checked: str = ""
    """Why ``parity`` is missing, and what was checked in its place."""
    float_layers: tuple[str, ...] = ()
    """Layers of a ``mixed`` artifact that stayed float, by the target's names."""
    certificate: Certificate | None = None
    accuracy: Accuracy | None = None
    measured: Measurement | None = None
    not_measured: str = ""
    """Why ``measured`` is missing."""
    chosen: bool = False
    """The one that measured best for its target."""

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)


class Budgets(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the owner allows the model on a device."""

    deadline_ms: float | None = None
    memory_mb: float | None = None


class SampleSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which data took part, without the data: SHA-256 over all, and a short hash a sample."""

    count: int
    sha256: str
    samples: tuple[str, ...]


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a bundle came from."""

    source_format: str
    source_name: str
    source_sha256: str
    tools: dict[str, str]
    calibration: SampleSet | None = None
    evaluation: SampleSet | None = None
    source_accuracy: Accuracy | None = None
    """The source model itself, on the same evaluation samples."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``manifest.json``, the first member of a bundle."""

    name: str
    version: str
    created: str
    """RFC 3339, UTC."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    artifacts: tuple[Artifact, ...]
    golden: File
    provenance: Provenance
    baseline: File | None = None
    """None where the model was exported without calibration data: no statistics then."""
    budgets: Budgets = Budgets()
    preprocessing: tuple[Step, ...] = ()
    inside: tuple[Step, ...] = ()
    """Preprocessing that every artifact does itself, for people to read: inputs are raw."""
    devices: tuple[str, ...] = ()
    """Device profiles that the bundle was made for."""
    lock: File | None = None
    """``edgeml.lock``: all that is needed to make the bundle again."""
    schema: str = msgspec.field(default=SCHEMA)

    def files(self) -> list[File]:
        """Every member of the archive but the manifest itself."""
        found = [file for artifact in self.artifacts for file in artifact.files]
        others = (self.golden, self.baseline, self.lock)
        return [*found, *(file for file in others if file is not None)]

    def artifact(self, key: str) -> Artifact:
        """The artifact with this id, or else the best one of this target.

        Raises:
            BundleError: there is neither.
        """
        by_id = {artifact.id: artifact for artifact in self.artifacts}
        if key in by_id:
            return by_id[key]
        of_target = [artifact for artifact in self.artifacts if artifact.target == key]
        if not of_target:
            raise BundleError(
                f"{self.name} {self.version} holds no artifact '{key}'",
                expected=f"one of {', '.join(by_id)}",
                remedy="Export the model for that target, or name one of these.",
            )
        return next((artifact for artifact in of_target if artifact.chosen), of_target[0])


class _Head(msgspec.Struct):
    schema: str


def encode_manifest(manifest: Manifest) -> bytes:
    """Indented JSON: a person may open it. ``schema`` always stands in it, and first."""
    fields = msgspec.to_builtins(manifest)
    return msgspec.json.format(msgspec.json.encode({"schema": manifest.schema, **fields}), indent=2)


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: it is no JSON, lacks a field, or has another major schema.
    """
    try:
        found = from_json(data, _Head).schema
    except msgspec.DecodeError as error:
        raise BundleError(
            f"manifest.json cannot be read: {error}",
            expected="a JSON object with a field 'schema'",
            remedy="The file is no edgeml bundle, or it was damaged on its way: fetch it again.",
        ) from error
    if found.split(".")[0] != SCHEMA.split(".", maxsplit=1)[0]:
        raise BundleError(
            f"the bundle has manifest schema {found}",
            expected=f"schema {SCHEMA.split('.', maxsplit=1)[0]}.x, which this edgeml reads",
            remedy="Update edgeml here, or export the model again with this version.",
        )
    try:
        manifest = from_json(data, Manifest)
    except msgspec.DecodeError as error:
        raise BundleError(
            f"manifest.json does not keep to its schema: {error}",
            expected=f"manifest schema {SCHEMA}",
            remedy="Export the model again.",
        ) from error
    if manifest.preprocessing:
        names = ", ".join(step.name for step in manifest.preprocessing)
        raise BundleError(
            f"the bundle asks for preprocessing that this edgeml does not know: {names}",
            expected="no step outside the artifact",
            remedy="Update edgeml here: a model that gets other input than it was trained on is "
            "wrong without any sign of it.",
        )
    return manifest
