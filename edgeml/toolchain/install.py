"""Making and removing toolchains, with venv and pip and nothing else.

pip's own configuration (indexes, find-links, certificates, proxies) is whatever the user has set:
no option of ours speaks of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

import msgspec

from edgeml.errors import ToolchainError
from edgeml.processes import describe_exit, dying_with, ending_with_us
from edgeml.toolchain import store
from edgeml.toolchain.spec import ToolchainSpec

Say = Callable[[str], None]

TAIL_LINES = 5
LINE_LENGTH = 200
"""How much of pip's output an error quotes."""

_OPTIONS = ("--disable-pip-version-check", "--no-input")
_STEPS = (
    (re.compile(r"^(?:Collecting|Obtaining|Processing) (\S+)"), "finding {}"),
    (re.compile(r"^ +Downloading (\S+)"), "downloading {}"),
    (re.compile(r"^Installing collected packages: (.*)"), "unpacking {}"),
)


def _silent(_: str) -> None:
    """For whoever does not want to be told."""


@contextlib.contextmanager
def ready(spec: ToolchainSpec, *, say: Say, progress: Say = _silent) -> Generator[Path]:
    """Give a toolchain's interpreter, installing first what is missing.

    Nobody removes or changes the toolchain while the block runs.

    Args:
        spec: the toolchain.
        say: told in sentences what is about to happen, and why it takes so long.
        progress: told in a few words what pip is at.

    Raises:
        ToolchainError: it cannot be installed.
    """
    with store.locked(spec, alone=False, say=say) as handle:
        while (found := store.find(spec)).state != "installed":
            # Somebody else may be faster while this lock changes: install() looks again.
            store.lock(handle, alone=True, waiting=lambda: say(f"Waiting for {spec.name}."))
            _bring_up(spec, say, progress)
            store.lock(handle, alone=False, waiting=lambda: None)
        yield found.python


def install(
    spec: ToolchainSpec, *, say: Say, progress: Say = _silent, afresh: bool = False
) -> store.Found:
    """Install a toolchain, or bring it up to date; does nothing where it is as wanted.

    Args:
        spec: the toolchain.
        say: see :func:`ready`.
        progress: see :func:`ready`.
        afresh: make it again even where it is as wanted.

    Raises:
        ToolchainError: Python, venv or pip cannot do it, or the disk is full.
    """
    with store.locked(spec, alone=True, say=say):
        if afresh and (store.home() / spec.name).exists():
            say(f"Removing the toolchain {spec.name} to make it again.")
            _delete(store.home() / spec.name)
        _bring_up(spec, say, progress)
        return store.find(spec)


def remove(spec: ToolchainSpec, *, say: Say) -> bool:
    """Remove a toolchain, waiting for those who use it. Tells whether there was one."""
    folder = store.home() / spec.name
    with store.locked(spec, alone=True, say=say):
        if not folder.exists():
            return False
        _delete(folder)
        store.log_path(spec).unlink(missing_ok=True)
    return True


def _bring_up(spec: ToolchainSpec, say: Say, progress: Say) -> None:
    """Make a toolchain as wanted. The caller holds its lock alone."""
    found = store.find(spec)
    if found.state == "installed":
        return
    if found.record is not None and found.state == "other edgeml":
        say(f"The toolchain {spec.name} is updated: {found.why}.")
        _update(spec, found.folder, found.record, progress)
    else:
        if found.why:
            say(f"The toolchain {spec.name} is made again: {found.why}.")
            _delete(found.folder)
        _make(spec, found.folder, say, progress)
    say(f"The toolchain {spec.name} is ready.")


def _update(spec: ToolchainSpec, folder: Path, record: store.Record, progress: Say) -> None:
    """Have pip look again at edgeml and what it requires; the pins are the same."""
    (folder / store.RECORD).unlink()  # killed in the middle, it is incomplete
    try:
        _run_pip(spec, folder / "bin" / "python", progress)
    except ToolchainError:
        _write_record(folder, record)  # pip takes back what it could not do
        raise
    _write_record(folder, _new_record(spec, folder, record.python))


def _make(spec: ToolchainSpec, folder: Path, say: Say, progress: Say) -> None:
    interpreter, python = _interpreter(spec)
    _announce(spec, folder, say)
    _need_space(spec, folder.parent)
    try:
        _make_environment(interpreter, folder)
        _run_pip(spec, folder / "bin" / "python", progress)
        _write_record(folder, _new_record(spec, folder, python))
    except BaseException:
        # Half of it is of no use to anybody, and it may be what filled the disk.
        progress("taking back what was begun")
        _delete(folder)
        raise


def _announce(spec: ToolchainSpec, folder: Path, say: Say) -> None:
    say(
        f"Installing the toolchain {spec.name}: {spec.holds}. It takes about "
        f"{spec.size_bytes / 1e9:.1f} GB on disk in {folder} and some minutes, once."
        + (f" {spec.remark}" if spec.remark else "")
    )


