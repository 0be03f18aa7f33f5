"""``--python PATH``: a factory, and the code that gives samples, run in the user's own interpreter,
with their frameworks.

What they have exports the model there (:mod:`edgeml.exporter.sources.users_python`), and the file
is normalised here as any other. A torch program goes over as a ``.pt2``; where their torch and ours
do not read each other's files, as ONNX. The reference is their model, in their interpreter. Samples
come in files, some megabytes at a time. Runs in a child process, which holds the interpreter.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.columns import load, spans, writers
from edgeml.errors import EdgemlError, SourceError, ToolchainError
from edgeml.exporter.child import first_line
from edgeml.exporter.repeat.dependencies import file_hash
from edgeml.exporter.sources import users_python
from edgeml.exporter.sources.forms import ArrayShape, Opened, OpenJob, ReferenceJob
from edgeml.exporter.sources.shapes import refuse_open, with_asked
from edgeml.processes import describe_exit, dying_with

Array = NDArray[Any]

_HERE = "edgeml.exporter.sources.foreign"

_hosts: dict[Path, tuple[Host, Any]] = {}
"""Of this process: who answers for a source, and for a classical one its graph."""

_started: dict[str, Host] = {}
"""Of this process: the last of each path. The code of samples runs where the model is, so that what
both import is imported once."""


def open_source(job: OpenJob) -> Opened:
    """Have the factory run in the user's interpreter, and normalise what it exports.

    Raises:
        SourceError: there is no such interpreter, it lacks a package, or the user's code fails.
    """
    call = f"{job.path.name}:{job.attribute}"
    refuse_open(job)
    host = _start(job.python, call)
    order = {
        "file": str(job.path.resolve()),
        "attribute": job.attribute,
        "call": call,
        "folder": str(job.workdir.resolve()),
        "by_name": False,
    }
    shapes = with_asked(job)
    peek = job.iterable is not None
    answer = host.order("open", shapes=_plain(shapes), peek=peek, **order)
    if not answer["kind"]:  # a torch module, whose inputs nothing shows but the code of the samples
        from edgeml.exporter.samples.iterables import first_shapes

        assert job.iterable is not None
        shapes = first_shapes(*job.iterable, answer["names"], python=job.python)
        host.call = call
        answer = host.order("open", shapes=_plain(shapes), peek=False, **order)
    graph: Any = None
    if answer["kind"] == "torch":
        opened = _torch(job, host, answer)
    elif answer["kind"] == "savedmodel":
        opened = _savedmodel(job, answer)
    else:
        opened, graph = _classical(job, host, answer)
    _hosts[opened.path] = host, graph
    by = f"{opened.title}, in a Python of its own"
    sha256 = opened.sha256 or file_hash(opened.path)
    return msgspec.structs.replace(
        opened, title=by, sha256=sha256, reference=_HERE, notes=(*answer["notes"], *opened.notes)
    )


def _plain(shapes: Sequence[ArrayShape]) -> list[tuple[str, tuple[int, ...], str]]:
    return [(shape.name, shape.shape, shape.dtype) for shape in shapes]


def _start(python: str, call: str) -> Host:
    """Start an interpreter.

    Raises:
        SourceError: there is none.
    """
    check_interpreter(python)
    _started[python] = Host(python, call)
    return _started[python]


class Stream:
    """An iterable of samples in the user's interpreter, as an iterator here.

    Args:
        python: path of the interpreter.
        path: of the user's file.
        attribute: the name in it.

    Raises:
        SourceError: there is no such interpreter, or the code fails.
    """

    def __init__(self, python: str, path: Path, attribute: str) -> None:
        self._call = f"{path}:{attribute}"
        self._host = _started.get(python) or _start(python, self._call)
        self._host.call = self._call
        self._order = {"stream": self._call, "file": str(path.resolve())}
        self._folder = tempfile.TemporaryDirectory(prefix="edgeml-items-")
        answer = self._host.order("iterate", attribute=attribute, **self._order)
        self.kind = str(answer["kind"])
        """The name of the iterable's class there."""
        self._items = self._given()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def _given(self) -> Iterator[Any]:
        file = Path(self._folder.name) / "items.npz"
        while True:
            self._host.call = self._call
            answer = self._host.order("items", path=str(file), **self._order)
            with np.load(file, allow_pickle=False) as arrays:
                values = (arrays[f"a{at}"] for at in range(len(arrays.files)))
                for names, count in answer["forms"]:
                    item = tuple(itertools.islice(values, count))
                    if names is None:
                        yield item
                    else:
                        yield dict(zip(names, item, strict=True)) if names else item[0]
            if answer["done"]:
                return


