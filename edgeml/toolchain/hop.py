"""Running a part of edgeml inside a toolchain, and reading what it says.

The part is ``python -m MODULE``: it reads one document on standard input and writes events on
standard output, one JSON document a line, of which the last says how it ended. Where the current
environment holds all that the toolchain is for, it runs there.

Its process can be started before there is a request (:func:`ahead`), so that it imports on one core
what it will need while the request is made on another.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import msgspec

from edgeml.errors import EdgemlError, ToolchainError
from edgeml.processes import GRACE_S, describe_exit, dying_with, ending_with_us
from edgeml.toolchain import install, store
from edgeml.toolchain.spec import ToolchainSpec

E = TypeVar("E")
Say = Callable[[str], None]


class _Part(NamedTuple):
    """A part's process."""

    module: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    """Its standard error."""
    ending: contextlib.ExitStack
    """Ends it, and all in its group."""


class _Ahead(NamedTuple):
    """What :func:`ahead` has begun."""

    spec: ToolchainSpec
    python: Path
    parts: list[_Part]
    """Empty once somebody has taken it."""


_begun: list[_Ahead] = []


@contextlib.contextmanager
def interpreter(spec: ToolchainSpec, *, say: Say, progress: Say) -> Generator[Path]:
    """Give the Python that a toolchain's work is to be done with.

    This one if it holds all that the toolchain is for; else the toolchain's, which is installed
    first where it is missing. Nobody removes or changes the toolchain while the block runs.

    Raises:
        ToolchainError: it cannot be installed.
    """
    for begun in _begun:
        if begun.spec == spec:  # it holds the lock
            yield begun.python
            return
    if store.serves_in_place(spec):
        with store.in_use(spec, say=say):
            yield Path(sys.executable)
        return
    with install.ready(spec, say=say, progress=progress) as python:
        yield python


@contextlib.contextmanager
def ahead(spec: ToolchainSpec, module: str, words: Sequence[str]) -> Generator[None]:
    """Have the process that :func:`stream` will want begin while its request is still being made.

    Where the toolchain is not at hand, nothing happens. What nobody has asked for when the block
    ends was begun in vain, and is ended.

    Args:
        spec: the toolchain.
        module: dotted name of the part, which takes an empty request for none.
        words: the part's arguments. They may tell it what is coming; nothing depends on them.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(EdgemlError, OSError):  # told by whoever needs it
            if store.serves_in_place(spec) or store.find(spec).state == "installed":
                python = stack.enter_context(interpreter(spec, say=_unsaid, progress=_unsaid))
                part = _start(python, module, words)
                stack.callback(part.ending.close)
                begun = _Ahead(spec, python, [part])
                _begun.append(begun)
                stack.callback(_begun.remove, begun)
        yield


def stream(
    python: Path,
    module: str,
    request: bytes,
    *,
    decode: Callable[[bytes], E],
    final: tuple[type[E], ...],
) -> Iterator[E]:
    """Run ``python -m module`` and yield its events until the final one.

    The process, and those in its group, are gone when the iterator ends or is closed: by the final
    event, an exception in the loop or a Ctrl-C. If this process is killed, the kernel kills it.

    Args:
        python: the interpreter, from :func:`interpreter`.
        module: dotted name of the part.
        request: what goes to its standard input.
        decode: reads one line; raises :class:`msgspec.DecodeError` for what is no event.
        final: the classes of event of which one comes last. An event's ``log``, if it has one, is
            the file that an error points to.

    Raises:
        ToolchainError: it ended without a final event, or said something that is no event.
    """
    log = ""
    part = _taken(python, module) or _start(python, module)
    with part.ending:
        process = part.process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # how it ended is told below
            process.stdin.write(request)
            process.stdin.close()
        for line in process.stdout:
            try:
                event = decode(line)
            except msgspec.DecodeError as error:
                raise ToolchainError(
                    f"{module} said what is no event: {line[:200].decode(errors='replace')!r}",
                    remedy=_remedy(log),
                ) from error
            log = str(getattr(event, "log", "")) or log
            yield event
            if isinstance(event, final):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S)  # it tidies up
                return
        status = process.wait()
        part.errors.seek(0)
        last = part.errors.read().decode(errors="replace").strip().splitlines()[-3:]
        raise ToolchainError(
            f"{module} ended with {describe_exit(status)} and did not say why"
            + (f": {' | '.join(last)}" if last else ""),
            remedy=_remedy(log),
        )


def _start(python: Path, module: str, words: Sequence[str] = ()) -> _Part:
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(
            # -P: whatever lies in the working directory is not to be taken for a library.
            [str(python), "-P", "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            preexec_fn=dying_with(os.getpid()),
        )
        stack.enter_context(ending_with_us(process))
        return _Part(module, process, errors, stack.pop_all())


def _taken(python: Path, module: str) -> _Part | None:
    """One that was begun ahead, and is the caller's now."""
    for begun in _begun:
        if begun.python == python and begun.parts and begun.parts[0].module == module:
            part = begun.parts.pop()
            return part._replace(ending=part.ending.pop_all())
    return None


def _unsaid(_: str) -> None:
    """For what nobody has asked for yet."""


def _remedy(log: str) -> str:
    return f"Its log is {log}." if log else "The same command with --debug may show more."
