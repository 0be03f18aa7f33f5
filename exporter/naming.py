"""Names and places: what the bundle is called and where it goes, checked before minutes of work."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

from edgeml.bundle import SUFFIX
from edgeml.errors import SourceError, UsageError
from edgeml.exporter.repeat.cache import atomic
from edgeml.exporter.request import ExportRequest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of a model and of a version: both become part of a file name, the name of an MQTT topic too."""

FILE_TYPE = re.compile(r"\.[A-Za-z]\w{1,7}")
"""What ends the name of a file rather than of a folder: ``.zip``, but no version's ``.0rc1``."""


def model_name(given: str, path: Path) -> str:
    """The name asked for, or one made from the model's file.

    Raises:
        UsageError: the name asked for cannot be one.
    """
    if given:
        return checked_name(given, "name")
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().stem).strip("-._")
    return made[:64] or "model"


def checked_name(text: str, what: str) -> str:
    """``text``, where it can be a name or a version.

    Raises:
        UsageError: it cannot.
    """
    if NAME.fullmatch(text) is None:
        raise UsageError(
            f"The {what} {text!r} cannot be one",
            expected="1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit",
            remedy="It becomes part of a file name and of an MQTT topic.",
        )
    return text


def destination(output: str, name: str, version: str) -> Path:
    """Where the bundle is to be written, checked before minutes of work.

    Raises:
        UsageError: it is no place for a bundle.
        SourceError: nothing can be written there.
    """
    given = Path(output)
    if output.endswith(SUFFIX):
        if given.is_dir():
            raise UsageError(f"{given} is a folder", expected=f"a file that ends in {SUFFIX}")
        path = given
    elif given.exists() and not given.is_dir():
        raise UsageError(
            f"{given} is a file that does not end in {SUFFIX}",
            expected=f"a folder, or a file that ends in {SUFFIX}",
        )
    elif not given.is_dir() and not output.endswith("/") and FILE_TYPE.fullmatch(given.suffix):
        raise UsageError(
            f"-o {output} ends in {given.suffix}, and there is no such folder",
            expected=f"a folder, or a file that ends in {SUFFIX}",
            remedy=f"For a new folder of that name write {output}/.",
        )
    else:
        path = given / f"{name}-{version}{SUFFIX}"
    folder = path.resolve().parent
    while not folder.exists():
        folder = folder.parent
    _refuse_folder(folder, "-o")
    return path.resolve()


def make_folder(folder: Path) -> None:
    """Make the folder that a bundle goes to.

    Raises:
        SourceError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"The folder {folder} cannot be made: {error.strerror or error}",
            remedy="Choose another place with -o.",
        ) from error


def beside(path: str, option: str, suffixes: tuple[str, ...]) -> None:
    """Check where a file is to be written beside the bundle, before minutes of work.

    Args:
        path: as it was given; empty where none is wanted.
        option: that gave it.
        suffixes: of which it has one.

    Raises:
        UsageError: it has another.
        SourceError: there is no such folder, or nothing can be written to it.
    """
    if not path:
        return
    given = Path(path).resolve()
    if given.suffix not in suffixes or given.is_dir():
        raise UsageError(
            f"{option} cannot be written to {path!r}",
            expected=f"a file that ends in {' or '.join(suffixes)}",
        )
    if not given.parent.is_dir():
        raise SourceError(
            f"There is no folder {given.parent} for {option}",
            expected="a folder that exists",
            remedy="Make it first, or choose another place.",
        )
    _refuse_folder(given.parent, option)


def put(made: Path, path: Path, option: str) -> None:
    """Copy a file to where it was asked for, whole or not at all. Not for a child, which may be
    killed.

    Args:
        made: the file, in the export's own folder.
        path: where it is to be.
        option: that asks for it.

    Raises:
        SourceError: it cannot be written.
    """
    with laid_beside(made, path, option):
        pass


@contextlib.contextmanager
def laid_beside(made: Path, path: Path, option: str) -> Generator[None]:
    """Likewise, when the block ends: until then its content lies beside ``path`` under another
    name, so that there is room for it. An error or a Ctrl-C in the block leaves what stood there.
    """
    with contextlib.ExitStack() as stack:
        with _told(path, option), made.open("rb") as content:
            stream = stack.enter_context(atomic(path))
            shutil.copyfileobj(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        yield
        with _told(path, option):
            stack.close()


@contextlib.contextmanager
def _told(path: Path, option: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{path} could not be written: {error.strerror or error}",
            expected="a folder that may be written and has room",
            remedy=f"Free some space there, or choose another place with {option}.",
        ) from error


def smallest_models(request: ExportRequest) -> list[Path]:
    """Where ``--minimize`` may write: a file, or one a target from the second on."""
    if not request.minimize:
        return []
    small = Path(request.minimize)
    return [small, *(of_target(small, name) for name in request.targets)]


def of_target(small: Path, target: str) -> Path:
    """Where the smallest model of a target goes that is not the first one."""
    return small.with_stem(f"{small.stem}-{target}")


def apart_from_sources(request: ExportRequest) -> None:
    """See to it that an export writes over nothing of what it reads.

    Raises:
        UsageError: it would.
    """
    written = [("--report", Path(request.report))] if request.report else []
    written += [("--minimize", each) for each in smallest_models(request)]
    read = {
        "MODEL": request.model,
        "--calibration": request.calibration or "",
        "--evaluate": request.evaluation or "",
        "--preprocess": request.preprocessing,
        "--metric": request.metric,
    }
    for flag, path in written:
        apart(flag, path, read)


def apart(option: str, written: Path, read: Mapping[str, str]) -> None:
    """Refuse to write a file over one that is read, or into a folder that is read.

    Args:
        option: that names the file.
        written: the file.
        read: what is read, by the option that names it, as it was given; empty for nothing.

    Raises:
        UsageError: it is one of them, or lies in one of them.
    """
    place = written.resolve()
    for what, text in read.items():
        head, colon, _ = text.rpartition(":")
        source = Path(head if colon and head.endswith(".py") else text)
        if not text or not source.exists():
            continue
        taken = place == source.resolve() or (place.exists() and place.samefile(source))
        if taken or (source.is_dir() and place.is_relative_to(source.resolve())):
            raise UsageError(
                f"{option} would write {'over' if taken else 'into'} {source}, which {what} names",
                expected="a place of its own",
                remedy=f"Name another one with {option}.",
            )


def _refuse_folder(folder: Path, option: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SourceError(
            f"Nothing can be written to {folder}: {error.strerror or error}",
            expected="a folder that may be written and has room",
            remedy=f"Choose another place with {option}.",
        ) from error
