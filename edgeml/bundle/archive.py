"""The bundle as a file: a zip archive whose members are stored, not deflated.

Stored, so that a runtime can map a member where it lies; ``manifest.json`` first, so that one read
of the head tells what the rest is. Writing is atomic and the same content gives the same bytes.
Opening checks every member against the manifest before anything is handed out.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Artifact, File, Manifest, decode_manifest, encode_manifest
from edgeml.errors import BundleError
from edgeml.npz import encode_npz

if TYPE_CHECKING:
    from edgeml.statistics.baseline import Baseline

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
BASELINE = "baseline.json"
LOCK = "edgeml.lock"
SUFFIX = ".edgeml"

MAX_MANIFEST_BYTES = 16 * 2**20
"""A manifest is some kilobytes; this bounds what a hostile archive can make a reader take in."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20

Arrays = dict[str, NDArray[np.generic]]


class Golden(msgspec.Struct, frozen=True):
    """Inputs and what the source model made of them, to prove an artifact on a device.

    Both map a tensor's source name to an array whose first axis is samples.
    """

    inputs: Arrays
    outputs: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Bundle:
    """An open bundle whose every member has the hash that the manifest names.

    Made by :func:`open_bundle`.
    """

    def __init__(self, path: Path, manifest: Manifest, sha256: str) -> None:
        self.path = path
        self.manifest = manifest
        self.sha256 = sha256
        """Of the whole archive: what a device reports as running."""

    def read(self, member: str) -> bytes:
        """The content of one member."""
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(member)

    def golden(self) -> Golden:
        """The golden vectors."""
        inputs: Arrays = {}
        outputs: Arrays = {}
        with np.load(io.BytesIO(self.read(GOLDEN)), allow_pickle=False) as arrays:
            for key in arrays.files:
                side, _, name = key.partition("/")
                {"inputs": inputs, "outputs": outputs}[side][name] = arrays[key]
        return Golden(inputs, outputs)

    def baseline(self) -> Baseline | None:
        """The statistics of the calibration data, or None where there was none."""
        from edgeml.statistics.baseline import Baseline  # an agent without a model has none

        return Baseline.decode(self.read(BASELINE)) if self.manifest.baseline else None

    def extract(self, artifact: Artifact, folder: Path) -> Path:
        """Write an artifact's files under ``folder`` and return the one that the runtime opens."""
        for file in artifact.files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(file.path))
        return folder / artifact.files[0].path


def encode_golden(golden: Golden) -> bytes:
    """Golden vectors as the content of their member."""
    arrays = {f"inputs/{name}": array for name, array in golden.inputs.items()}
    arrays |= {f"outputs/{name}": array for name, array in golden.outputs.items()}
    return encode_npz(arrays)


def describe(path: str, content: bytes) -> File:
    """The manifest's entry for a member."""
    return File(path=path, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def write_bundle(path: Path, manifest: Manifest, members: Mapping[str, bytes]) -> None:
    """Write a bundle in one step: ``path`` holds the whole of it, or what was there before.

    Args:
        path: the archive; its folder must exist.
        manifest: names every member with hash and size (:func:`describe`).
        members: content by member path.

    Raises:
        BundleError: members and manifest differ, or the disk does not take the file.
    """
    named = manifest.files()
    wrong = {file.path for file in named if file.path not in members}
    wrong |= {name for name in members if name not in {file.path for file in named}}
    wrong |= {
        file.path
        for file in named
        if file.path in members and file != describe(file.path, members[file.path])
    }
    if wrong:
        raise BundleError(
            f"manifest and members differ in {', '.join(sorted(wrong))}",
            expected="every member named in the manifest with its own hash and size",
        )
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                    for member, content in {MANIFEST: encode_manifest(manifest), **members}.items():
                        archive.writestr(zipfile.ZipInfo(member, _EPOCH), content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BundleError(
            f"{path} could not be written: {error.strerror or error}",
            expected="a folder that exists, may be written and has room",
            remedy="Nothing was left behind; free some space or choose another place with -o.",
        ) from error


def open_bundle(path: Path) -> Bundle:
    """Open a bundle and check all of it.

    Raises:
        BundleError: the file is missing, no zip archive, has an unknown schema, a member outside
            the archive, one that the manifest does not name (or lacks one), or a changed byte.
    """
    try:
        with path.open("rb") as stream:
            digest = _digest(stream)
            with zipfile.ZipFile(stream) as archive:
                manifest = _checked_manifest(archive, path)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror or error}",
            expected=f"a bundle, a file that ends in {SUFFIX}",
            remedy="Give the path of a file that edgeml export wrote.",
        ) from error
    except (
        zipfile.BadZipFile,
        struct.error,
        EOFError,
        NotImplementedError,
        UnicodeDecodeError,
    ) as error:
        raise BundleError(
            f"{path} is damaged, or no bundle: {error}",
            expected="a complete zip archive as edgeml export writes it",
            remedy="Fetch the file again.",
        ) from error
    return Bundle(path, manifest, digest)


def read_manifest(path: Path) -> Manifest:
    """What a bundle says of itself, nothing of which is checked: for one that was, before.

    Raises:
        BundleError: it is no bundle, or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return decode_manifest(archive.read(MANIFEST))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error


def _checked_manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if not names or names[0] != MANIFEST:
        raise BundleError(
            f"the first member of {path.name} is {names[0] if names else 'missing'}",
            expected=MANIFEST,
            remedy="The file is no edgeml bundle.",
        )
    for name in names:
        if not _stays_inside(name):
            raise BundleError(
                f"member '{name}' of {path.name} leaves the archive",
                expected="relative paths with no '..' in them",
                remedy="Do not use this file: no edgeml wrote it.",
            )
    if infos[0].file_size > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"the manifest of {path.name} has {infos[0].file_size:,} bytes",
            expected=f"at most {MAX_MANIFEST_BYTES:,}",
        )
    manifest = decode_manifest(archive.read(MANIFEST))
    files = {file.path: file for file in manifest.files()}
    if len(set(names)) != len(names) or set(names) != {MANIFEST, *files}:
        odd = sorted({*names} ^ {MANIFEST, *files}) or sorted(
            {n for n in names if names.count(n) > 1}
        )
        raise BundleError(
            f"members and manifest of {path.name} differ in {', '.join(odd)}",
            expected="exactly the members that the manifest names",
            remedy="Fetch the file again; do not use this one.",
        )
    for info in infos[1:]:
        file = files[info.filename]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != file.bytes:
            raise BundleError(
                f"{info.filename} in {path.name} has {info.file_size:,} bytes",
                expected=f"{file.bytes:,} bytes, stored without compression",
                remedy="Fetch the file again.",
            )
        with archive.open(info) as member:
            found = _digest(member)
        if found != file.sha256:
            raise BundleError(
                f"{info.filename} in {path.name} has SHA-256 {found[:12]}…",
                expected=f"{file.sha256[:12]}…, as the manifest says",
                remedy="The file was changed after the export: fetch it again.",
            )
    return manifest


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\\" not in name


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
