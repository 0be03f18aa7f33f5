"""What a user's code reads, noted while it runs, as a compiler writes a depfile.

:func:`record` sets an audit hook (PEP 578) in the process that runs the code. It notes each file
that is opened for reading or imported, and each folder that is listed, outside the environment and
the system. What Python is not told of escapes it: what another program reads, environment
variables, the clock, the network, and files that a library opens in native code, but for those that
it still holds open or mapped when the code is done (a memory-mapped file of weights does).

Standard library only: a user's own interpreter, of another version, can run it too.
"""

# The hook is called for every file that is opened, and it is given strings.
# ruff: noqa: PTH100, PTH113, PTH114, PTH115, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from typing import Any

VARIABLE = "EDGEML_DEPENDENCIES"
"""Names the file that a child of the exporter notes in what it reads."""

_SYSTEM = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr")
_PATH_HOOK = ".__path_hook__"  # setuptools puts a name that is no path into sys.path
_LIBRARY = os.path.dirname(os.path.realpath(os.__file__)) + os.sep
_LISTERS = tuple(_LIBRARY + name for name in ("os.py", "glob.py", "pathlib"))
_IMPORTERS = ("<frozen importlib", *(_LIBRARY + name for name in ("importlib", "pkgutil.py")))


def record(path: str, *, ignore: Iterable[str] = ()) -> Callable[[], None]:
    """From now on, note what this process and its forks read. There is no way back.

    Args:
        path: a file to which each path is appended, once, as a line; a folder ends in a slash.
        ignore: further folders that are not the user's.

    Returns:
        A function that notes the files that are open or mapped at the moment.
    """
    hidden = tuple({_prefix(each) for each in (*_environment(), *ignore, *_SYSTEM)})
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    seen = {path}
    folders: dict[str, str] = {}

    def real(name: str) -> str:
        # A framework's import opens thousands of files in hundreds of folders: each folder is
        # resolved once, which takes a tenth off the time of TensorFlow's.
        folder, base = os.path.split(name)
        if not base or os.path.islink(name):
            return os.path.realpath(name)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        return os.path.join(folders[folder], base)

    def note(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        if _PATH_HOOK in name or "\n" in name:
            return
        if not real(name).startswith(hidden):
            os.write(handle, os.fsencode(name) + b"\n")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        look = _EVENTS.get(event)
        if look is not None:
            with contextlib.suppress(Exception):  # it would fail the user's own call
                name = look(*arguments)
                if name is not None:
                    note(name)

    def sweep() -> None:
        for name in _held():
            note(name)

    sys.addaudithook(hook)
    return sweep


def _opened(name: Any, mode: Any, flags: Any) -> str | None:
    if isinstance(name, int):
        return None
    writes = isinstance(mode, str) and any(sign in mode for sign in "wax")
    if writes or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_CREAT)):
        return None
    return _source(os.path.abspath(os.fsdecode(name)))


def _listed(name: Any = None) -> str | None:
    if isinstance(name, int) or _imports():
        return None
    return os.path.abspath(os.fsdecode("." if name is None else name)).rstrip(os.sep) + os.sep


def _imports() -> bool:
    """Whether it is the import system that asks: it lists every folder of ``sys.path``."""
    frame = sys._getframe(3)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LISTERS):
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(_IMPORTERS)


def _database(name: Any) -> str | None:
    text = os.fsdecode(name)
    return None if text.startswith((":", "file:")) else os.path.abspath(text)


_EVENTS: dict[str, Callable[..., str | None]] = {
    "open": _opened,
    "os.listdir": _listed,
    "os.scandir": _listed,
    "sqlite3.connect": _database,
}


def _source(name: str) -> str:
    """The ``.py`` behind a compiled file: an import opens only the latter where it is fresh."""
    folder, base = os.path.split(name)
    above, last = os.path.split(folder)
    if last == "__pycache__" and base.endswith(".pyc"):
        return os.path.join(above, base.split(".", 1)[0] + ".py")
    return name


def _held() -> list[str]:
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY
                with open("/proc/self/fdinfo/" + entry) as stream:
                    for line in stream:
                        if line.startswith("flags:"):
                            flags = int(line.split()[1], 8)
                if not flags & (os.O_WRONLY | os.O_RDWR | os.O_APPEND):
                    found.add(os.readlink("/proc/self/fd/" + entry))
        with open("/proc/self/maps") as stream:
            found.update(line.split(None, 5)[-1].strip() for line in stream if " /" in line)
    return sorted(name for name in found if name.startswith("/") and os.path.isfile(name))


def _environment() -> list[str]:
    exporter = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    root = os.path.dirname(exporter)
    own = [os.path.join(root, name) for name in ("edgeml", "exporter", "targets")]
    folders = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()]
    return [*own, *(name for name in folders if os.path.realpath(name) != os.sep)]


def _prefix(name: str) -> str:
    return os.path.realpath(name).rstrip(os.sep) + os.sep
