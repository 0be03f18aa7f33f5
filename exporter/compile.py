"""Converting the source for each target, in children of their own, two at a time.

All precisions of a target share a child, and with it the imports and the float conversion. A target
that refuses the model, or whose converter fails or dies, takes nothing from the others.

Most of the time of a small model's conversion goes into imports (seconds of a core: litert-torch
4.4, TensorFlow 2.8, torch 1.8), so the first child begins with them while the source is still being
read on another core; and with those of the quantizer, if there is still time then.

A conversion that was made before comes from the cache, by what it was made of.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import msgspec

from edgeml.errors import EdgemlError, RefusedError
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.child import Child
from edgeml.exporter.children import Children
from edgeml.exporter.origin import Module
from edgeml.exporter.repeat.shelf import Shelf
from edgeml.targets.compiling import CompileJob, CompileResult, compile_here
from edgeml.targets.registry import SourceKind, target

Outcome = CompileResult | EdgemlError
Jobs = Sequence[tuple[Candidate, CompileJob]]
Done = Callable[[Candidate, Outcome], None]

MOST_AT_ONCE = 4
"""A conversion can take gigabytes, however many cores there are."""

TORCH = ("torch", "torch.export.pt2_archive._package")
"""What every use of an exported torch program imports."""

FRAMEWORKS: Mapping[str, tuple[str, ...]] = {"torch": TORCH, "tensorflow": ("tensorflow",)}
"""What several processes of an export may begin with, so that one imports it for them all."""

_ONNX = ("onnx", "onnxruntime.quantization.shape_inference")
_IMPORTS: Mapping[tuple[str, SourceKind], tuple[str, ...]] = {
    ("tflite", "torch"): (*TORCH, "litert_torch", "torch._functorch.aot_autograd"),
    ("executorch", "torch"): TORCH,
    ("coreml", "torch"): TORCH,
    ("tflite", "savedmodel"): ("tensorflow",),
    ("tflite", "onnx"): ("tensorflow",),
    ("tflite", "classical"): ("tensorflow",),
    ("onnx", "torch"): (
        *TORCH,
        "onnxscript.function_libs.torch_lib.ops",
        "torch.onnx._internal.exporter._core",
        "torch.onnx._internal.exporter._torchlib.ops",
        *_ONNX,
        "edgeml.targets.onnx.torchlib:read",
    ),
    ("onnx", "savedmodel"): ("tensorflow", "tf2onnx", *_ONNX),
    ("onnx", "tflite"): ("tensorflow", "tf2onnx", *_ONNX),
    ("onnx", "onnx"): _ONNX,
    ("onnx", "classical"): _ONNX,
    ("openvino", "torch"): (*TORCH, "openvino.frontend.pytorch.fx_decoder"),
    ("openvino", "savedmodel"): ("openvino",),
    ("openvino", "onnx"): ("openvino",),
    ("openvino", "classical"): ("openvino",),
}
"""What a conversion imports first, for those that take long; the slowest targets first. Parts that
a framework would import late are named, whether they are its users' business or not: one that
another version lacks is passed over. With a colon it is a function, to be called."""

_FLOAT = {"fp32", "fp16"}

_QUANTIZERS: Mapping[str, tuple[str, ...]] = {
    "tflite": ("ai_edge_quantizer.quantizer",),
    "openvino": ("nncf", "nncf.openvino.quantization.quantize_model"),
}


def begins_with(name: str, kind: SourceKind) -> str:
    """Which of :data:`FRAMEWORKS` a target's conversions begin with; empty: none."""
    modules = _IMPORTS.get((name, kind), ())
    begun = (each for each, first in FRAMEWORKS.items() if modules[: len(first)] == first)
    return next(begun, "")


class ConvertTask(msgspec.Struct, frozen=True):
    """A conversion, as it goes to a child."""

    target: str
    job: CompileJob


class Converters:
    """The conversions of an export. A context manager: leaving it early ends what is going on.

    Args:
        candidates: for which there will be jobs.
        kind: of the source.
        children: where they run.
        shelf: where conversions that were made before are; None: nowhere.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        kind: SourceKind,
        children: Children,
        *,
        shelf: Shelf | None = None,
    ) -> None:
        self._children = children
        self._shelf = shelf
        self._order: tuple[Candidate, ...] = ()
        self._done: Done = _untold
        targets = tuple(dict.fromkeys(each.target for each in candidates))
        cores = os.cpu_count() or 1
        workers = max(1, min(len(targets), cores, MOST_AT_ONCE))
        slowest = [name for name, source in _IMPORTS if source == kind and name in targets]
        order = [*slowest, *(name for name in targets if name not in slowest)]
        early = slowest[: min(workers, cores - 1)]  # one core is for reading the source
        quantized = {each.target for each in candidates if each.precision not in _FLOAT}
        self._jobs: dict[str, Future[Jobs]] = {name: Future() for name in order}
        self._pool = ThreadPoolExecutor(workers)
        self._outcomes: list[Future[dict[Candidate, Outcome]]] = []
        for name in order:
            modules = list(_IMPORTS[name, kind]) if name in early else []
            if modules and name in quantized and name in _QUANTIZERS:
                modules += _QUANTIZERS[name]
            if modules:
                modules += [target(name).compile]
            first = begins_with(name, kind)
            self._outcomes.append(self._pool.submit(self._of_target, name, first, modules))

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

    def begin(self, jobs: Mapping[str, Jobs], *, done: Done) -> None:
        """Run all conversions, and do not wait for them.

        Args:
            jobs: of each target, float first; of a target that is refused after all, none.
            done: told of each as it ends, from several threads.
        """
        self._done = done
        self._order = tuple(candidate for items in jobs.values() for candidate, _ in items)
        for name, promised in self._jobs.items():
            promised.set_result(jobs.get(name, ()))

    def finish(self) -> dict[Candidate, Outcome]:
        """Wait for all that was begun.

        Returns:
            What was made, or why it was not, in the order of the jobs. A refusal by a target's
            first precision stands for the later ones: an operator that is missing in float is
            missing in int8.
        """
        found: dict[Candidate, Outcome] = {}
        for future in self._outcomes:
            found |= future.result()
        return {candidate: found[candidate] for candidate in self._order}

    def run(self, jobs: Mapping[str, Jobs], *, done: Done) -> dict[Candidate, Outcome]:
        """:meth:`begin` and :meth:`finish`."""
        self.begin(jobs, done=done)
        return self.finish()

    def _of_target(self, name: str, first: str, modules: Sequence[str]) -> dict[Candidate, Outcome]:
        found: dict[Candidate, Outcome] = {}
        with self._children.child(first) as child:
            for module in modules:
                if self._jobs[name].done():
                    break
                # What fails here fails again below, where it is told.
                with contextlib.suppress(EdgemlError):
                    child.call(
                        "edgeml.exporter.origin:prepare",
                        Module(module),
                        str,
                        step=f"The converter for {name}",
                    )
            for candidate, job in self._jobs[name].result():
                earlier = next(iter(found.values()), None)
                if isinstance(earlier, RefusedError):
                    outcome: Outcome = earlier
                else:
                    outcome = self.one(child, candidate, job)
                found[candidate] = outcome
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


def _untold(candidate: Candidate, outcome: Outcome) -> None:
    """For conversions whose ends interest nobody yet."""
