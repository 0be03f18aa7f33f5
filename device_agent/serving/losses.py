"""What is said of a worker that is gone."""

from __future__ import annotations

from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.worker.parent import WorkerError, WorkerLateError


def breach(lost: WorkerError, runner: Runner) -> tuple[str, str]:
    """Kind of event and sentence for a worker that is gone."""
    memory = runner.watched.memory_breach()
    if memory:
        return "memory-exceeded", memory
    if isinstance(lost, WorkerLateError):
        return "deadline-missed", str(lost)
    return "worker-died", str(lost)
