"""What the cache's keys are made of: all that decides what an export, or a conversion, gives.

Light: an export that was made before is answered from here, and nothing heavy is imported for it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import edgeml
from edgeml import machine
from edgeml.decoding import from_json
from edgeml.exporter.repeat.dependencies import file_hash
from edgeml.exporter.request import ExportRequest

_WHERE_IT_GOES = ("output", "report", "minimize", "cache")
"""Fields of a request that change nothing in a bundle."""

NAMED = ("model", "calibration", "evaluation", "preprocessing", "metric")
"""Fields of a request that may name a file or a folder."""

_CODE = (
    "edgeml/bundle",
    "edgeml/data",
    "edgeml/data.py",
    "edgeml/statistics",
    "edgeml/exporter",
    "edgeml/targets",
    "edgeml/toolchain/constraints",
)
_CONVERTING = ("edgeml/targets",)

_UNSTABLE = frozenset({"fingerprint.pb"})
"""TensorFlow puts a random number into this file of a SavedModel and reads it for nothing else."""


def export_key(request: ExportRequest) -> str:
    """Of a whole export; empty where it cannot be told, since a file is missing.

    MODEL, DATA and the other files count by what is in them. Where code is among them its path and
    the working directory count too, since code finds other files by them.
    """
    files: dict[str, Any] = {}
    code = False
    for field in NAMED:
        text: str = getattr(request, field) or ""
        path, is_code = named_path(text)
        if path is None:
            if field in ("preprocessing", "metric") or not text:
                continue
            return ""
        try:
            files[field] = (str(path.resolve()) if is_code else "", file_hash(path))
        except OSError:
            return ""
        code = code or is_code
    return _digest(
        {
            "request": asked(request),
            # A bundle made without a report is not all that one with a report gives.
            "beside": (Path(request.report).suffix, bool(request.minimize)),
            "files": files,
            "folder": os.getcwd() if code else "",  # noqa: PTH109
            "theirs": _their_environment(request.python),
            **_here(_CODE),
            "isa": machine.isa(),
            "machine": machine.processor(),
        }
    )


def asked(request: ExportRequest) -> dict[str, Any]:
    """A request as plain fields, without where its results go."""
    fields = msgspec.to_builtins(request)
    return {name: value for name, value in fields.items() if name not in _WHERE_IT_GOES}


def named_path(text: str) -> tuple[Path | None, bool]:
    """The file or folder that MODEL, DATA or the like names, and whether it is code."""
    head, colon, _ = text.rpartition(":")
    if colon and head.endswith(".py"):
        return (Path(head) if Path(head).is_file() else None), True
    path = Path(text)
    return (path if text and path.exists() else None), path.suffix in (".pt", ".pth", ".joblib")


def conversion_key(target: str, job: msgspec.Struct) -> str:
    """Of one conversion.

    Args:
        target: its target.
        job: an :class:`edgeml.targets.compiling.CompileJob`. Paths in it count by what they hold,
            but for ``workdir``, which counts for nothing. float32 and float16 need no samples and
            hang on no instruction set; ranges that were measured do, in their last digits.
    """
    fields: dict[str, Any] = msgspec.structs.asdict(job)
    del fields["workdir"]
    measured = fields["precision"] not in ("fp32", "fp16")
    if not measured:
        fields["calibration"] = None
    bridge = fields.pop("bridge", None)
    if bridge is not None:  # another environment's interpreter, which has a part in it
        fields["bridge"] = distributions([str(f) for f in bridge.parents[1].glob("lib/python*/*")])
    for name, value in fields.items():
        if isinstance(value, Path):
            fields[name] = content(value)
    isa = machine.isa() if measured else ""
    return _digest({"target": target, "job": fields, "isa": isa, **_here(_CONVERTING)})


@cache
def content(path: Path) -> str:
    """The hash of a file or folder that no longer changes during this export."""
    return file_hash(path, without=_UNSTABLE)


def distributions(folders: Sequence[str] | None = None) -> dict[str, str]:
    """Name and version of everything installed in an environment.

    From the names of the folders that pip writes, which is a hundred times as fast as their
    content.

    Args:
        folders: the environment's ``sys.path``; None: this one's.
    """
    found: dict[str, str] = {}
    for folder in reversed(sys.path if folders is None else folders):
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - names are all that is wanted
        except OSError:
            continue
        for name in names:
            stem, dot, _ = name.rpartition(".dist-info")
            if dot:
                project, _, version = stem.partition("-")
                found[project.replace("_", "-").lower()] = version
    return dict(sorted(found.items()))


@cache
def own_code(parts: tuple[str, ...] = _CODE) -> str:
    """The hash of edgeml's own code, as far as it decides what is made."""
    root = Path(edgeml.__file__).parents[1]
    digest = hashlib.sha256()
    for part in parts:
        for file in sorted(_sources(root / part)):
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _sources(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return [file for file in path.glob("**/*") if file.suffix in (".py", ".toml", ".txt")]


def _here(parts: tuple[str, ...]) -> dict[str, Any]:
    return {
        "edgeml": own_code(parts),
        "distributions": distributions(),
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


def _their_environment(python: str) -> Any:
    """What stands in the interpreter that runs a factory; None where it is our own."""
    if not python:
        return None
    code = "import json, sys; print(json.dumps([sys.version, sys.path]))"
    try:
        said = subprocess.run(
            [python, "-P" if sys.version_info >= (3, 11) else "-I", "-c", code],
            capture_output=True,
            check=True,
        ).stdout
        version, folders = from_json(said, tuple[str, list[str]])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return python
    return [python, version, distributions(folders)]


def _digest(document: object) -> str:
    return hashlib.sha256(msgspec.json.encode(document, order="sorted", enc_hook=str)).hexdigest()
