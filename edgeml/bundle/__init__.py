"""The bundle contract: the exporter writes it, the device agent and the collector read it.

What reads and writes archives is imported when it is first asked for: the manifest alone needs no
NumPy, which takes a fifth of a second to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeml.bundle.manifest import (
    SCHEMA,
    Accuracy,
    Artifact,
    Budgets,
    Certificate,
    File,
    Manifest,
    Measurement,
    Parity,
    Precision,
    Provenance,
    Requirement,
    SampleSet,
    Tensor,
    Tolerance,
)

if TYPE_CHECKING:
    from edgeml.bundle.archive import (
        SUFFIX,
        Bundle,
        Golden,
        describe,
        encode_golden,
        open_bundle,
        read_manifest,
        write_bundle,
    )

__all__ = [
    "SCHEMA",
    "SUFFIX",
    "Accuracy",
    "Artifact",
    "Budgets",
    "Bundle",
    "Certificate",
    "File",
    "Golden",
    "Manifest",
    "Measurement",
    "Parity",
    "Precision",
    "Provenance",
    "Requirement",
    "SampleSet",
    "Tensor",
    "Tolerance",
    "describe",
    "encode_golden",
    "open_bundle",
    "read_manifest",
    "write_bundle",
]

_ARCHIVE = {
    "SUFFIX",
    "Bundle",
    "Golden",
    "describe",
    "encode_golden",
    "open_bundle",
    "read_manifest",
    "write_bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _ARCHIVE:
        raise AttributeError(f"module 'edgeml.bundle' has no attribute {name!r}")
    return getattr(import_module("edgeml.bundle.archive"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ARCHIVE])
