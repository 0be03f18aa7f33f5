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


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What converts, and where."""

    edgeml: str
    """Hash of edgeml's own code, as far as it decides what is made."""
    python: str
    platform: str
    tools: dict[str, str]
    """Everything installed where the converters are: name and version."""
    machine: str
    isa: str


class Given(msgspec.Struct, frozen=True):
    """A file or folder of a request."""

    place: str
    """Of code, which finds other files by it; else empty."""
    sha256: str


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what an export gives, but for what its code reads."""

    request: dict[str, Any]
    """As it was :func:`asked`."""
    beside: tuple[str, bool]
    """Of the report the suffix, and whether the smallest model is wanted: a bundle made without
    them is not all that one with them gives."""
    given: dict[str, Given]
    """By the request's field."""
    folder: str
    """Where code runs; empty without any."""
    theirs: dict[str, str]
    """What stands in the interpreter that runs a factory; empty where it is our own."""
    here: Environment

    @property
    def key(self) -> str:
        """What the export is found by."""
        return _digest(self)


def basis(request: ExportRequest) -> Basis | None:
    """What an export hangs on; None where it cannot be told, since a file is missing.

    MODEL, DATA and the other files count by what is in them. Where code is among them its path and
    the working directory count too, since code finds other files by them.
    """
    given: dict[str, Given] = {}
    code = False
    for field in NAMED:
        text: str = getattr(request, field) or ""
        path, is_code = named_path(text)
        if path is None:
            if field in ("preprocessing", "metric") or not text:
                continue
            return None
        try:
            given[field] = Given(str(path.resolve()) if is_code else "", file_hash(path))
        except OSError:
            return None
        code = code or is_code
    return Basis(
        request=asked(request),
        beside=(Path(request.report).suffix, bool(request.minimize)),
        given=given,
        folder=os.getcwd() if code else "",  # noqa: PTH109
        theirs=theirs(request.python),
        here=environment(),
    )


def environment() -> Environment:
    """This one."""
    return Environment(
        edgeml=own_code(),
        python=platform.python_version(),
        platform=_platform(),
        tools=distributions(),
        machine=machine.processor(),
        isa=machine.isa(),
    )


def asked(request: ExportRequest) -> dict[str, Any]:
    """A request as plain fields, without where its results go."""
    fields = from_json(msgspec.json.encode(request), dict[str, Any])  # lists, as they come back
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
        fields["bridge"] = installed(bridge)
    for name, value in fields.items():
        if isinstance(value, Path):
            fields[name] = content(value)
    isa = machine.isa() if measured else ""
    made_by = (own_code(_CONVERTING), distributions(), platform.python_version(), _platform())
    return _digest({"target": target, "job": fields, "isa": isa, "by": made_by})


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


def installed(python: Path) -> dict[str, str]:
    """Likewise, of a toolchain.

    Args:
        python: its interpreter.
    """
    return distributions([str(folder) for folder in site_packages(python)])


def site_packages(python: Path) -> list[Path]:
    """The folders of a toolchain's distributions."""
    return list(python.parents[1].glob("lib/python*/site-packages"))


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


@cache
def theirs(python: str) -> dict[str, str]:
    """What stands in the interpreter that runs a factory, ``python`` itself among it.

    Args:
        python: its path; empty for our own, of which nothing is told here.
    """
    if not python:
        return {}
    # Without what a -P would keep out, which only Python 3.11 knows: the working directory's files.
    code = "import sys; sys.path = [p for p in sys.path if p]; import json; "
    code += "print(json.dumps([sys.version, sys.path]))"
    try:
        said = subprocess.run([python, "-c", code], capture_output=True, check=True).stdout
        version, folders = from_json(said, tuple[str, list[str]])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return {"python": "unknown"}
    return {"python": version.replace("\n", ""), **distributions(folders)}


def _platform() -> str:
    return f"{sys.platform} {platform.machine()}"


def _digest(document: object) -> str:
    return hashlib.sha256(msgspec.json.encode(document, order="sorted", enc_hook=str)).hexdigest()
