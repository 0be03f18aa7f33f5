"""The lifecycle's rules, as examples and as laws over every order of steps."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeml.device_agent.install.lifecycle import (
    LOSSES,
    REFUSED_KEPT,
    STARTS,
    Mode,
    Record,
    Release,
)
from edgeml.errors import AgentError

EMPTY = Record(name="digits")


def release(version: str) -> Release:
    return Release(version=version, bundle=version.encode().hex().rjust(64, "0"))


def taken(record: Record, version: str) -> Record:
    """The whole way of a version that is taken."""
    return record.fetched(release(version), mode="active").verified().proved().activated()


ONE = taken(EMPTY, "1").confirm()


def test_the_way_of_a_version():
    record = ONE.fetched(release("2"), mode="active")
    assert record.active == ONE.active
    record = record.verified().proved()
    assert record.active == ONE.active
    record = record.activated()
    assert record.active == release("2")
    assert record.fallback == ONE.active
    assert record.on_probation
    record = record.confirm()
    assert record.active is not None
    assert record.active.confirmed
    assert not record.on_probation


SKIPPED = {
    "not verified": lambda r: r.proved(),
    "not proved": lambda r: r.verified().activated(),
    "not verified nor proved": lambda r: r.activated(),
    "verified twice": lambda r: r.verified().verified(),
    "a shadow cannot take over": lambda r: (
        r.fetched(release("2"), mode="shadow").verified().proved().activated()
    ),
    "an active one is no guest": lambda r: r.verified().proved().hosted(),
}


@pytest.mark.parametrize("what", SKIPPED)
def test_a_step_that_may_not_follow_is_refused(what: str):
    with pytest.raises(AgentError, match="digits: 2 is"):
        SKIPPED[what](ONE.fetched(release("2"), mode="active"))


def test_nothing_can_be_done_with_what_is_not_there():
    for step in (EMPTY.verified, EMPTY.proved, EMPTY.activated, EMPTY.hosted):
        with pytest.raises(AgentError, match="no version is on its way"):
            step()
    with pytest.raises(AgentError, match="no version is active"):
        EMPTY.confirm()
    with pytest.raises(AgentError, match="1 cannot be rolled back: no version was before it"):
        ONE.rolled_back("a person's wish")
    with pytest.raises(AgentError, match="2 cannot be a shadow: no version is active"):
        EMPTY.fetched(release("2"), mode="shadow")


def test_what_was_not_confirmed_is_no_fallback_where_one_was():
    record = taken(taken(ONE, "2"), "3")
    assert record.fallback == ONE.active


def test_without_a_confirmed_version_the_one_before_is_the_fallback():
    record = taken(taken(EMPTY, "1"), "2")
    assert record.fallback == release("1")


def test_a_version_that_keeps_losing_workers_is_rolled_back():
    record = taken(ONE, "2")
    for _ in range(LOSSES):
        record = record.lost()
        assert record.active == release("2")
    record = record.lost()
    assert record.active == ONE.active
    assert "lost 4 workers" in record.refused[release("2").bundle]
    assert record.lost() == record  # a confirmed one may lose as many as it likes


def test_a_boot_loop_ends_in_the_last_confirmed_version():
    record = taken(ONE, "2")
    for _ in range(STARTS):
        record = record.started()
        assert record.active == release("2")
    record = record.started()
    assert record.active == ONE.active
    assert "started 3 times on its probation" in record.refused[release("2").bundle]
    assert record.started() == record


def test_a_candidate_of_the_configuration_is_tried_again_but_not_for_ever():
    record = ONE.fetched(release("2"), mode="active")
    record = msgspec.structs.replace(record, offered=release("2").bundle)
    for _ in range(STARTS):
        record = record.started()
        assert record.candidate is not None
    record = record.started()
    assert record.candidate is None
    assert release("2").bundle in record.refused


def test_a_candidate_that_a_person_waited_for_is_forgotten_at_a_start():
    record = ONE.fetched(release("2"), mode="active").started()
    assert record.candidate is None
    assert record.refused == {}


def test_a_guest_stays_over_starts_unless_they_never_end_well():
    record = ONE.fetched(release("2"), mode="split", share=0.1).verified().proved().hosted()
    assert record.active == ONE.active
    for _ in range(STARTS):
        record = record.started()
        assert record.guest is not None
    assert record.confirm().started().guest is not None
    record = record.started()
    assert record.guest is None
    assert release("2").bundle in record.refused


def test_a_person_may_take_what_was_refused():
    record = taken(ONE, "2").rolled_back("a person's wish")
    assert release("2").bundle in record.refused
    assert release("2").bundle not in taken(record, "2").refused


def test_refusals_do_not_pile_up():
    record = ONE
    for index in range(3 * REFUSED_KEPT):
        record = record.fetched(release(f"2.{index}"), mode="active").refuse("x" * 5000)
    assert len(record.refused) == REFUSED_KEPT
    assert release(f"2.{3 * REFUSED_KEPT - 1}").bundle in record.refused
    assert len(msgspec.json.encode(record)) < 25_000


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order, the laws of the module's docstring hold."""

    def __init__(self) -> None:
        super().__init__()
        self.record = EMPTY
        self.count = 0
        self.proved: set[str] = set()
        self.was_active = False

    def step(self, changed: Record) -> None:
        before, self.record = self.record, changed
        self.was_active |= before.active is not None

    @rule(mode=st.sampled_from(["active", "shadow", "split"]))
    def fetch(self, mode: Mode) -> None:
        if self.record.active is None and mode != "active":
            return
        self.count += 1
        self.step(self.record.fetched(release(str(self.count)), mode=mode, share=0.5))

    @precondition(lambda self: self.record.candidate is not None)
    @rule(how_far=st.integers(0, 3), refused=st.booleans())
    def advance(self, how_far: int, refused: bool) -> None:
        candidate = self.record.candidate
        assert candidate is not None
        if refused:
            self.step(self.record.refuse("no good"))
            return
        if candidate.step == "fetched" and how_far > 0:
            self.step(self.record.verified())
        if how_far > 1 and self.record.candidate.step == "verified":  # type: ignore[union-attr]
            self.proved.add(candidate.release.bundle)
            self.step(self.record.proved())
        if how_far > 2:
            self.step(
                self.record.activated() if candidate.mode == "active" else self.record.hosted()
            )

    @precondition(lambda self: self.record.active is not None)
    @rule()
    def confirm(self) -> None:
        self.step(self.record.confirm())

    @rule()
    def lose_a_worker(self) -> None:
        self.step(self.record.lost())

    @rule()
    def start(self) -> None:
        self.step(self.record.started())

    @precondition(lambda self: self.record.fallback is not None)
    @rule()
    def roll_back(self) -> None:
        self.step(self.record.rolled_back("a person's wish"))

    @rule()
    def dismiss(self) -> None:
        self.step(self.record.dismissed())

    @invariant()
    def once_active_always_active(self) -> None:
        assert self.record.active is not None or not self.was_active

    @invariant()
    def only_what_was_proved_is_in_use(self) -> None:
        for used in (self.record.active, self.record.fallback):
            assert used is None or used.bundle in self.proved
        assert self.record.guest is None or self.record.guest.release.bundle in self.proved

    @invariant()
    def what_is_in_use_is_kept_and_not_refused(self) -> None:
        active = self.record.active
        if active is not None:
            assert active.bundle in self.record.needed
            assert active.bundle not in self.record.refused
        assert len(self.record.needed) <= 4

    @invariant()
    def probation_is_bounded(self) -> None:
        if self.record.fallback is not None:
            assert self.record.losses <= LOSSES
            assert self.record.starts <= STARTS

    @invariant()
    def it_survives_the_medium(self) -> None:
        assert msgspec.json.decode(msgspec.json.encode(self.record), type=Record) == self.record


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
