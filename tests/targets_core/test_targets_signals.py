"""Noise by layer, and which layers must stay float together, on layers that are plain functions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgeml.targets.signals import MOST_SAMPLES, Layer, compare, few, kept_together

CHAIN = [
    Layer(name="first", operator="conv"),
    Layer(name="second", operator="conv", reads=("first",)),
    Layer(name="third", operator="conv", reads=("second",)),
]


def samples(count: int = 4):
    random = np.random.default_rng(0)
    return [{"x": random.normal(0, 1, (1, 50, 8))} for _ in range(count)]


def exact(feeds):
    return {"first": feeds["x"], "second": 2 * feeds["x"], "third": 3 * feeds["x"]}


def test_noise_is_the_energy_of_the_difference_over_all_samples():
    def noisy(feeds):
        return exact(feeds) | {"second": 2.2 * feeds["x"], "third": 3.3 * feeds["x"]}

    first, second, third = compare(CHAIN, exact, noisy, samples())
    assert (first.snr_db, first.input_snr_db) == (math.inf, math.inf)
    assert second.snr_db == pytest.approx(20)  # a tenth of the values, a hundredth of the energy
    assert second.input_snr_db == math.inf  # so this is where it comes from
    assert (third.snr_db, third.input_snr_db) == (pytest.approx(20), second.snr_db)


def test_a_layer_that_one_artifact_lacks_hands_the_noise_before_it_on():
    def noisy(feeds):
        return {"first": 1.1 * feeds["x"], "third": 3.3 * feeds["x"]}

    found = compare(CHAIN, exact, noisy, samples())
    assert [each.name for each in found] == ["first", "third"]
    assert found[1].input_snr_db == found[0].snr_db


def test_nothing_but_noise_and_values_that_are_not_finite_are_the_worst():
    def broken(feeds):
        return exact(feeds) | {"third": feeds["x"] * np.nan}

    assert compare(CHAIN, exact, broken, samples())[-1].snr_db == -math.inf


def test_a_layer_stays_float_alone_where_its_tensors_are_fine():
    assert kept_together(["second"], CHAIN, exact, samples()) == ("second",)


@pytest.mark.parametrize("times", [1e3, 1e7])
def test_layers_stay_float_together_where_the_tensor_between_them_is_too_coarse(times: float):
    """One channel a thousand times the others: in eight bits they would all be 0."""

    def stretched(feeds):
        wide = feeds["x"].copy()
        wide[..., 0] *= times
        return exact(feeds) | {"second": wide}

    for name in ("second", "third"):
        assert kept_together([name], CHAIN, stretched, samples()) == ("second", "third")
    assert kept_together(["first"], CHAIN, stretched, samples()) == ("first",)

    def pooled(feeds):  # channels in another place than the target's tensors have them
        return {name: made[:, :1].swapaxes(1, 2) for name, made in stretched(feeds).items()}

    assert kept_together(["third"], CHAIN, pooled, samples(16)) == ("second", "third")


def test_an_unknown_layer_keeps_nothing():
    assert kept_together(["of another model"], CHAIN, exact, samples()) == ()


def test_few_samples_are_taken_evenly_from_a_folder_and_from_an_archive(tmp_path: Path):
    rows = np.arange(4.0 * MOST_SAMPLES).reshape(-1, 1)
    np.save(tmp_path / "0.npy", rows)
    np.savez(tmp_path / "samples.npz", x=rows)
    for source in (tmp_path, tmp_path / "samples.npz"):
        taken = [float(each["x"].item()) for each in few(source, ["x"])]
        assert len(taken) == MOST_SAMPLES
        assert (taken[0], taken[-1]) == (0, len(rows) - 1)
