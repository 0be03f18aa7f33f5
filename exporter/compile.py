"""Converting the source for each target, in children of their own, two at a time.

All precisions of a target share a child, and with it the imports and the float conversion. A target
that refuses the model, or whose converter fails or dies, takes nothing from the others.

Most of the time of a small model's conversion goes into imports (litert-torch 9 s, TensorFlow 8 s,
torch 3 s of a core), so the first child begins with them while the source is still being read on
another core.

A conversion that was made before comes from the cache, by what it was made of.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import msgspec

from edgeml.errors import EdgemlError, RefusedError
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.child import Child, Children
from edgeml.exporter.repeat.shelf import Shelf
from edgeml.targets.compiling import CompileJob, CompileResult, compile_here
from edgeml.targets.registry import SourceKind

Outcome = CompileResult | EdgemlError
Jobs = Sequence[tuple[Candidate, CompileJob]]
Done = Callable[[Candidate, Outcome], None]

MOST_AT_ONCE = 4
"""A conversion can take gigabytes, however many cores there are."""

_IMPORTS: Mapping[tuple[str, SourceKind], tuple[str, ...]] = {
    ("tflite", "torch"): ("litert_torch", "ai_edge_quantizer"),
    ("tflite", "savedmodel"): ("tensorflow", "ai_edge_quantizer"),
    ("tflite", "onnx"): ("tensorflow", "ai_edge_quantizer"),
    ("onnx", "torch"): ("torch", "onnxscript"),
    ("onnx", "savedmodel"): ("tensorflow", "tf2onnx"),
    ("onnx", "tflite"): ("tensorflow", "tf2onnx"),
    ("openvino", "torch"): ("torch",),
}
"""What a conversion imports first, for those that take seconds; the slowest targets first."""


class ConvertTask(msgspec.Struct, frozen=True):
    """A conversion, as it goes to a child."""

    target: str
    job: CompileJob


class Modules(msgspec.Struct, frozen=True):
    """What a child is to import."""

    names: tuple[str, ...]


class Converters:
    """The conversions of an export. A context manager: leaving it early ends what is going on.

    Args:
        targets: for which there will be jobs.
        kind: of the source.
        children: where they run.
        shelf: where conversions that were made before are; None: nowhere.
    """

    def __init__(
        self,
        targets: Sequence[str],
        kind: SourceKind,
        children: Children,
        *,
        shelf: Shelf | None = None,
    ) -> None:
        self._children = children
        self._shelf = shelf
        self._done: Done | None = None
        workers = max(1, min(len(targets), os.cpu_count() or 1, MOST_AT_ONCE))
        slowest = [name for name, source in _IMPORTS if source == kind and name in targets]
        order = [*slowest, *(name for name in targets if name not in slowest)]
        early = slowest[: workers - 1]  # one core is for reading the source
        self._jobs: dict[str, Future[Jobs]] = {name: Future() for name in order}
        self._pool = ThreadPoolExecutor(workers)
        self._outcomes = [
            self._pool.submit(self._of_target, name, _IMPORTS[name, kind] if name in early else ())
            for name in order
        ]

    def __enter__(self) -> Converters:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._children.close()  # the threads end with them
        for future in self._jobs.values():
            future.cancel()
        self._pool.shutdown(cancel_futures=True)

    def run(self, jobs: Mapping[str, Jobs], *, done: Done) -> dict[Candidate, Outcome]:
        """Run all conversions.

        Args:
            jobs: of each target, float first; of a target that is refused after all, none.
            done: told of each as it ends, from several threads.

        Returns:
            What was made, or why it was not, in the order of ``jobs``. A refusal by a target's
            first precision stands for the later ones: an operator that is missing in float is
            missing in int8.
        """
        self._done = done
        for name, promised in self._jobs.items():
            promised.set_result(jobs.get(name, ()))
        found: dict[Candidate, Outcome] = {}
        for future in self._outcomes:
            found |= future.result()
        return {candidate: found[candidate] for items in jobs.values() for candidate, _ in items}

    def _of_target(self, name: str, modules: tuple[str, ...]) -> dict[Candidate, Outcome]:
        found: dict[Candidate, Outcome] = {}
        with self._children.child() as child:
            if modules:
                # What fails here fails again below, where it is told.
                with contextlib.suppress(EdgemlError):
                    child.call(
                        "edgeml.exporter.compile:prepare",
                        Modules(modules),
                        int,
                        step=f"The converter for {name}",
                    )
            for candidate, job in self._jobs[name].result():
                earlier = next(iter(found.values()), None)
                if isinstance(earlier, RefusedError):
                    outcome: Outcome = earlier
                else:
                    outcome = self.one(child, candidate, job)
                found[candidate] = outcome
                if self._done is not None:
                    self._done(candidate, outcome)
        return found

    def one(self, child: Child, candidate: Candidate, job: CompileJob) -> Outcome:
        """Run one conversion in a child, or take it from the cache."""
        key = "" if self._shelf is None else self._shelf.key(candidate.target, job)
        if self._shelf is not None and (again := self._shelf.find(key, job)) is not None:
            return again
        try:
            made = child.call(
                "edgeml.exporter.compile:convert",
                ConvertTask(candidate.target, job),
                CompileResult,
                step=f"The conversion to {candidate}",
            )
        except EdgemlError as error:
            return error
        if self._shelf is not None:
            self._shelf.keep(key, candidate, job, made)
        return made


def convert(task: ConvertTask) -> CompileResult:
    """In the child: run one conversion."""
    return compile_here(task.target, task.job)


def prepare(modules: Modules) -> int:
    """In the child: import what the conversion will need."""
    for name in modules.names:
        importlib.import_module(name)
    return len(modules.names)
