"""What an export is asked to do: one JSON document on the standard input of ``edgeml.exporter``.

The command line makes it, perhaps in another environment than the one that reads it, so it holds
nothing but words and numbers: MODEL and DATA as the user wrote them, relative to the working
directory.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edgeml.bundle.manifest import Precision
from edgeml.decoding import from_json, from_plain
from edgeml.errors import UsageError

Choice = Literal[
    "auto",
    "fp32",
    "fp16",
    "int8",
    "int8-dynamic",
    "int16x8",
    "int8-weights",
    "int4-weights",
    "mixed",
]
"""``auto`` makes fp32 and int8 and keeps for each target the one that measured best; with limits it
searches all precisions."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an artifact must keep within; None where it does not matter."""

    accuracy_drop: float | None = None
    """Largest loss of the metric against the source model, in its unit (.01 is one point)."""
    latency_ms: float | None = None
    """Of the median."""
    memory_mb: float | None = None
    """Peak resident set of the whole process that runs it, runtime included, in MB (10^6 bytes):
    what a device must have free, and what the agent enforces."""
    size_bytes: int | None = None
    """Of all files of the artifact."""

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self != Limits()


class ToleranceOverride(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A user's change to the tolerance of one precision; None leaves the default."""

    cosine: float | None = None
    """Least cosine to the source model, −1 to 1."""
    agreement: float | None = None
    """Least share of samples with the same decision, 0 to 1."""


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An export, as asked for."""

    model: str
    """``FILE.py:FACTORY``, ``.pt2``, ``.onnx``, ``.keras``, ``.h5`` or a SavedModel folder."""
    targets: tuple[str, ...]
    calibration: str | None = None
    """``FILE.npz``, ``FILE.npy`` or ``FILE.py:ITERABLE``."""
    evaluation: str | None = None
    """Likewise, with ``labels`` for an accuracy."""
    precision: Choice = "auto"
    name: str = ""
    """Of the model in the bundle; empty: made from MODEL's file name."""
    version: str = "0.1.0"
    output: str = "."
    """A file that ends in ``.edgeml``, or a folder, which is made where it does not exist."""
    tolerances: dict[Precision, ToleranceOverride] = {}
    deadline_ms: float | None = None
    memory_mb: float | None = None
    seed: int = 0
    """Of every draw: of the samples that are held back to check, and of their order."""
    limits: Limits = Limits()
    metric: str = ""
    """``top-1``, ``auc``, ``mse``, ``f1``, ``agreement`` or ``FILE.py:FUNCTION``; empty: top-1 with
    labels, agreement without."""
    confidence: float = 0.95
    """Of the certificate."""
    preprocessing: str = ""
    """A TOML file that declares what the artifacts do to the raw input first; empty: nothing."""
    shapes: dict[str, tuple[int, ...]] = {}
    """Input name to shape, for a model that leaves axes open; -1 keeps one open."""
    statistics: dict[str, str] = {}
    """Input name to the family of statistics that is counted of it, or ``none``; other inputs have
    that of their meaning."""
    python: str = ""
    """Path of the interpreter that a factory runs in; empty: the toolchain's own."""
    trust: bool = False
    """Whether a pickle may be opened, which can run any code."""
    devices: tuple[str, ...] = ()
    """Device profiles that stood among the targets."""
    report: str = ""
    """A ``.png`` or ``.html`` to draw the Pareto front to; empty: none."""
    minimize: str = ""
    """An ``.onnx`` to write the smallest model to that shows a refusal; empty: none."""
    cache: bool = True
    """Whether what was made before may be taken again."""

    @property
    def searching(self) -> bool:
        """Whether candidates are tried one after another: there are limits, or layers to find that
        stay float."""
        return self.limits.any or self.precision == "mixed"


def check_amounts(request: ExportRequest) -> None:
    """Refuse budgets and limits that nothing could keep to. Where they were written down: JSON has
    no NaN, and would make nothing asked for of it.

    Raises:
        UsageError: one is not more than nothing, or not finite.
    """
    limits = request.limits
    amounts = {
        "--deadline-ms": request.deadline_ms,
        "--memory-mb": request.memory_mb,
        "--max-latency": limits.latency_ms,
        "--max-memory": limits.memory_mb,
        "--max-size": limits.size_bytes,
    }
    for flag, amount in amounts.items():
        if amount is not None and not 0 < amount < math.inf:
            raise UsageError(f"{flag} is {amount:g}", expected="more than nothing, and finite")
    drop = limits.accuracy_drop
    if drop is not None and not 0 <= drop <= 1:
        raise UsageError(
            f"--max-accuracy-drop is {drop:g}",
            expected="a share from 0 to 1: .01 is one point",
        )


class Reproduction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle to be made again from its ``edgeml.lock``, and compared."""

    bundle: str
    model: str = ""
    """Where MODEL is now; empty: where it was."""
    calibration: str = ""
    evaluation: str = ""
    output: str = ""
    """A file to keep the new bundle in; empty: it is not kept."""


def decode_request(data: bytes) -> ExportRequest | Reproduction:
    """Read a request; one that names a bundle is a :class:`Reproduction`.

    Raises:
        UsageError: it is none.
    """
    try:
        names = from_json(data, dict[str, msgspec.Raw])
        kind = Reproduction if "bundle" in names else ExportRequest
        return from_json(data, kind)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"The export request cannot be read: {error}",
            expected="one JSON document of edgeml.exporter.request.ExportRequest on standard input",
            remedy="The command line and the toolchain may be of different versions: "
            "`edgeml toolchain remove export` and try again.",
        ) from error


def parse_tolerance(text: str) -> tuple[Precision, ToleranceOverride]:
    """Read a tolerance as it is written on the command line: ``int8:cosine=.95,agreement=.9``.

    Raises:
        UsageError: it is written otherwise, or a number is out of range.
    """
    wrong = UsageError(
        f"{text!r} is no tolerance",
        expected="PRECISION:cosine=NUMBER[,agreement=NUMBER], such as int8:cosine=.95,agreement=.9",
        remedy="A cosine lies between -1 and 1, an agreement between 0 and 1.",
    )
    precision, colon, rest = text.partition(":")
    fields: dict[str, float] = {}
    for part in rest.split(","):
        key, _, number = part.strip().partition("=")
        try:
            fields[key] = float(number)
        except ValueError:
            raise wrong from None
    lowest = {"cosine": -1.0, "agreement": 0.0}
    if not colon or any(not lowest.get(key, 2.0) <= value <= 1 for key, value in fields.items()):
        raise wrong
    try:
        return (
            from_plain(precision, Precision),
            from_plain(fields, ToleranceOverride),
        )
    except msgspec.ValidationError:
        raise wrong from None