def _need_space(spec: ToolchainSpec, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < spec.size_bytes:
        raise ToolchainError(
            f"{folder} has {free / 1e9:.1f} GB free",
            expected=f"{spec.size_bytes / 1e9:.1f} GB for the toolchain {spec.name}",
            remedy=f"Free some space, or set {store.HOME_VARIABLE} to a folder on another disk.",
        )


def _interpreter(spec: ToolchainSpec) -> tuple[str, str]:
    """The Python to make a toolchain with, and its version: this one, else one on the path."""
    oldest, newest = spec.pythons
    here = sys.version_info[:2]
    if oldest <= here <= newest:
        if _runner() is None:
            _need_venv(here)
        return sys.executable, f"{here[0]}.{here[1]}"
    for minor in range(newest[1], oldest[1] - 1, -1):
        version = f"{newest[0]}.{minor}"
        path = shutil.which(f"python{version}")
        if path is not None and _answers(path, version):
            return path, version
    wanted = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
    raise ToolchainError(
        f"this is Python {here[0]}.{here[1]}, and none of {wanted} with venv is on the path",
        expected=f"Python {wanted}: the toolchain's libraries have no wheels for others",
        remedy="Install one of them beside it.",
    )


def _need_venv(version: tuple[int, int]) -> None:
    if importlib.util.find_spec("ensurepip") is not None:
        return
    package = f"python{version[0]}.{version[1]}-venv"
    raise ToolchainError(
        f"Python {version[0]}.{version[1]} has no ensurepip, so it cannot make environments",
        remedy=f"On Debian and Ubuntu: apt install {package} (or python3-venv).",
    )


def _answers(path: str, version: str) -> bool:
    code = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
    answer = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == version


def _make_environment(interpreter: str, folder: Path) -> None:
    without = ["--without-pip"] if _runner() else []
    command = [interpreter, "-m", "venv", *without, str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise ToolchainError(
            f"{' '.join(command)} failed: {_tail((made.stdout + made.stderr).splitlines())}",
            remedy="On Debian and Ubuntu: apt install python3-venv.",
        )


def _runner() -> Path | None:
    """This environment's pip as a program for the interpreter of another one, which is what
    ``pip --python`` runs; None where there is no pip, or one older than 22.3.

    A toolchain needs no pip of its own so, which would take five seconds of a core to put there.
    """
    found = importlib.util.find_spec("pip")
    if found is None or found.origin is None:
        return None
    runner = Path(found.origin).with_name("__pip-runner__.py")
    return runner if runner.exists() else None


def _pip(python: Path) -> list[str]:
    """Arguments with which a toolchain's interpreter runs pip: this environment's or its own."""
    if runner := _runner():
        return [str(runner)]
    if not list(python.parent.glob("pip*")):  # made from an environment that had one
        bring = [str(python), "-m", "ensurepip"]
        subprocess.run(bring, capture_output=True, check=False)  # pip's absence is told by python
    return ["-m", "pip"]


def _run_pip(spec: ToolchainSpec, python: Path, progress: Say) -> None:
    wanted = store.wanted_edgeml(spec)
    command = [str(python), *_pip(python), *_OPTIONS, "install", "--progress-bar", "off"]
    command += ["--constraint", str(spec.constraints), *spec.requirements]
    command += wanted.requirement if wanted else ()
    log = store.log_path(spec)
    with log.open("w") as record, _spawn(command) as process:
        assert process.stdout is not None
        tail = _follow(process.stdout, record, progress)
        status = process.wait()
    if status == 0:
        return
    remedy = "Mend what pip names and try again." if status > 0 else "Try again."
    if any("No space left on device" in line for line in tail):
        remedy = f"Free some space, or set {store.HOME_VARIABLE} to a folder on another disk."
    raise ToolchainError(
        f"pip could not install the toolchain {spec.name} ({describe_exit(status)}): {_tail(tail)}",
        remedy=f"{remedy} All of pip's output is in {log}.",
    )


@contextlib.contextmanager
def _spawn(command: list[str]) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=dying_with(os.getpid()),
    )
    with ending_with_us(process):
        yield process


def _follow(output: IO[bytes], record: IO[str], progress: Say) -> list[str]:
    """Keep pip's output in the log, tell its steps, and return its last lines."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    for raw in output:
        line = raw.decode(errors="replace").rstrip()
        record.write(line + "\n")
        record.flush()
        if line.strip():
            tail.append(line.strip())
        for pattern, words in _STEPS:
            match = pattern.match(line)
            if match:
                progress(words.format(match[1].rsplit("/", 1)[-1][:60]))
    return list(tail)


def _new_record(spec: ToolchainSpec, folder: Path, python: str) -> store.Record:
    return store.Record(
        name=spec.name,
        key=store.key(spec, python),
        python=python,
        edgeml=store.wanted_edgeml(spec),
        size_bytes=size_on_disk(folder),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _write_record(folder: Path, record: store.Record) -> None:
    temporary = folder / f"{store.RECORD}.tmp"
    with temporary.open("wb") as stream:
        stream.write(msgspec.json.encode(record))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / store.RECORD)


def size_on_disk(folder: Path) -> int:
    """Bytes on disk of all below a folder, hard links counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            status = (Path(parent) / name).lstat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def _delete(folder: Path) -> None:
    """Remove a folder, its record first: what is left of a removal cut short is incomplete."""
    try:
        (folder / store.RECORD).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise ToolchainError(
            f"{folder} cannot be removed: {error.strerror}",
            remedy="Remove it by hand and try again.",
        ) from error


def _tail(lines: list[str]) -> str:
    short = (line if len(line) <= LINE_LENGTH else f"{line[:LINE_LENGTH]}…" for line in lines)
    return " | ".join([*short][-TAIL_LINES:]) or "it printed nothing"
