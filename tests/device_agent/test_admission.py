"""Admission decides before the work starts, and accounts for every request exactly once."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.device_agent.serving.admission import Admission, Request
from edgeml.device_agent.serving.door import OPEN
from edgeml.device_agent.serving.latency import Latency


def admission(*, capacity: int = 4, service_s: float = 0.010, probe_s: float = 1.0) -> Admission:
    latency = Latency()
    for _ in range(100):
        latency.add(service_s)
    return Admission(capacity=capacity, latency=latency, probe_s=probe_s)


def request(key: int, deadline: float, stream: str = "") -> Request:
    return Request(key, deadline, stream)


def test_a_request_that_fits_its_deadline_runs():
    queue = admission()
    assert queue.offer(request(1, 0.050), now=0.0) == []
    taken, shed = queue.take(now=0.0)
    assert taken is not None
    assert (taken.key, shed) == (1, [])


def test_a_request_that_cannot_end_in_time_is_refused_before_it_waits():
    queue = admission()
    queue.offer(request(1, 10.0), now=0.0)
    queue.take(now=0.0)
    queue.offer(request(2, 0.021), now=0.0)
    # 10 ms run, 10 ms wait before it, 10 ms of its own: 30 ms, and it has 25.
    (shed,) = queue.offer(request(3, 0.025), now=0.0)
    assert shed.key == 3
    assert "30.0 ms" in shed.reason
    assert "25.0 ms" in shed.reason
    assert queue.offer(request(4, 0.031), now=0.0) == []


def test_the_earliest_deadline_runs_first():
    queue = admission()
    for key, deadline in ((1, 9.0), (2, 3.0), (3, 6.0)):
        assert queue.offer(request(key, deadline), now=0.0) == []
    order = []
    for now in (0.0, 0.01, 0.02):
        taken, _ = queue.take(now=now)
        assert taken is not None
        order.append(taken.key)
        queue.finish("served", took_s=0.01)
    assert order == [2, 3, 1]


def test_an_urgent_request_does_not_make_an_admitted_one_late():
    queue = admission()
    assert queue.offer(request(1, 0.035), now=0.0) == []
    assert queue.offer(request(2, 0.022), now=0.0) == []  # first, and 1 still ends at 20 ms
    assert queue.offer(request(3, 0.034), now=0.0) == []  # 1 would end at 30 ms
    (shed,) = queue.offer(request(4, 0.021), now=0.0)  # 3 would end at 30 ms, 1 at 40
    assert (shed.key, shed.reason) == (4, "another one that was admitted would be late for it")


def test_an_urgent_request_goes_before_those_who_have_time_for_it():
    queue = admission()
    assert queue.offer(request(1, 0.025), now=0.0) == []  # 20 ms are enough for two
    assert queue.offer(request(2, 0.035), now=0.0) == []
    assert queue.offer(request(3, 0.015), now=0.0) == []
    taken, _ = queue.take(now=0.0)
    assert taken is not None
    assert taken.key == 3


def test_between_two_requests_there_is_room_for_what_would_have_had_to_wait():
    queue = admission()
    queue.offer(request(1, 0.025), now=0.0)
    queue.take(now=0.0)
    queue.offer(request(2, 0.025), now=0.0)
    # 10 ms run, 10 ms wait, 10 ms of its own: there is room behind them from 5 ms on.
    assert queue.refuses_until(0.025, now=0.0) == pytest.approx(0.005)
    queue.finish("served", took_s=0.010)
    assert queue.refuses_until(0.025, now=0.0) == OPEN
    assert queue.offer(request(3, 0.025), now=0.0) == []
    assert queue.refuses_until(0.025, now=0.0) == pytest.approx(0.025)


def test_while_nobody_can_serve_only_what_can_wait_waits():
    queue = admission()
    queue.offer(request(1, 0.100), now=0.0)
    queue.offer(request(2, 2.0), now=0.0)
    (shed,) = queue.suspend("the worker is being replaced", ready_at=0.5, now=0.01)
    assert (shed.key, shed.reason) == (1, "the worker is being replaced")
    (shed,) = queue.offer(request(3, 0.4), now=0.02)
    assert shed.reason.startswith("the worker is being replaced; it would end ")
    assert queue.offer(request(4, 1.0), now=0.02) == []
    assert [entry.key for entry in queue.expire(now=1.0)] == [4]  # it took longer than thought
    queue.open()
    taken, _ = queue.take(now=1.0)
    assert taken is not None
    assert taken.key == 2


def test_a_full_queue_refuses_the_newcomer():
    queue = admission(capacity=2)
    for key in (1, 2):
        assert queue.offer(request(key, 10.0), now=0.0) == []
    (shed,) = queue.offer(request(3, 10.0), now=0.0)
    assert (shed.key, shed.reason) == (3, "2 requests wait already")


def test_of_a_camera_only_the_newest_frame_waits():
    queue = admission(capacity=2)
    queue.offer(request(1, 10.0, "north"), now=0.0)
    queue.offer(request(2, 10.0, "south"), now=0.0)
    (shed,) = queue.offer(request(3, 10.0, "north"), now=0.0)
    assert (shed.key, shed.reason) == (1, "a newer frame came")
    taken, _ = queue.take(now=0.0)
    assert taken is not None
    assert taken.key == 2


def test_what_became_hopeless_while_it_waited_is_shed_and_not_begun():
    queue = admission()
    queue.offer(request(1, 0.050), now=0.0)
    queue.offer(request(2, 9.0), now=0.0)
    taken, shed = queue.take(now=0.045)
    assert taken is not None
    assert taken.key == 2
    assert [entry.key for entry in shed] == [1]


def test_an_idle_model_tries_again_after_a_bad_spell():
    queue = admission(service_s=0.5, probe_s=1.0)
    # It is believed to take half a second, and requests have 100 ms.
    assert queue.offer(request(1, 0.1), now=0.0) == []  # nothing was admitted yet: a probe
    queue.take(now=0.0)
    queue.finish("served", took_s=0.5)
    (shed,) = queue.offer(request(2, 0.6), now=0.5)
    assert shed.key == 2
    assert queue.offer(request(3, 1.2), now=1.1) == []
    taken, _ = queue.take(now=1.1)
    assert taken is not None
    assert taken.key == 3


def test_a_closed_queue_says_why():
    queue = admission()
    queue.offer(request(1, 9.0), now=0.0)
    queue.close("the agent is ending")
    (shed,) = queue.offer(request(2, 9.0), now=0.0)
    assert shed.reason == "the agent is ending"
    taken, _ = queue.take(now=0.0)  # what waits may finish
    assert taken is not None
    assert taken.key == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.floats(0.0, 0.2), st.sampled_from(["", "a", "b"])),
        st.tuples(st.just("take"), st.just(0.0), st.just("")),
        st.tuples(st.just("finish"), st.just(0.0), st.sampled_from(["served", "late", "failed"])),
        st.tuples(st.just("wait"), st.floats(0.0, 0.1), st.just("")),
        st.tuples(st.just("clear"), st.just(0.0), st.just("")),
        st.tuples(st.sampled_from(["close", "open"]), st.just(0.0), st.just("")),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 4), st.floats(0.001, 0.1), st.floats(0.01, 0.4), st.floats(0.001, 2))
def test_what_stands_at_the_door_is_what_one_would_be_told(
    steps, capacity, service_s, allowed_s, part
):
    """At any moment before, whoever comes would be refused; right after, where something runs and
    has its time yet, taken in."""
    queue = admission(capacity=capacity, service_s=service_s)
    now, running = 0.0, None
    for key, (what, number, text) in enumerate(steps):
        if what == "offer":
            queue.offer(request(key, now + min(number, allowed_s), text), now=now)
        elif what == "take" and running is None:
            running, _ = queue.take(now=now)
        elif what == "finish" and running is not None:
            queue.finish(text, took_s=service_s * (1 + number) if text != "failed" else None)
            running = None
        elif what == "wait":
            now += number
        elif what == "clear":
            queue.clear("test")
        elif what == "close":
            queue.close("test")
        elif what == "open":
            queue.open()
        until = queue.refuses_until(allowed_s, now=now)
        if until == OPEN:
            continue
        assert now < until <= (running or queue._queue[0]).deadline
        for moment in (now, now + (until - now) * min(part, 0.999)):
            newcomer = request(1000, moment + allowed_s)
            assert copy.deepcopy(queue).offer(newcomer, now=moment)
        if running is not None and until < running.deadline:
            moment = until + 1e-9
            assert not copy.deepcopy(queue).offer(request(1000, moment + allowed_s), now=moment)


@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.009, 0.011, 0.03]), max_size=12),
    st.floats(0.0, 0.3),
    st.lists(st.floats(0.001, 0.02), min_size=1, max_size=20),
    st.floats(0.0, 0.02),
)
def test_nobody_who_was_admitted_becomes_late_for_another(slacks, deadline, service, later):
    """By the plain reckoning: each of those behind it, one after another."""
    latency = Latency()
    for took_s in service:
        latency.add(took_s)
    queue = Admission(capacity=99, latency=latency, probe_s=1.0)

    def end(ahead: int, now: float = 0.0) -> float:
        return now + latency.of_several(ahead) + latency.p99

    waiting: list[float] = []  # each has as much to spare as is given
    for key, slack in enumerate(slacks):
        waiting.append(max([*waiting, end(key) + slack]))
        assert not queue.offer(request(key, waiting[-1]), now=0.0)
    behind = [each for each in waiting if each > deadline]
    place = len(waiting) - len(behind)
    if end(place, later) <= deadline:  # seen ``later``, so that some are too late already
        harmed = any(
            end(place + n, later) <= each < end(place + n + 1, later)
            for n, each in enumerate(behind)
        )
        refused = queue.offer(request(999, deadline), now=later)
        assert bool(refused) == harmed


@given(STEPS, st.integers(0, 4), st.floats(0.001, 0.1))
def test_every_request_ends_exactly_once(steps, capacity, service_s):
    queue = admission(capacity=capacity, service_s=service_s)
    ended: Counter[int] = Counter()
    now, offered, running = 0.0, 0, None
    for what, number, text in steps:
        shed = []
        if what == "offer":
            offered += 1
            shed = queue.offer(request(offered, now + number, text), now=now)
        elif what == "take" and running is None:
            running, shed = queue.take(now=now)
            # Nothing is begun that is late already.
            assert running is None or running.deadline > now
        elif what == "finish" and running is not None:
            queue.finish(text)
            ended[running.key] += 1
            running = None
        elif what == "wait":
            now += number
        elif what == "clear":
            shed = queue.clear("test")
        elif what == "close":
            queue.close("test")
        elif what == "open":
            queue.open()
        ended.update(entry.key for entry in shed)
        assert queue.waiting <= capacity + 1
        assert sum(ended.values()) + queue.waiting + (running is not None) == offered
    if running is not None:
        queue.finish("served")
        ended[running.key] += 1
    ended.update(entry.key for entry in queue.clear("the end"))
    assert ended == Counter(range(1, offered + 1))
    assert queue.outcomes.total() == offered


@pytest.mark.parametrize("spells", [0.0, 0.5, 0.9])
def test_under_three_times_its_capacity_what_is_admitted_meets_its_deadline(spells: float):
    """A queue whose server takes 10 ms, now more, now less, in spells whose length grows with the
    correlation of neighbours, and an arrival each 3 ms or so."""
    chance = random.Random(1)
    latency = Latency()
    slowness = [0.0]

    def service_s() -> float:
        slowness[0] = spells * slowness[0] + math.sqrt(1 - spells**2) * chance.gauss(0, 0.2)
        return 0.010 * math.exp(slowness[0])

    for _ in range(100):
        latency.add(service_s())
    queue = Admission(capacity=8, latency=latency, probe_s=1.0)
    outcomes: Counter[str] = Counter()
    arrival, now, began, key = 0.0, 0.0, 0.0, 0
    running: Request | None = None
    ends = float("inf")
    while key < 5000:
        if ends <= arrival:
            now = ends
            assert running is not None
            outcomes["in time" if now <= running.deadline else "late"] += 1
            queue.finish("served", took_s=now - began)
            running, ends = None, float("inf")
        else:
            now, key = arrival, key + 1
            arrival += chance.expovariate(300)
            refused = queue.offer(request(key, now + 0.050), now=now)
            outcomes["refused" if refused else "admitted"] += 1
        if running is None:
            running, dropped = queue.take(now=now)
            outcomes["dropped"] += len(dropped)
            if running is not None:
                began, ends = now, now + service_s()
    assert outcomes["in time"] >= 0.99 * (outcomes["admitted"] - queue.waiting - 1)
    assert outcomes["in time"] * 0.010 >= 0.95 * now  # and nearly all of its capacity is used
