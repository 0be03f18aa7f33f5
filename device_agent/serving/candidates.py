"""The artifacts of a bundle as one model's configuration has them, and a worker of the best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edgeml.bundle import Bundle
from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.config import ModelConfig
from edgeml.device_agent.install.bringup import Proved, bring_up, qualify, variants
from edgeml.device_agent.install.selection import Rejected
from edgeml.device_agent.serving.profiles import Profiles
from edgeml.device_agent.serving.progress import Progress
from edgeml.device_agent.serving.room import peak_bytes
from edgeml.device_agent.serving.runner import Runner, Starter, Variant
from edgeml.errors import AgentError


class Found(NamedTuple):
    """Artifacts that may be tried, best first, and those that may not."""

    variants: list[Variant]
    rejected: list[Rejected]

    @property
    def need_bytes(self) -> int:
        """What a worker of the best takes at its peak."""
        return peak_bytes(self.variants[0]) if self.variants else 0


class Candidates:
    """Args:
    config: of the model.
    artifacts: folder to extract into.
    profiles: of this device.
    starter: of the model's workers.
    progress: of the model.
    before: what serves now.
    ending: asked between artifacts.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        artifacts: Path,
        profiles: Profiles,
        starter: Starter,
        progress: Progress,
        before: Callable[[], Bundle | None],
        ending: Callable[[], bool],
    ) -> None:
        self._config = config
        self._artifacts = artifacts
        self._profiles = profiles
        self._starter = starter
        self._progress = progress
        self._before = before
        self._ending = ending

    def find(self, bundle: Bundle) -> Found:
        """What of a bundle may run here."""
        memory_mb = self._config.memory_mb or bundle.manifest.budgets.memory_mb
        return Found(
            *variants(
                bundle,
                wanted=self._config.target,
                threads=self._config.threads,
                limit_bytes=int(memory_mb * 1e6) if memory_mb else None,
                folder=self._artifacts / bundle.sha256[: bounds.BUNDLE_DIGITS],
                profiles=self._profiles,
            )
        )

    def bring_up(
        self, bundle: Bundle, found: Found, cancelled: Callable[[], bool], *, in_time: bool
    ) -> Proved:
        """A runner of a bundle.

        Args:
            bundle: of this model.
            found: of it.
            cancelled: asked between artifacts.
            in_time: refuse what does not meet the deadline; a model that served yesterday is not
                refused for a device that is busy starting.

        Raises:
            AgentError: no artifact serves here.
        """
        proved = bring_up(
            bundle,
            found.variants,
            found.rejected,
            starter=self._starter,
            profiles=self._profiles,
            progress=self._progress,
            before=self._before(),
            deadline_s=self.deadline_s(bundle) if in_time else None,
            cancelled=lambda: cancelled() or self._ending(),
        )
        name = bundle.manifest.name
        for entry in proved.rejected:
            logs.warn("passed over", model=name, artifact=entry.artifact, reason=entry.reason)
        return proved

    def deadline_s(self, bundle: Bundle) -> float:
        """From arrival to answer."""
        budgets = bundle.manifest.budgets
        return (self._config.deadline_ms or budgets.deadline_ms or bounds.DEADLINE_MS) / 1000

    def first(self, variant: Variant) -> Runner:
        """A runner of an artifact that never served here, proved and measured.

        Raises:
            AgentError: it does not come up, or does not prove itself.
        """
        runner = self._starter.load(variant)
        try:
            timeout_s = self._config.start_timeout_s
            with self._starter.trying(runner):
                missed = qualify(runner, timeout_s, self._profiles, deadline_s=None)
        except AgentError:
            self._starter.stop(runner)
            raise
        if missed:
            self._starter.stop(runner)
            raise AgentError(missed)
        return runner
