"""Numbers and times as the pages write them, and the plots' options."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgeml.collector.store.histograms import two_baselines
from edgeml.collector.views import AlarmView, Histogram, Point
from edgeml.collector.web import charts, words
from edgeml.collector.web.device import new_values
from edgeml.statistics import Counts, fit_categories, fit_grid
from edgeml.statistics.baseline import Stream


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (-5, "just now"),  # a clock that was set back
        (42, "42 s ago"),
        (90, "90 s ago"),
        (600, "10 min ago"),
        (3 * 3600, "3 h ago"),
        (40 * 3600, "40 h ago"),
        (3 * 86_400, "3 days ago"),
    ],
)
def test_how_long_ago(seconds: int, said: str) -> None:
    assert words.ago(10**12, 10**12 + 1000 * seconds) == said


def test_never() -> None:
    assert words.ago(None, 5) == "never"


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0.0"), (3.14159, "3.1"), (48_000, "48,000"), (2.1e9, "2 × 10⁹"), (1e280, "10²⁸⁰")],
)
def test_evidence_spans_many_orders(value: float, said: str) -> None:
    assert words.evidence(value) == said


@pytest.mark.parametrize(
    ("p", "said"), [(0.42, "0.42"), (0.0031, "0.003"), (2.1e-5, "0.00002"), (1e-61, "< 10⁻⁶")]
)
def test_probabilities(p: float, said: str) -> None:
    assert words.probability(p) == said


def test_a_statistic_is_named_without_dots_and_underscores() -> None:
    assert words.statistic("input.image.luma_mean") == ("luma mean", "input image")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("input.image.luma_mean: frozen", "luma mean: frozen"),
        ("output.scores.class and 3 more: 2 of 3 windows", "class and 3 more: 2 of 3 windows"),
        ("17 statistics of 1.2.0: not those", "17 statistics of 1.2.0: not those"),
        ("no statistics yet", "no statistics yet"),
    ],
)
def test_a_reason_names_its_statistic_as_the_cards_do(reason: str, said: str) -> None:
    assert words.reason(reason) == said


def point(index: int, **changed: object) -> Point:
    values: dict[str, object] = {
        "index": index,
        "start_ms": 1000 * index,
        "role": "reference",
        "js": 0.3,
        "excess_js": 0.1,
        "psi": 0.1,
        "w1": 0.2,
        "ks": 0.1,
        "chi2": 3.0,
        "dof": 4,
        "p": 0.5,
        "n": 40,
        "m": 500,
        "effect": 0.1,
        "detectable": 0.3,
        "mean": 0.0,
        "evidence": 2.0,
        "threshold": 48_000.0,
    }
    return Point(**(values | changed))  # type: ignore[arg-type]


def alarm(**changed: object) -> AlarmView:
    values: dict[str, object] = {
        "id": 1,
        "site": "s",
        "device": "d",
        "model": "m",
        "version": "1",
        "artifact": "a",
        "stream": "x",
        "open": True,
        "opened_ms": 99,
        "since_ms": 5000,
        "closed_ms": None,
        "effect": 0.5,
        "evidence": 5e4,
        "threshold": 48_000.0,
        "windows": 5,
    }
    return AlarmView(**(values | changed))  # type: ignore[arg-type]


def test_a_plot_shows_drift_evidence_threshold_and_the_alarm() -> None:
    points = [point(i, evidence=None if i < 3 else 2.0 * i) for i in range(10)]
    options = charts.timeline(points, 48_000.0, [alarm()])
    drift, proof = options["series"]
    assert drift["name"] == "drift (W1, sd)"
    assert len(drift["data"]) == 10
    assert len(proof["data"]) == 7
    assert proof["markLine"]["data"] == [{"yAxis": 48_000.0}]
    assert drift["markArea"]["data"] == [[{"xAxis": 5000}, {"xAxis": 9000}]]
    assert [axis["max"] for axis in options["xAxis"]] == [9000, 9000]


def test_an_alarm_that_closed_ends_on_the_plot() -> None:
    closed = alarm(open=False, opened_ms=100_000, closed_ms=102_000)
    options = charts.timeline([point(i) for i in range(20)], 48_000.0, [closed])
    assert options["series"][0]["markArea"]["data"] == [[{"xAxis": 5000}, {"xAxis": 7000}]]


def test_categories_are_plotted_by_excess_js() -> None:
    options = charts.timeline([point(0, w1=None, ks=None)], 10.0, [])
    assert options["series"][0]["name"] == "drift (excess JS, bits)"
    assert options["series"][0]["data"] == [[0, 0.1]]


def test_a_plot_of_nothing_is_still_a_plot() -> None:
    assert charts.timeline([], 1.0, [])["series"][0]["data"] == []


def test_a_histogram_leaves_invalid_values_out_of_its_axis() -> None:
    found = Histogram(
        kind="numeric",
        centres=[-0.5, 0.5, 1.5, 2.5],
        names=[],
        window=[0.0, 0.2, 0.3, 0.0, 0.5],
        rows=40,
        baseline=[0.0, 0.5, 0.5, 0.0, 0.0],
        baseline_rows=500,
        skew=0.3,
        past=[],
        past_rows=0,
        change=None,
    )
    options = charts.histogram(found)
    assert options["xAxis"]["data"] == ["below", "0.5", "1.5", "above"]
    assert options["series"][2]["data"] == [0.0, 0.2, 0.3, 0.0]
    # Before there is a past, nothing is said of it.
    assert options["legend"]["data"] == ["training data", "last window"]


def test_a_window_lies_between_training_and_the_devices_own_past() -> None:
    """A camera that has always been darker than its training data: skew, and no change."""
    values = np.random.default_rng(3).normal(size=6000)
    grid = fit_grid(values)
    stream = Stream(name="luma", grid=grid, counts=tuple(Counts.of(grid, values).cells))
    past, window = (Counts.of(grid, part - 1).cells for part in (values[:5000], values[5000:]))
    usual = two_baselines(stream, window, past)
    assert usual.skew is not None
    assert usual.skew > 0.1
    assert usual.change == pytest.approx(0, abs=0.01)
    assert (usual.rows, usual.past_rows, usual.baseline_rows) == (1000, 5000, 6000)
    new = two_baselines(stream, window, np.zeros(0, dtype=np.int64))
    assert (new.change, new.past) == (None, [])
    unordered = two_baselines(msgspec.structs.replace(stream, temporal=True), window, past)
    assert unordered.skew is None


def test_categories_are_shown_by_name_and_new_ones_with_how_many_had_them() -> None:
    grid = fit_categories(["web", "shop"])
    trained = Counts.of(grid, ["web"] * 60 + ["shop"] * 40)
    stream = Stream(name="value", grid=grid, counts=tuple(trained.cells))
    hour = Counts.of(grid, ["web"] * 20 + ["<b>kiosk</b>"] * 30 + ["phone"] * 9 + ["rare"])
    found = two_baselines(stream, hour.cells, trained.cells, lately=hour)
    assert charts.histogram(found)["xAxis"]["data"] == ["shop", "web", "other", "missing"]
    assert charts.histogram(found)["series"][2]["data"] == pytest.approx(
        [0, 1 / 3, 2 / 3, 0], abs=1e-3
    )
    assert list(found.new) == ["<b>kiosk</b>", "phone"]
    assert all(true <= found.new[name] for name, true in (("<b>kiosk</b>", 30), ("phone", 9)))
    (shown,) = new_values(found)
    assert "&lt;b&gt;kiosk&lt;/b&gt;</b> (≤ 3" in shown
    assert "rare" not in shown
    assert new_values(two_baselines(stream, hour.cells, trained.cells)) == []
    retracted = two_baselines(stream, hour.cells, trained.cells, lately=hour - hour)
    assert retracted.new == {}
