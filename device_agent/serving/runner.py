"""One loaded worker of one artifact of one bundle: what everything that serves a request is.

A :class:`Variant` is an artifact as it runs on this device, and what is known of it; a
:class:`Runner` is a worker of it. Whatever puts another worker in place (a restart, a standby, a
step on the ladder, another version) prepares another runner.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgeml.bundle import Artifact, Bundle, Parity
from edgeml.device_agent.limits import gpu
from edgeml.device_agent.limits.watch import Watch, Watched
from edgeml.device_agent.serving.latency import Latency
from edgeml.device_agent.worker.layout import Array, Layout
from edgeml.device_agent.worker.parent import Worker, WorkerError
from edgeml.device_agent.worker.wire import WorkerSpec
from edgeml.targets.tensorrt import caches

if TYPE_CHECKING:
    from edgeml.device_agent.serving.recorder import Recorder
    from edgeml.device_agent.serving.snapshot import Profile


class Variant:
    """An artifact of a bundle on this device.

    Args:
        bundle: whose hashes were checked.
        artifact: of it.
        folder: to extract the artifact into.
        layout: of the memory that its workers share.
        threads: of the runtime.
        limit_bytes: of a worker's memory, while it loads, too; None for no limit.

    Attributes:
        latency: of its inferences.
        proof: how near it came to the golden vectors; None before.
        profile: what it costs here; None before it was measured.
        start_ms: what the latest of its workers took until it could serve.
        recorder: of the open window, while it serves.
    """

    def __init__(
        self,
        bundle: Bundle,
        artifact: Artifact,
        *,
        folder: Path,
        layout: Layout,
        threads: int,
        limit_bytes: int | None,
    ) -> None:
        self.bundle = bundle
        self.artifact = artifact
        self.layout = layout
        self.limit_bytes = limit_bytes
        self._folder = folder
        self._threads = threads
        self.latency = Latency()
        self.proof: Parity | None = None
        self.profile: Profile | None = None
        self.start_ms = 0.0
        self.recorder: Recorder | None = None
        self.warmup: dict[str, Array] = {
            name: array[:1] for name, array in bundle.golden().inputs.items()
        }

    def spec(self) -> WorkerSpec:
        """What a worker of it is told. Extracts the artifact, once.

        Raises:
            WorkerError: there is no room for it.
        """
        artifact = self.artifact
        if not self._folder.exists():  # else a worker may have its files mapped
            draft = self._folder.with_name(f"{self._folder.name}.{uuid.uuid4().hex}")
            try:
                self.bundle.extract(artifact, draft)
                draft.rename(self._folder)
            except OSError as error:
                shutil.rmtree(draft, ignore_errors=True)
                raise WorkerError(f"{artifact.id} cannot be extracted: {error.strerror}") from error
        return WorkerSpec(
            target=artifact.target,
            entry=str(self._folder / artifact.files[0].path),
            threads=self._threads,
            options=dict(artifact.requires.options),
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            layout=self.layout,
        )


class Runner:
    """A worker of a variant, loaded.

    Attributes:
        variant: of which.
        watched: the worker, and what watches it.
        start_ms: from starting the process until it could serve.
    """

    def __init__(self, variant: Variant, watched: Watched) -> None:
        self.variant = variant
        self.watched = watched
        self.start_ms = 0.0

    @property
    def worker(self) -> Worker:
        """The process."""
        return self.watched.worker


class Starter:
    """How the workers of one model are started and stopped.

    Args:
        log: the worker's own output.
        engines: where those that TensorRT builds are kept; None for the user's cache folder.
        start_timeout_s: to load the model; also bounds each inference before it serves.
        watch: holds and looks after them.
        gone: called by the watch when one is no more.
    """

    def __init__(
        self,
        *,
        log: Path,
        engines: Path | None,
        start_timeout_s: float,
        watch: Watch,
        gone: Callable[[], None],
    ) -> None:
        self.start_timeout_s = start_timeout_s
        self._log = log
        self._engines = engines
        self._watch = watch
        self._gone = gone
        self._lock = threading.Lock()
        self._tried: set[Worker] = set()
        self._aborted = False

    def load(self, variant: Variant) -> Runner:
        """A worker with its model loaded, under watch.

        Raises:
            WorkerError: it does not come up.
        """
        begin = time.monotonic()
        limit, spec = variant.limit_bytes, variant.spec()
        options = gpu.within(spec.options, spec.target, limit, shared=gpu.shares_memory())
        if spec.target == "tensorrt" and self._engines is not None:
            options[caches.FOLDER] = str(self._engines)
        hold = self._watch.hold(limit, data_limit=spec.target not in gpu.GPU_TARGETS)
        try:
            worker = Worker(msgspec.structs.replace(spec, options=options), log=self._log)
        except WorkerError:
            hold.close()
            raise
        hold.take(worker.pid)  # before wait_ready() lets it take memory
        runner = Runner(variant, self._watch.add(worker, hold=hold, gone=self._gone))
        try:
            with self.trying(runner):
                worker.wait_ready(self.start_timeout_s)
        except WorkerError as error:
            self.stop(runner)
            raise _reason(runner, error) from error
        self._started(runner, begin)
        return runner

    def start(self, variant: Variant) -> Runner:
        """A worker of a variant that has proved itself before, warm.

        Raises:
            WorkerError: it does not come up.
        """
        begin = time.monotonic()
        runner = self.load(variant)
        try:
            # The first inference is slow; a caller's deadline would not allow for it.
            with self.trying(runner):
                runner.worker.run(variant.warmup, timeout_s=self.start_timeout_s)
        except WorkerError as error:
            self.stop(runner)
            raise _reason(runner, error) from error
        self._started(runner, begin)
        return runner

    def stop(self, runner: Runner) -> None:
        """Kill a worker and wait for its end."""
        self._watch.remove(runner.watched)
        runner.watched.close()

    @contextlib.contextmanager
    def trying(self, runner: Runner) -> Generator[None]:
        """Until it has shown that it can serve: :meth:`abort` kills it."""
        with self._lock:
            self._tried.add(runner.worker)
            if self._aborted:
                runner.worker.kill()
        try:
            yield
        finally:
            with self._lock:
                self._tried.discard(runner.worker)

    def abort(self) -> None:
        """Kill the workers that load or prove themselves, and those to come, from any thread:
        nobody waits for them."""
        with self._lock:
            self._aborted = True
            for worker in self._tried:
                worker.kill()

    def _started(self, runner: Runner, begin: float) -> None:
        runner.start_ms = runner.variant.start_ms = (time.monotonic() - begin) * 1000


def _reason(runner: Runner, error: WorkerError) -> WorkerError:
    memory = runner.watched.memory_breach()
    return WorkerError(memory) if memory else error
