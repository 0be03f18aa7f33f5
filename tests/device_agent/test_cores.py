"""The smaller pure cores: latency, restarts, back-off, windows, delivery."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import IMAGE, SCORES
from support.counts import counts_of
from support.weights import images, scores

from edgeml.device_agent.serving.latency import Latency
from edgeml.device_agent.serving.recorder import GATHER_ROWS, Recorder
from edgeml.device_agent.serving.restarts import RestartPolicy
from edgeml.device_agent.serving.windows import WindowClock
from edgeml.device_agent.uplink.backoff import Backoff
from edgeml.device_agent.uplink.delivery import Delivery, Key
from edgeml.statistics import fit_baseline


@given(st.lists(st.floats(0, 10), min_size=1, max_size=80), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_latency_quantile_is_that_of_the_latest_times(times, share):
    latency = Latency(span=32)
    for seconds in times:
        latency.add(seconds)
    expected = np.quantile(times[-32:], share, method="inverted_cdf")
    assert latency.quantile(share) == expected


@given(st.lists(st.floats(1e-5, 1), min_size=1, max_size=600), st.integers(0, 20))
def test_several_inferences_take_as_long_as_so_many_ever_did_lately(times, count):
    latency = Latency()
    for seconds in times:
        latency.add(seconds)
    recent = times[-256:]
    starts = range(len(recent) - count + 1)
    if count <= len(recent) // 2:
        expected = max(sum(recent[start : start + count]) for start in starts)
        assert latency.of_several(count) == pytest.approx(expected)
    assert latency.of_several(count) <= count * max(recent) * (1 + 1e-9)
    assert latency.of_several(count) <= latency.of_several(count + 1)
    latency.clear()
    assert latency.of_several(3) == 0


@given(
    st.lists(st.tuples(st.floats(1e-5, 1), st.sets(st.integers(1, 6), max_size=2)), max_size=200)
)
def test_it_does_not_matter_when_one_asks_what_several_take(steps):
    span = 16
    asked = Latency(span=span)
    for number, (seconds, counts) in enumerate(steps, 1):
        asked.add(seconds)
        fresh = Latency(span=span)
        for before, _ in steps[max(0, number - span) : number]:
            fresh.add(before)
        for count in counts:
            assert asked.of_several(count) == pytest.approx(fresh.of_several(count))


def test_a_worker_that_dies_now_and_then_is_back_at_once():
    policy = RestartPolicy(limit=3, span_s=60, base_s=0.5, cap_s=5)
    assert [policy.died(now) for now in (0.0, 100.0, 200.0)] == [0.0, 0.0, 0.0]


def test_a_worker_that_cannot_stand_up_waits_longer_and_longer_and_is_given_up():
    policy = RestartPolicy(limit=4, span_s=60, base_s=0.5, cap_s=1.5)
    assert [policy.died(now) for now in (0.0, 1.0, 2.0, 3.0, 4.0)] == [0.0, 0.5, 1.0, 1.5, None]


def test_back_off_stays_under_a_bound_that_doubles():
    backoff = Backoff(1.0, 8.0, random.Random(1))
    for bound in (1, 2, 4, 8, 8):
        assert 0 <= backoff.next() <= bound
    backoff.reset()
    assert backoff.next() <= 1


def test_a_window_counts_outcomes_and_goes_by_the_monotonic_clock():
    clock = WindowClock(60.0, now=100.0, wall_ms=5_000)
    clock.record("served")
    clock.record("shed", 3)
    assert clock.due == 160.0
    closed = clock.close(now=161.5, wall_ms=1)  # the wall clock was set back meanwhile
    assert closed is not None
    assert (closed.start_ms, closed.duration_ms) == (5_000, 61_500)
    assert closed.outcomes == {"served": 1, "late": 0, "shed": 3, "failed": 0}
    assert clock.due == 221.5


def test_a_window_in_which_nothing_came_is_not_sent():
    clock = WindowClock(60.0, now=0.0, wall_ms=0)
    assert clock.close(now=60.0, wall_ms=60_000) is None
    clock.record("shed")
    assert clock.close(now=120.0, wall_ms=120_000) is not None


def keys(*sequences: int) -> list[Key]:
    return [Key("boot", sequence) for sequence in sequences]


def delivery() -> Delivery:
    return Delivery(in_flight=2, resend_s=10.0, resend_cap_s=40.0)


def send(plan: Delivery, pending: list[Key], now: float) -> list[Key]:
    due = plan.due(pending, now)
    for key in due:
        plan.sent(key, now)
    return due


def test_no_more_than_the_bound_is_on_its_way():
    plan = delivery()
    assert send(plan, keys(1, 2, 3), 0.0) == keys(1, 2)
    assert send(plan, keys(1, 2, 3), 1.0) == []
    assert send(plan, keys(2, 3), 2.0) == keys(3)  # 1 is stored: there is room


def test_what_is_not_acknowledged_is_sent_again_less_and_less_often():
    plan = delivery()
    pending = keys(1)
    sent = [now for now in range(200) if send(plan, pending, float(now))]
    assert sent == [0, 10, 30, 70, 110, 150, 190]


def test_an_acknowledgement_brings_the_interval_back():
    plan = delivery()
    for now in (0.0, 10.0, 30.0):
        send(plan, keys(1), now)
    plan.stored()
    send(plan, keys(2), 31.0)
    assert plan.next_due() == 41.0


def test_after_a_reconnect_everything_unacknowledged_is_sent_at_once():
    plan = delivery()
    send(plan, keys(1, 2), 0.0)
    plan.connected()
    assert send(plan, keys(1, 2), 0.1) == keys(1, 2)


def test_one_window_that_is_never_acknowledged_does_not_block_the_others():
    plan = delivery()
    pending = keys(1, 2, 3, 4)
    send(plan, pending, 0.0)
    assert send(plan, pending, 10.0) == keys(3, 4)


CALIBRATION = images(200, seed=1)
BASELINE = fit_baseline(
    {"image": CALIBRATION},
    {"scores": scores(CALIBRATION)},
    input_tensors=(IMAGE,),
    output_tensors=(SCORES,),
)


def recorder() -> Recorder:
    return Recorder(
        baseline=BASELINE,
        clock=WindowClock(60.0, now=0.0, wall_ms=0),
        share=1.0,
        boot="boot",
        model="tiny",
        version="1",
        bundle="0" * 64,
        artifact="onnx-fp32",
    )


def test_samples_that_are_gathered_are_all_counted_when_the_window_closes():
    frames = images(GATHER_ROWS + 7)
    frames[3, 0, 0, 0] = np.nan  # a broken pixel: counted as such, and no reason to stop
    record = recorder()
    for one in frames[:, None]:
        record.served({"image": one}, {"scores": scores(one)})
    record.missed("shed", 2)
    window = record.close(now=60.0, wall_ms=60_000)
    assert window is not None
    counts = counts_of(window, BASELINE)
    assert (window.rows, window.outcomes["served"], window.outcomes["shed"]) == (39, 39, 2)
    assert all(each.total == 39 for each in counts.values())
    luma = BASELINE.streams["input.image.luma_mean"].grid
    assert counts["input.image.luma_mean"].cells[luma.nan] == 1
    assert record.close(now=120.0, wall_ms=120_000) is None


def test_a_sample_that_breaks_the_statistics_does_not_break_the_agent(
    caplog: pytest.LogCaptureFixture,
):
    record = recorder()
    record.served({"image": np.zeros(3)}, {"scores": np.zeros(2)})
    window = record.close(now=60.0, wall_ms=0)
    assert window is not None
    assert window.outcomes["served"] == 1
    assert "statistics fault" in caplog.text
