"""Statistics stay within their share of a core, and what is left out is not taken for data."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import PATIENCE_S, Collector, StartAgent
from support.bundles import tiny_bundle
from support.counts import counts_of
from support.processes import classes
from support.weights import images

from edgeml.bundle import Tensor, open_bundle
from edgeml.device_agent.serving import recorder as recording
from edgeml.device_agent.serving.allowance import SAVED_S, Allowance
from edgeml.device_agent.serving.recorder import GATHER_ROWS, WAITING, Recorder
from edgeml.device_agent.serving.windows import WindowClock
from edgeml.statistics import fit_baseline

SHARES = st.floats(0.001, 1.0)
STEPS = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 0.3)), max_size=60)
"""Seconds that pass, and what the next thing costs."""


@given(SHARES, STEPS)
def test_no_more_is_taken_than_the_share_what_was_saved_and_the_last_thing(
    share: float, steps: list[tuple[float, float]]
):
    allowance, now, taken = Allowance(share, now=0.0), 0.0, [0.0]
    for passes, costs in steps:
        now += passes
        if allowance.allows(now=now):
            taken.append(costs)
            allowance.spend(costs, now=now)
            assert sum(taken) <= share * (now + SAVED_S) + taken[-1] + 1e-9


@given(SHARES, STEPS)
def test_time_pays_for_every_debt(share: float, steps: list[tuple[float, float]]):
    allowance = Allowance(share, now=0.0)
    for _, costs in steps:
        allowance.spend(costs, now=0.0)
    debt = sum(costs for _, costs in steps) - share * SAVED_S
    assert allowance.allows(now=max(0.0, debt / share) + 1e-6)
    assert debt <= 1e-9 or not allowance.allows(now=debt / share * 0.999 - 1e-6)


@given(STEPS)
def test_one_thread_never_takes_more_than_a_whole_core(steps: list[tuple[float, float]]):
    allowance, now = Allowance(1.0, now=0.0), 0.0
    for passes, costs in steps:
        now += passes + costs  # it costs no more than the time that goes by
        allowance.spend(costs, now=now)
        assert allowance.allows(now=now)


class Film:
    """A recorder, and a clock that only the test moves; batches are computed at once."""

    def __init__(self, patch: pytest.MonkeyPatch, *, share: float, costs_s: float) -> None:
        self.now = 0.0
        self._asked = 0
        patch.setattr(recording, "time", self)
        patch.setattr(recording, "_aside", self)
        size = (1, 1, 8, 8)
        image = Tensor(name="image", shape=size, dtype="float32", meaning="image", layout="NCHW")
        scores = Tensor(name="scores", shape=(1, 2), dtype="float32", meaning="scores")
        random = np.random.default_rng(1)
        self.frames = random.uniform(0.4, 0.6, (4096, *size)).astype(np.float32)
        self.scores = np.full((1, 2), 0.5, np.float32)
        self.baseline = fit_baseline(
            {"image": self.frames[:64, 0]},
            {"scores": np.repeat(self.scores, 64, axis=0)},
            input_tensors=(image,),
            output_tensors=(scores,),
        )
        self.recorder = Recorder(
            baseline=self.baseline,
            clock=WindowClock(60.0, now=0.0, wall_ms=0),
            share=share,
            boot="boot",
            model="film",
            version="1",
            bundle="0" * 64,
            artifact="onnx-fp32",
        )
        self._costs_s = costs_s

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        self._asked += 1  # before a batch and after it
        return self.spent

    @property
    def spent(self) -> float:
        return self._asked // 2 * self._costs_s

    def submit(self, compute: object) -> None:
        assert callable(compute)
        compute()

    def play(self, count: int, *, every_s: float) -> list[bool]:
        """Serve so many frames; which of them were looked at."""
        looked: list[bool] = []
        for frame in self.frames[:count]:
            inputs = {"image": frame} if self.recorder.looks else None
            looked.append(self.recorder.served(inputs, {"scores": self.scores}))
            self.now += every_s
        return looked


def test_a_slow_camera_has_every_frame_looked_at(monkeypatch: pytest.MonkeyPatch):
    film = Film(monkeypatch, share=0.02, costs_s=0.0005 * GATHER_ROWS)
    assert all(film.play(2000, every_s=0.1))


def test_so_it_has_on_a_slow_device_once_it_is_known_what_a_frame_costs(
    monkeypatch: pytest.MonkeyPatch,
):
    film = Film(monkeypatch, share=0.02, costs_s=0.0019 * GATHER_ROWS)
    looked = film.play(2000, every_s=0.1)
    assert all(looked[:GATHER_ROWS])
    assert looked.count(False) < GATHER_ROWS  # its first batch was more than it had saved
    assert all(looked[2 * GATHER_ROWS :])


def test_a_saturated_loop_has_bursts_of_neighbours_within_the_share(
    monkeypatch: pytest.MonkeyPatch,
):
    film = Film(monkeypatch, share=0.02, costs_s=0.010)
    looked = film.play(4000, every_s=0.005)
    assert film.spent <= 0.02 * (film.now + SAVED_S) + 2 * 0.010
    assert film.spent >= 0.02 * film.now - 0.010  # and the share is used
    lengths = [len(burst) for burst in "".join("#" if one else "." for one in looked).split(".")]
    assert {length % GATHER_ROWS for length in lengths[:-1]} == {0}  # whole batches, but the last
    window = film.recorder.close(now=60.0, wall_ms=0)
    assert window is not None
    assert window.outcomes["served"] == 4000
    # The first frame after a gap is only what the next one is compared with.
    gaps = sum(1 for length in lengths if length) - 1
    assert window.rows == sum(looked) - gaps
    assert {counts.total for counts in counts_of(window, film.baseline).values()} == {window.rows}


def test_what_is_looked_at_does_not_depend_on_what_is_in_it(monkeypatch: pytest.MonkeyPatch):
    film = Film(monkeypatch, share=0.02, costs_s=0.010)
    looked = film.play(3000, every_s=0.005)
    other = Film(monkeypatch, share=0.02, costs_s=0.010)
    other.frames = np.full_like(other.frames, np.nan)
    assert other.play(3000, every_s=0.005) == looked


def test_an_agent_in_a_hurry_serves_all_and_looks_at_some(
    start_agent: StartAgent, collector: Collector, tmp_path: Path, at_plant: list[str]
):
    bundle = tiny_bundle(tmp_path)
    share = ("--statistics-share", 0.00001)
    agent = start_agent("--bundle", bundle, *at_plant, "--window", 0.3, *share).ready()
    with agent.client() as client:
        for one in images(300):
            client.infer({"image": one})
        (model,) = client.get("/edgeml/v1/status")["models"]
    assert agent.terminate() == 0
    collector.wait_for(lambda c: c.outcomes.get("served") == 300, "all that were served")
    assert model["outcomes"]["served"] == 300
    # A batch costs the share of half a minute; until the first one's cost is known a few may begin.
    assert 0 < collector.rows <= model["looked_at"] <= (WAITING + 2) * GATHER_ROWS < 300
    baseline = open_bundle(bundle).baseline()
    assert baseline is not None
    for window in collector.windows.values():
        assert {counts.total for counts in counts_of(window, baseline).values()} == {window.rows}


def test_the_thread_that_computes_statistics_interrupts_nobody(
    start_agent: StartAgent, tmp_path: Path
):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    assert classes(agent.pid) == {os.SCHED_OTHER}
    with agent.client() as client:
        for one in images(GATHER_ROWS):
            client.infer({"image": one})
    until = time.monotonic() + PATIENCE_S
    while os.SCHED_BATCH not in classes(agent.pid):  # the last answer went out before it began
        assert time.monotonic() < until
