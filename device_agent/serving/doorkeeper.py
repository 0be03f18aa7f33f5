"""Programs at the door of one model: who looks there, who turned back, and who came too late."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeml.device_agent.serving.door import Count, Door
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.lineup import Lineup


class Doorkeeper:
    """Args:
    door: of the model.
    intake: shows there what it would say.
    lineup: counts who turned back.
    asked: told of each request.
    """

    def __init__(
        self, door: Door, intake: Intake, lineup: Lineup, *, asked: Callable[[float], None]
    ) -> None:
        self._door = door
        self._intake = intake
        self._lineup = lineup
        self._asked = asked

    def comes(self, count: Count) -> None:
        """A program looks at the door from now on, and counts itself there."""
        self._door.counts(count)
        self._intake.show()

    def leaves(self, count: Count) -> None:
        """A program is gone; what it counted at the door stays."""
        if turned_back := self._door.forget(count):
            self._lineup.missed("shed", strained=True, count=turned_back)
        self._intake.show()

    def turns_back(self, *, passed: bool) -> float:
        """Refuse and count a request of no stream for which the door has been shut since it was on
        its way: another one was before it. Admission would say the same, and take longer.

        Args:
            passed: whether it came with a pass.

        Returns:
            Seconds for which others would be refused as well; none where it is not positive, and
            this one has to be offered.
        """
        now = time.monotonic()
        left_s = self._door.shut_for(now)
        if left_s > 0:
            self._asked(now)
            self._lineup.missed("shed", strained=True)
            if passed:
                self._intake.show(arrived=True)
        return left_s
