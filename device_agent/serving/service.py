"""One model: its queue, its worker, its window, and the thread that drives them.

That thread starts, runs, kills and replaces the worker; callers only queue requests and wait.
Decisions are the cores' (:mod:`admission`, :mod:`restarts`); this is where they meet the clock.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from edgeml.bundle import Bundle, Manifest, open_bundle
from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.config import ModelConfig
from edgeml.device_agent.install.bringup import Serving, Starter, bring_up, exceeded
from edgeml.device_agent.limits.watch import Watch, Watched
from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.serving.intake import Intake, Signal
from edgeml.device_agent.serving.latency import Latency
from edgeml.device_agent.serving.recorder import Recorder
from edgeml.device_agent.serving.restarts import RestartPolicy
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.serving.windows import WindowClock
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.parent import (
    RequestFailedError,
    WorkerDiedError,
    WorkerError,
    WorkerLateError,
)
from edgeml.errors import AgentError, EdgemlError
from edgeml.telemetry import ModelState, Window, check_name

Phase = Literal["starting", "verified", "proved", "active", "failed"]
Details = dict[str, str | int | float]


class Hooks(msgspec.Struct, frozen=True):
    """What a service tells the agent. Called from the service's thread."""

    event: Callable[[str, str, str, Details], None]
    """Kind, sentence, model, details."""
    changed: Callable[[], None]
    """The reported state is another one."""


