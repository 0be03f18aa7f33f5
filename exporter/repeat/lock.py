"""``edgeml.lock``: what a bundle was made from and by, so that it can be made again.

It holds the request as asked, the hashes of the source, of the files that its code read and of the
samples, the recipe of each artifact, the versions of everything installed beside the converters,
seeds and the machine. What was measured is in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgeml.bundle import Provenance
from edgeml.bundle.manifest import Precision
from edgeml.decoding import from_json, from_plain
from edgeml.errors import BundleError
from edgeml.exporter.repeat import keys
from edgeml.exporter.repeat.dependencies import ABSENT, file_hash, state
from edgeml.exporter.request import ExportRequest

SCHEMA = "1"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one artifact was converted."""

    id: str
    target: str
    precision: Precision
    keep_float: tuple[str, ...] = ()
    """Layers of a ``mixed`` one that stayed float."""


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Samples that took part."""

    count: int
    sha256: str
    """Over the values, as in the manifest: not of a file."""


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The member ``edgeml.lock``, as JSON."""

    schema: str = SCHEMA
    request: dict[str, Any]
    """An :class:`~edgeml.exporter.request.ExportRequest`, but for where its results go. Paths in
    the user's home begin with ``~``."""
    source: dict[str, str]
    """MODEL and the other files of the request, by field: SHA-256 of each file or folder."""
    dependencies: dict[str, str] = {}
    """Files that the code of the request read outside the environment, and their SHA-256."""
    calibration: Samples | None = None
    evaluation: Samples | None = None
    seed: int = 0
    targets: tuple[str, ...] = ()
    """Those that something was made for."""
    artifacts: tuple[Recipe, ...] = ()
    edgeml: str
    """Hash of edgeml's own code, as far as it decides what is made."""
    python: str
    platform: str
    tools: dict[str, str]
    """Everything installed where the converters are: name and version."""
    theirs: dict[str, str] = {}
    """Everything installed in the interpreter that ran a factory, where that was another one."""
    bridges: dict[str, dict[str, str]] = {}
    """Everything installed in the other toolchains that conversions went through, by target."""
    machine: str
    isa: str

    @property
    def here(self) -> keys.Environment:
        """What converted, and where."""
        return keys.Environment(
            edgeml=self.edgeml,
            python=self.python,
            platform=self.platform,
            tools=self.tools,
            machine=self.machine,
            isa=self.isa,
        )


def hashes(request: ExportRequest) -> dict[str, str]:
    """SHA-256 of each file and folder that a request names, by its field: takes long."""
    return {field: file_hash(path) for field, path in _named(request).items()}


def _named(request: ExportRequest) -> dict[str, Path]:
    paths = {field: keys.named_path(getattr(request, field) or "")[0] for field in keys.NAMED}
    return {field: path for field, path in paths.items() if path is not None}


def draft(
    request: ExportRequest,
    targets: Iterable[str],
    dependencies: Iterable[str],
    *,
    source: Mapping[str, str],
    bridges: Mapping[str, Path],
) -> Lock:
    """A lock without samples and artifacts.

    Args:
        request: as asked.
        targets: those that something was made for.
        dependencies: paths of what code read.
        source: its :func:`hashes`.
        bridges: interpreters of other toolchains that conversions went through, by target.
    """
    fields = keys.asked(request)
    named = _named(request)
    fields |= {field: _short(fields[field]) for field in named}
    given = {path.resolve() for path in named.values()}
    files = {
        name: state(name)
        for name in dependencies
        if not name.endswith("/") and given.isdisjoint((Path(name), *Path(name).parents))
    }
    return Lock(
        request=fields,
        source=dict(source),
        dependencies={_short(name): found for name, found in files.items() if found != ABSENT},
        seed=request.seed,
        targets=tuple(targets),
        theirs=keys.theirs(request.python),
        bridges={target: keys.installed(python) for target, python in bridges.items()},
        **msgspec.structs.asdict(keys.environment()),
    )


def complete(lock: Lock, provenance: Provenance, artifacts: Iterable[Recipe]) -> bytes:
    """The member's content."""

    def samples(found: Any) -> Samples | None:
        return None if found is None else Samples(count=found.count, sha256=found.sha256)

    whole = msgspec.structs.replace(
        lock,
        calibration=samples(provenance.calibration),
        evaluation=samples(provenance.evaluation),
        artifacts=tuple(artifacts),
    )
    return msgspec.json.format(msgspec.json.encode(whole, order="deterministic"), indent=2)


def decode(data: bytes) -> Lock:
    """Read a lock.

    Raises:
        BundleError: it is none that this version reads.
    """
    try:
        found = from_json(data, Lock)
    except msgspec.DecodeError as error:
        raise BundleError(
            f"edgeml.lock cannot be read: {error}", expected=f"a lock of schema {SCHEMA}"
        ) from error
    if found.schema != SCHEMA:
        raise BundleError(
            f"edgeml.lock has schema {found.schema}",
            expected=f"schema {SCHEMA}, which this edgeml reads",
            remedy="Use the edgeml that made the bundle.",
        )
    return found


def request_again(lock: Lock, changes: Mapping[str, str]) -> ExportRequest:
    """The request that a lock records, with other paths for some of its files.

    Raises:
        BundleError: this version does not know all that was asked for.
    """
    fields = {**lock.request, **{name: text for name, text in changes.items() if text}}
    for name in keys.NAMED:
        text = fields.get(name)
        if isinstance(text, str) and text.startswith("~/"):
            fields[name] = f"{Path.home()}{text[1:]}"
    try:
        return from_plain(fields, ExportRequest)
    except msgspec.ValidationError as error:
        raise BundleError(
            f"The request in edgeml.lock cannot be read: {error}",
            expected="one that this edgeml knows",
            remedy="Use the edgeml that made the bundle.",
        ) from error


def _short(text: str) -> str:
    home = f"{Path.home()}/"
    return f"~/{text.removeprefix(home)}" if text.startswith(home) else text