def reference(job: ReferenceJob) -> int:
    """Run samples through the model where it lives; returns how many samples."""
    found = _hosts.get(job.source.path)
    if found is None:
        raise ToolchainError(
            "The interpreter that held the model is gone", remedy="Export it once more."
        )
    host, graph = found
    if graph is not None:
        from edgeml.exporter.sources import classical_source

        return classical_source.write_answers(job, *graph)
    folder = job.outputs[0].parent
    parts = {t.name: folder / f"part{at}.npy" for at, t in enumerate(job.source.outputs)}
    named = zip(job.source.inputs, job.inputs, strict=True)
    inputs = {tensor.name: str(file) for tensor, file in named}
    largest = max((load(file) for file in job.inputs), key=lambda column: column.nbytes)
    with writers(job.outputs) as results:
        for rows in spans(largest):
            outputs = {name: str(part) for name, part in parts.items()}
            host.order("answer", method="", inputs=inputs, outputs=outputs, rows=rows)
            for into, part in zip(results, parts.values(), strict=True):
                into.append(np.load(part))
    return results[0].count


def check_interpreter(python: str) -> None:
    """Refuse a path that is no Python.

    Raises:
        SourceError: nothing is there, it cannot be run, or it is something else.
    """
    path = Path(python)
    remedy = "Give the interpreter itself, such as …/venv/bin/python."
    if path.is_dir():
        inner = path / "bin" / "python"
        if inner.exists():
            remedy = f"Give the interpreter in it: --python {inner}"
        raise SourceError(f"{path} is a folder", expected="a Python interpreter", remedy=remedy)
    try:
        found = subprocess.run(
            [python, "-c", "import sys; print('Python', *sys.version_info[:2])"],
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        what = error.strerror if isinstance(error, OSError) else "it does not answer"
        raise SourceError(
            f"{python} cannot be run: {what}", expected="a Python interpreter", remedy=remedy
        ) from error
    words = found.stdout.decode(errors="replace").split()
    if found.returncode or words[:1] != ["Python"]:
        raise SourceError(
            f"{python} is no Python interpreter",
            expected="one of Python 3.8 or later",
            remedy=remedy,
        )
    version = tuple(int(word) for word in words[1:3])
    if version < (3, 8):
        raise SourceError(f"{python} is Python {version[0]}.{version[1]}", expected="3.8 or later")


class Host:
    """The user's interpreter with their model in it. It ends with this process.

    Args:
        python: path of the interpreter.
        call: what to call their code in an error.
    """

    def __init__(self, python: str, call: str) -> None:
        self._python = python
        self.call = call
        reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [
                python,
                "-c",
                users_python.BEGIN,
                str(Path(users_python.__file__).parents[1]),
                str(writer),
            ],
            stdin=subprocess.PIPE,
            pass_fds=(writer,),
            preexec_fn=dying_with(os.getpid()),
        )
        os.close(writer)
        self._answers = os.fdopen(reader, "rb")

    def order(self, order: str, **rest: object) -> dict[str, Any]:
        """Have something done there.

        Raises:
            SourceError: it went wrong, in the user's words.
            ToolchainError: the interpreter died.
        """
        line = json.dumps({"order": order, **rest}).encode() + b"\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answer = self._answers.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            code = self._process.wait()
            raise ToolchainError(
                f"{self._python} ended while it ran {self.call} ({describe_exit(code)})",
                remedy="The log has its last words.",
            )
        told: dict[str, Any] = json.loads(answer)
        if "wrong" in told:
            found, expected, remedy = told["wrong"]
            raise SourceError(found, expected=expected, remedy=remedy)
        if "error" in told:
            raise self._blamed(str(told["error"]), str(told["place"]))
        return told["result"]

    def _blamed(self, error: str, place: str) -> SourceError:
        kind, _, rest = error.partition(": ")
        remedy = "The log has the whole trace."
        if kind == "ModuleNotFoundError" and "'" in rest:
            name = rest.split("'")[1].partition(".")[0]
            remedy = f"Install it there ({self._python} -m pip install {name}), or give the "
            remedy += "interpreter that has it."
        return SourceError(
            f"{place or self.call}: {error}",
            expected=f"{self.call} to run in {self._python} without an error",
            remedy=remedy,
        )