class Service:
    """A model on its way to serving, serving, or failed.

    Args:
        config: of the model.
        boot: of this run.
        artifacts: folder to extract into.
        logs_folder: for the worker's own output.
        watch: looks after workers.
        hooks: whom to tell.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        boot: str,
        artifacts: Path,
        logs_folder: Path,
        watch: Watch,
        hooks: Hooks,
    ) -> None:
        self._config = config
        self._boot = boot
        self._artifacts = artifacts
        self._logs_folder = logs_folder
        self._watch = watch
        self._hooks = hooks
        self._latency = Latency()
        self._intake = Intake(
            capacity=config.queue,
            latency=self._latency,
            probe_s=bounds.PROBE_S,
            missed=self._missed,
        )
        self._restarts = RestartPolicy(
            limit=config.restarts,
            span_s=bounds.RESTART_SPAN_S,
            base_s=bounds.RESTART_BASE_S,
            cap_s=bounds.RESTART_CAP_S,
        )
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._manifest: Manifest | None = None
        self._deadline_s = bounds.DEADLINE_MS / 1000
        self._serving: Serving | None = None
        self._starter: Starter | None = None
        self._recorder: Recorder | None = None
        self.settled = threading.Event()
        """Set when the model serves for the first time, or has failed to."""
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", config.bundle.stem)[:64] or "model"
        self._state = ModelState(
            name=stem, version="unknown", bundle="", artifact="", phase="starting"
        )

    def start(self) -> None:
        """Begin to bring the model up, on its own thread."""
        self._thread.start()

    @property
    def state(self) -> ModelState:
        """For the reported state."""
        return self._state

    @property
    def ready(self) -> bool:
        """Whether a request would be looked at now."""
        return self._state.phase == "active" and self._serving is not None

    @property
    def manifest(self) -> Manifest:
        """Of the bundle.

        Raises:
            AgentError: the bundle could not be opened.
        """
        if self._manifest is None:
            raise AgentError(f"{self._state.name} has no readable bundle")
        return self._manifest

    @property
    def latency(self) -> Latency:
        """Of the latest inferences."""
        return self._latency

    def submit(
        self,
        inputs: Mapping[str, Array],
        *,
        stream: str = "",
        done: Callable[[Ticket], None] | None = None,
    ) -> Ticket:
        """Offer a request.

        Args:
            inputs: as :func:`edgeml.device_agent.serving.requests.feed` makes them.
            stream: of whose waiting requests only the newest is kept; empty for none.
            done: called once when it has ended, on whichever thread ends it.
        """
        return self._intake.submit(inputs, deadline_s=self._deadline_s, stream=stream, done=done)

    def unfit(self) -> None:
        """Count a request that did not fit the model's inputs."""
        self._missed("failed")

    def close_window(self, *, now: float, wall_ms: int) -> Window | None:
        """End the open window; None where there is none or no request came."""
        return self._recorder.close(now=now, wall_ms=wall_ms) if self._recorder else None

    @property
    def window_due(self) -> float:
        """When the open window ends, monotonic seconds."""
        return self._recorder.due if self._recorder else float("inf")

    def stop(self, drain_s: float) -> None:
        """Take nothing more, let what waits finish within ``drain_s``, end worker and thread."""
        self._intake.end(drain_s)
        starter = None if self.ready else self._starter
        if starter is not None:  # it loads a model that nobody will use
            starter.abort()
        if self._thread.ident is not None:
            self._thread.join()

    # On the model's own thread, from here on.

    def _run(self) -> None:
        # NaN and infinity are for the statistics to count, not for NumPy to warn of.
        np.seterr(all="ignore")
        try:
            self._come_up()
            while self._serving is not None:
                found = self._intake.next(self._is_lost)
                if found is Signal.END:
                    break
                if isinstance(found, Ticket):
                    self._serve(found)
                else:
                    self._replace(WorkerDiedError("The worker died while it had nothing to do"))
        except EdgemlError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave callers waiting
            logs.LOG.exception("fault", extra={"fields": {"model": self._state.name}})
            self._fail(error)
        finally:
            self._intake.refuse("the model does not serve any more")
            self._stop_worker()
            self._settle()

    def _come_up(self) -> None:
        bundle = open_bundle(self._config.bundle)
        manifest = bundle.manifest
        self._manifest = manifest
        names = {"model": manifest.name, "version": manifest.version}
        names |= {f"artifact {entry.id!r}": entry.id for entry in manifest.artifacts}
        for what, name in names.items():
            check_name(name, what)  # they become parts of topics and messages
        self._report("verified", name=manifest.name, version=manifest.version, bundle=bundle.sha256)
        budgets = manifest.budgets
        deadline_ms = self._config.deadline_ms or budgets.deadline_ms or bounds.DEADLINE_MS
        memory_mb = self._config.memory_mb or budgets.memory_mb
        self._deadline_s = deadline_ms / 1000
        starter = Starter(
            log=self._logs_folder / f"{manifest.name}.log",
            start_timeout_s=self._config.start_timeout_s,
            limit_bytes=int(memory_mb * 1e6) if memory_mb else None,
            watch=self._watch,
            gone=self._intake.notify,
        )
        self._starter = starter
        serving = bring_up(
            bundle,
            wanted=self._config.target,
            threads=self._config.threads,
            folder=self._artifacts / bundle.sha256[:16],
            starter=starter,
            cancelled=lambda: self._intake.ending,
        )
        self._serving = serving
        for seconds in serving.service_times:
            self._latency.add(seconds)
        for entry in serving.rejected:
            logs.warn("passed over", artifact=entry.artifact, reason=entry.reason)
        self._report(
            "proved",
            artifact=serving.artifact.id,
            memory_limit="poll" if memory_mb else "none",
        )
        self._recorder = self._make_recorder(bundle, serving)
        self._intake.open()
        self._report("active")
        logs.info(
            "serving",
            model=manifest.name,
            version=manifest.version,
            artifact=serving.artifact.id,
            cosine=f"{serving.proof.cosine:.6f}",
            deadline_ms=f"{deadline_ms:g}",
            memory_mb=f"{memory_mb:g}" if memory_mb else "none",
        )
        self._settle()

    def _settle(self) -> None:
        self.settled.set()
        self._hooks.changed()

    def _make_recorder(self, bundle: Bundle, serving: Serving) -> Recorder:
        manifest = bundle.manifest
        clock = WindowClock(
            self._config.window_s, now=time.monotonic(), wall_ms=time.time_ns() // 10**6
        )
        return Recorder(
            baseline=bundle.baseline(),
            clock=clock,
            boot=self._boot,
            model=manifest.name,
            version=manifest.version,
            bundle=bundle.sha256,
            artifact=serving.artifact.id,
        )

    def _is_lost(self) -> bool:
        return self._serving is not None and self._serving.watched.dead

    def _serve(self, ticket: Ticket) -> None:
        assert self._serving is not None
        worker = self._serving.watched.worker
        lost: WorkerError | None = None
        outcome: Outcome
        try:
            outputs = worker.run(ticket.inputs, timeout_s=ticket.deadline - time.monotonic())
            outcome, message = "served", ""
        except RequestFailedError as error:
            outcome, message, outputs = "failed", str(error), {}
        except WorkerLateError as error:
            lost = error
            outcome, outputs = "late", {}
            message = f"The deadline of {self._deadline_s * 1000:g} ms passed; the work was ended"
        except WorkerDiedError as error:
            lost = error
            outcome, message, outputs = "failed", str(error), {}
        except Exception as error:
            ticket.end("failed", {}, f"A fault of the agent: {error}")
            self._missed("failed")
            raise
        self._intake.finish(outcome)
        ticket.end(outcome, outputs, message)
        if outcome == "served":
            assert self._recorder is not None
            self._recorder.served(ticket.inputs, outputs)
        else:
            self._missed(outcome)
        if lost is not None:
            self._replace(lost)

    def _replace(self, lost: WorkerError) -> None:
        """Start another worker, unless the agent ends meanwhile.

        Raises:
            AgentError: too many were lost: the model is given up.
        """
        assert self._serving is not None
        self._intake.refuse("the worker is being replaced")
        kind, message = _breach(lost, self._serving.watched)
        serving = self._stop_worker()
        assert serving is not None
        assert self._starter is not None
        logs.warn(kind, model=self._state.name, reason=message)
        self._hooks.event(kind, message, self._state.name, {"recent": self._restarts.recent + 1})
        while True:
            delay = self._restarts.died(time.monotonic())
            if delay is None:
                raise AgentError(
                    f"{self._config.restarts + 1} workers of {self._state.name} were lost within "
                    f"{bounds.RESTART_SPAN_S:g} s, the last: {message.rstrip('.')}",
                    remedy="Check its budgets against `edgeml bench`, then start the agent again.",
                )
            if self._intake.pause(delay):
                return
            try:
                watched = self._starter.start(serving.spec)
                # The first inference is slow; a caller's deadline would not allow for it.
                watched.worker.run(serving.warmup, timeout_s=self._config.start_timeout_s)
            except WorkerError as error:
                message = str(error)
                logs.warn("restart failed", model=self._state.name, reason=message)
                continue
            self._serving = msgspec.structs.replace(serving, watched=watched)
            self._intake.open()
            logs.info("replaced", model=self._state.name, pid=watched.worker.pid)
            return

    def _stop_worker(self) -> Serving | None:
        serving, self._serving = self._serving, None
        if serving is not None and self._starter is not None:
            self._starter.stop(serving.watched)
        return serving

    def _fail(self, error: Exception) -> None:
        first = self._recorder is None
        if self._intake.ending:
            return
        kind = "refused" if first else "given-up"
        logs.warn(kind, model=self._state.name, reason=str(error))
        self._report("failed", error=str(error)[:4000])
        self._hooks.event(kind, str(error)[:4000], self._state.name, {})

    # From any thread.

    def _report(self, phase: Phase, **changes: str) -> None:
        changes.setdefault("error", "")
        self._state = msgspec.structs.replace(self._state, phase=phase, **changes)
        self._hooks.changed()

    def _missed(self, outcome: Outcome) -> None:
        if self._recorder is not None:
            self._recorder.missed(outcome)


def _breach(lost: WorkerError, watched: Watched) -> tuple[str, str]:
    """Kind of event and sentence for a worker that is gone."""
    memory = exceeded(watched)
    if memory:
        return "memory-exceeded", memory
    if isinstance(lost, WorkerLateError):
        return "deadline-missed", str(lost)
    return "worker-died", str(lost)
