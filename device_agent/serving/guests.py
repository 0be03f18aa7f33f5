"""The guest of a service: how a second version comes to take part, and how it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from edgeml.device_agent.install.lifecycle import Beside
from edgeml.device_agent.serving.guest import Guest
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.lineup import Lineup
from edgeml.device_agent.serving.losses import breach
from edgeml.device_agent.serving.pairs import Disagreement
from edgeml.device_agent.serving.runner import Runner, Starter
from edgeml.device_agent.serving.shadow import Shadow
from edgeml.device_agent.serving.snapshot import GuestSnapshot
from edgeml.device_agent.serving.split import Split
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.parent import WorkerDiedError, WorkerError


class Guests:
    """At most one at a time.

    Args:
        intake: of the model.
        lineup: of the model.
        starter: stops a guest's worker.
        timeout_s: for one inference of a shadow.
        report: told of a shadow's disagreement now and then, and at its end.
    """

    def __init__(
        self,
        intake: Intake,
        lineup: Lineup,
        starter: Starter,
        *,
        timeout_s: float,
        report: Callable[[Disagreement], None],
    ) -> None:
        self._intake = intake
        self._lineup = lineup
        self._starter = starter
        self._timeout_s = timeout_s
        self._report = report
        self._guest: Guest | None = None
        self._parting: Guest | None = None
        self._lost: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()

    def welcome(
        self, runner: Runner, *, mode: Beside, share: float, lost: Callable[[str], None]
    ) -> None:
        """Have a proved runner take part from the next request on.

        Args:
            runner: of the same inputs and outputs as what serves.
            mode: what it is there for.
            share: of the requests, for a split.
            lost: called with the reason when its worker is gone; it takes part no more then.
        """
        guest: Guest
        if mode == "shadow":
            guest = Shadow(
                runner,
                waiting=lambda: self._intake.waiting,
                until_idle=self._intake.until_idle,
                timeout_s=self._timeout_s,
                lost=lambda error: self.see_off(runner, error),
                report=self._report,
            )
        else:
            self._lineup.host(runner.variant)
            runner.worker.serves()
            guest = Split(runner, share=share)
        with self._lock:
            self._guest, self._lost = guest, lost
        self.look()  # it may have died in between

    @property
    def present(self) -> bool:
        """Whether there is one, which may want to see inputs."""
        return self._guest is not None

    def route(self, ticket: Ticket, runner: Runner) -> Runner:
        """Who is to run a request: the runner in place, or the guest's."""
        guest = self._guest
        return guest.runner if guest is not None and guest.takes(ticket) else runner

    def show(self, ticket: Ticket, runner: Runner, outputs: Mapping[str, Array]) -> None:
        """Let the guest see what another runner answered."""
        guest = self._guest
        if guest is not None and guest.runner is not runner:
            guest.saw(ticket, outputs)

    def look(self) -> None:
        """See off a guest whose worker has ended. Where a request is at work on it, whoever runs
        that sees the end, and knows why."""
        guest = self._guest
        if guest is None or not guest.runner.watched.dead:
            return
        if not self._intake.uses(guest.runner):
            # On a thread of its own: a process that held a GPU takes a while to end, and who calls
            # here looks after others meanwhile.
            threading.Thread(target=self._mourn, args=(guest.runner,), daemon=True).start()

    def _mourn(self, runner: Runner) -> None:
        self.see_off(runner, WorkerDiedError(runner.worker.obituary()))

    def see_off(self, runner: Runner, error: WorkerError) -> bool:
        """End a guest's part where ``runner`` is its own; returns whether it is. What is left of it
        goes with :meth:`dismiss`."""
        with self._lock:
            guest = self._guest
            if guest is None or guest.runner is not runner:
                return False
            self._guest, self._parting = None, guest
            lost = self._lost
        _, message = breach(error, runner)
        lost(message)
        return True

    def dismiss(self) -> None:
        """End the part of a guest; nothing where there is none."""
        with self._lock:
            guest, self._guest, self._parting = self._guest or self._parting, None, None
        if guest is None:
            return
        self._intake.release(guest.runner)
        guest.close()
        self._lineup.host(None)
        self._starter.stop(guest.runner)
        if guest.disagreement is not None:
            self._report(guest.disagreement)

    def describe(self) -> GuestSnapshot | None:
        """For the model's snapshot."""
        guest = self._guest
        if guest is None:
            return None
        variant = guest.runner.variant
        return GuestSnapshot(
            version=variant.bundle.manifest.version,
            bundle=variant.bundle.sha256,
            artifact=variant.artifact.id,
            share=guest.share,
            disagreement=guest.disagreement,
        )
