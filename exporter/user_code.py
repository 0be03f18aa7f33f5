"""Running a user's ``FILE.py`` in a child process, as Python would run it for them.

The file's folder stands first on ``sys.path`` and the working directory is theirs; the module has
the file's own name, not ``__main__``, so that what stands under ``if __name__ == "__main__"`` does
not run. An error of their code is theirs to mend, so it is told with their file and line.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import re
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeml.errors import EdgemlError, SourceError

_IMPORTS_TORCH = re.compile(r"^(import|from) torch\b", re.MULTILINE)

_SETS_ENVIRONMENT = re.compile(r"environ\s*(\[|\.setdefault|\.update|\|=)|putenv")


def imports_torch(path: Path) -> bool:
    """Whether a file plainly imports torch, and sets nothing for that import first."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # told where it matters
        return False
    return bool(_IMPORTS_TORCH.search(text)) and not _SETS_ENVIRONMENT.search(text)


def load_attribute(path: Path, name: str, what: str) -> Any:
    """Import a file (once) and give what has this name in it.

    Raises:
        SourceError: the file raises an error, or holds no such name.
    """
    module = _load(path.resolve())
    missing = object()
    found = getattr(module, name, missing)
    if found is missing:
        names = [
            n for n, value in vars(module).items() if callable(value) and not n.startswith("_")
        ]
        own = [n for n in names if getattr(getattr(module, n), "__module__", "") == module.__name__]
        near = difflib.get_close_matches(name, own, n=1)
        raise SourceError(
            f"{path} has no {name!r}",
            expected=f"{what}, among what it defines: {', '.join(own[:12]) or 'nothing'}",
            remedy=f"Did you mean {path}:{near[0]}?" if near else "Check the name after the colon.",
        )
    return found


@contextlib.contextmanager
def blaming(path: Path, doing: str) -> Generator[None, None, None]:
    """Turn an error of a user's code into one that says where in their file it arose.

    Args:
        path: their file; the last frame in it, or else in its folder, is blamed.
        doing: such as ``model.py:build``, for an error with no frame there.

    Raises:
        SourceError: the block raised.
    """
    try:
        yield
    except EdgemlError:
        raise
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        text = _text(error)
        lacking = isinstance(error, ModuleNotFoundError)
        raise SourceError(
            f"{where(error, path) or doing}: {text}",
            expected=f"{doing} to run without an error",
            remedy="It runs where the converters are, in an environment of their own: name the "
            "interpreter that you train in, with its packages: --python PATH."
            if lacking
            else "The log has the whole trace.",
        ) from error


def where(error: BaseException, path: Path) -> str:
    """``file:line`` of the last frame in a user's file or folder; empty where there is none."""
    path = path.resolve()
    frames = [
        (Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((Path(error.filename), error.lineno))
    # Tracers run a user's code in their own frames, and quote its place in the message.
    frames += [(Path(name), int(line)) for name, line in _QUOTED.findall(str(error))]
    if error.__cause__ is not None and not any(name.parent == path.parent for name, _ in frames):
        return where(error.__cause__, path)
    own = [frame for frame in frames if frame[0] == path]
    near = [frame for frame in frames if frame[0].parent == path.parent]
    for name, line in reversed(own or near):
        return f"{name}:{line}"
    return ""


_QUOTED = re.compile(r'File "([^"]+)", line (\d+)')


def _text(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called exit({error.code!r})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    return f"{kind}: {lines[0][:300]}" if lines else kind


def _load(path: Path) -> ModuleType:
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if name in sys.modules:  # theirs is called like a library that is in use here
        name = f"{name}_of_user"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.argv = [str(path)]
    with blaming(path, f"importing {path.name}"):
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module
