"""Where toolchains lie, what state each is in, and who may touch it now.

A toolchain ``NAME`` is the folder ``NAME`` of the home. It counts as installed only with its record
inside, which is written last: an installation that was killed has none. ``.NAME.lock`` beside it
is locked (flock) by everybody who uses the toolchain, shared, and by whoever makes or removes it,
alone; the kernel lets go when a process ends, however it does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Generator
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

import edgeml
from edgeml.decoding import from_json
from edgeml.errors import ToolchainError
from edgeml.toolchain.spec import ToolchainSpec

HOME_VARIABLE = "EDGEML_TOOLCHAINS"
RECORD = "toolchain.json"

State = Literal["installed", "outdated", "other edgeml", "incomplete", "absent"]


class Edgeml(msgspec.Struct, frozen=True):
    """Which edgeml a toolchain holds, or is to hold."""

    requirement: tuple[str, ...]
    """pip's arguments for it: ``-e CHECKOUT[extra]`` or ``edgeml[extra]==version``."""
    fingerprint: str
    """Changes when pip has to look again: the version, or the checkout and its pyproject.toml."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed: the file that makes a toolchain complete."""

    name: str
    key: str
    python: str
    edgeml: Edgeml | None
    size_bytes: int
    created: str
    """RFC 3339, UTC."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A toolchain as it lies on the disk."""

    state: State
    folder: Path
    record: Record | None = None
    why: str = ""
    """Why it is not as wanted; empty for ``installed`` and ``absent``."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


def home() -> Path:
    """Where toolchains lie: ``EDGEML_TOOLCHAINS``, else the user's data folder."""
    chosen = os.environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("edgeml") / "toolchains"


def log_path(spec: ToolchainSpec) -> Path:
    """Where pip's output of the last installation lies."""
    return home() / f"{spec.name}.log"


def key(spec: ToolchainSpec, python: str) -> str:
    """What a toolchain is made of, as a hash: a record with another one is outdated.

    Args:
        spec: the toolchain.
        python: its Python, ``3.11`` or the like.
    """
    lines = (line.strip() for line in spec.constraints.read_text().splitlines())
    pins = sorted(line for line in lines if line and not line.startswith("#"))
    parts = (*pins, *spec.requirements, python, sys.platform)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def checkout() -> Path | None:
    """The checkout that this edgeml runs from, or None if it was installed from a wheel."""
    root = Path(edgeml.__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def wanted_edgeml(spec: ToolchainSpec) -> Edgeml | None:
    """The edgeml that belongs into a toolchain: the one that asks for it."""
    if not spec.extra:
        return None
    root = checkout()
    if root is None:
        version = edgeml.__version__
        return Edgeml((f"edgeml[{spec.extra}]=={version}",), version)
    project = hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest()[:16]
    return Edgeml(("--editable", f"{root}[{spec.extra}]"), f"{root} {project}")


def find(spec: ToolchainSpec) -> Found:
    """Look at a toolchain on the disk. Touches nothing and waits for nobody."""
    folder = home() / spec.name
    if not folder.exists():
        return Found(state="absent", folder=folder)
    try:
        record = from_json((folder / RECORD).read_bytes(), Record)
    except (OSError, msgspec.DecodeError):
        return Found(state="incomplete", folder=folder, why="its installation was not finished")

    def found(state: State, why: str = "") -> Found:
        return Found(state=state, folder=folder, record=record, why=why)

    if not (folder / "bin" / "python").exists():
        return found("outdated", f"the Python {record.python} that it was made with is gone")
    if record.key != key(spec, record.python):
        return found("outdated", "its pinned versions have changed")
    wanted = wanted_edgeml(spec)
    if wanted != record.edgeml:
        return found("other edgeml", _other_edgeml(record.edgeml, wanted))
    return found("installed")


def _other_edgeml(holds: Edgeml | None, wanted: Edgeml | None) -> str:
    if holds is not None and wanted is not None and holds.requirement == wanted.requirement:
        return "pyproject.toml of its edgeml has changed"
    was, now = (each.requirement[-1] if each else "no edgeml" for each in (holds, wanted))
    return f"it holds {was} and is to hold {now}"


def serves_in_place(spec: ToolchainSpec) -> bool:
    """Whether the current environment holds everything that the toolchain is for.

    Asks the metadata of what is installed; imports nothing.
    """
    from packaging.requirements import Requirement

    if not spec.extra:
        return False
    try:
        lines = metadata.requires("edgeml") or []
    except metadata.PackageNotFoundError:  # run from a folder, not installed
        return False
    needed = [
        requirement
        for requirement in map(Requirement, lines)
        if requirement.marker is not None
        and requirement.marker.evaluate({"extra": spec.extra})
        and not requirement.marker.evaluate({"extra": ""})
    ]
    for requirement in needed:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            return False
        if not requirement.specifier.contains(version, prereleases=True):
            return False
    return bool(needed)


@contextlib.contextmanager
def locked(spec: ToolchainSpec, *, alone: bool, say: Callable[[str], None]) -> Generator[int]:
    """Hold a toolchain's lock: shared to use it, alone to change it.

    Args:
        spec: the toolchain.
        alone: whether to wait until nobody else uses it.
        say: told, once, when it has to wait.

    Raises:
        ToolchainError: the folder cannot be made or written.
    """
    with _locked(home() / f".{spec.name}.lock", spec, alone=alone, say=say) as handle:
        yield handle


@contextlib.contextmanager
def in_use(spec: ToolchainSpec, *, say: Callable[[str], None]) -> Generator[None]:
    """Hold the lock of the toolchain that this very process runs in, shared, if it does run in one:
    another checkout's edgeml may share the toolchain and would put itself into it meanwhile."""
    here = Path(sys.prefix)
    ours = here.name == spec.name and (here / RECORD).is_file()
    # Of a read-only one the user changes nothing.
    if not ours or not os.access(here.parent, os.W_OK):
        yield
        return
    with _locked(here.parent / f".{spec.name}.lock", spec, alone=False, say=say):
        yield


@contextlib.contextmanager
def _locked(
    path: Path, spec: ToolchainSpec, *, alone: bool, say: Callable[[str], None]
) -> Generator[int]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ToolchainError(
            f"{path.parent} cannot be written: {error.strerror}",
            expected="a folder for toolchains",
            remedy=f"Set {HOME_VARIABLE} to a folder that you may write.",
        ) from error
    try:
        lock(handle, alone=alone, waiting=lambda: say(_waiting(spec, alone=alone)))
        yield handle
    finally:
        os.close(handle)


def lock(handle: int, *, alone: bool, waiting: Callable[[], None]) -> None:
    """Take a lock on an open file, or change the one that is held."""
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        waiting()
        fcntl.flock(handle, kind)


def _waiting(spec: ToolchainSpec, *, alone: bool) -> str:
    busy = "is using or changing" if alone else "is installing"
    return f"Another edgeml {busy} the toolchain {spec.name}; waiting for it to finish."