def hand_over(
    path: str, read: Callable[[Path], Any], export_onnx: Callable[[], str]
) -> tuple[Any, Path | None, str]:
    """A torch program by way of a ``.pt2`` that is read here, or else as ONNX.

    Args:
        path: of the ``.pt2``; empty where their torch could not write one.
        read: reads it with the torch here; raises where it cannot.
        export_onnx: has it exported as ONNX there; returns where.

    Returns:
        The program or None, the ONNX file or None, and why it was not the program.
    """
    why = "it has no torch.export"
    if path:
        try:
            return read(Path(path)), None, ""
        except EdgemlError as error:
            why = first_line(error.__cause__ or error)
        except Exception as error:  # noqa: BLE001 - torch raises what it likes for a file of another version
            why = first_line(error)
    return None, Path(export_onnx()), why


def _torch(job: OpenJob, host: Host, answer: Mapping[str, Any]) -> Opened:
    from edgeml.exporter.sources import onnx_source, pt2, torch_source

    program, file, why = hand_over(
        str(answer["path"]),
        pt2.load_program,
        lambda: str(host.order("onnx", folder=str(job.workdir.resolve()))["path"]),
    )
    version = str(answer["version"]).partition("+")[0]
    if file is None:
        return torch_source.opened(
            job, program, title=f"PyTorch {version} module", sha256=torch_source.digest(program)
        )
    made = onnx_source.open_source(msgspec.structs.replace(job, form="onnx", path=file))
    note = (
        f"The torch {version} of {job.python} and the one here do not read each other's files "
        f"({why}): the model went over as ONNX."
    )
    return msgspec.structs.replace(
        made, title=f"PyTorch {version} module, as {made.title}", notes=(note, *made.notes)
    )


def _savedmodel(job: OpenJob, answer: Mapping[str, Any]) -> Opened:
    from edgeml.exporter.sources import tf_source

    path = Path(str(answer["path"]))
    opened = tf_source.open_source(msgspec.structs.replace(job, form="savedmodel", path=path))
    return msgspec.structs.replace(opened, title=f"Keras {answer['version']} model")


def _classical(job: OpenJob, host: Host, answer: Mapping[str, Any]) -> tuple[Opened, Any]:
    from edgeml.exporter.sources import classical_source

    estimator = Away(host, answer, job.workdir)
    opened, graph = classical_source.open_converted(
        job, estimator, Path(str(answer["path"])), by_name=bool(answer["by_name"])
    )
    title = f"scikit-learn {answer['version']} {answer['title']}"
    return msgspec.structs.replace(opened, title=title), (estimator, graph)


class Away:
    """An estimator in the user's interpreter, with the methods that it has there."""

    def __init__(self, host: Host, answer: Mapping[str, Any], folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._methods: list[str] = answer["methods"]
        self.n_features_in_ = int(answer["width"])
        if answer["names"]:
            self.feature_names_in_ = np.array(answer["names"], dtype=object)
        if answer["classes"] is not None:
            self.classes_ = np.array(answer["classes"])

    def __getattr__(self, name: str) -> Callable[[Array], Array]:
        if name.startswith("__") or name not in self.__dict__.get("_methods", ()):
            raise AttributeError(name)

        def ask(rows: Array) -> Array:
            given, made = self._folder / "away-in.npy", self._folder / "away-out.npy"
            np.save(given, np.asarray(rows, np.float32))
            orders = {"inputs": {"X": str(given)}, "outputs": {"": str(made)}}
            self._host.order("answer", method=name, rows=(0, len(rows)), **orders)
            return np.load(made)

        return ask
