"""What an export says of artifacts that failed their check: layers, samples, elements. Pure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.exporter.diagnosis import collapse
from edgeml.exporter.diagnosis.parting import (
    Traced,
    first_difference,
    layers_sentence,
    part,
    sentence,
)
from edgeml.targets.layers import LayerSignal

RANDOM = np.random.default_rng(0)


def layer(name: str, before: float, after: float, **known) -> LayerSignal:
    return LayerSignal(name=name, operator="CONV", input_snr_db=before, snr_db=after, **known)


def test_the_first_bad_layer_is_the_one_in_which_the_noise_arises():
    found = collapse.judge(
        [
            layer("stem", math.inf, 38),
            layer("wide", 38, 4, module="blocks.2.conv", line="net.py:31"),
            layer("after", 4, 3.8),
            layer("head", 3.8, 1),
        ]
    )
    assert found is not None
    assert found.bad is found.most
    assert found.most.name == "wide"
    assert [each.name for each in found.layers] == ["stem", "wide", "after", "head"]
    assert collapse.sentence(found) == (
        "The first bad layer is 'wide' (CONV; module 'blocks.2.conv', net.py:31): it takes an "
        "input at 38.0 dB and gives out 4.0 dB of signal to noise"
    )


def test_a_layer_that_passes_noise_on_is_blameless():
    found = collapse.judge([layer("bad", math.inf, 2), layer("passes", 2, 1.9)])
    assert found is not None
    assert found.bad is found.most
    assert found.most.name == "bad"
    assert "a clean input" in collapse.sentence(found)


def test_where_no_layer_is_bad_the_one_that_adds_most_is_named():
    found = collapse.judge([layer("a", math.inf, 40), layer("b", 40, 21), layer("c", 21, 20.5)])
    assert found is not None
    assert found.bad is None
    assert found.most.name == "b"
    assert collapse.sentence(found).startswith("No layer is bad by itself; most noise arises in")


def test_where_noise_adds_up_the_first_bad_layer_is_not_the_one_that_adds_most():
    found = collapse.judge(
        [
            layer("a", math.inf, 12),
            layer("b", 12, 9.5, line="net.py:7"),
            layer("c", 9.5, 6),
            layer("head", 13, 3, line="net.py:9"),
        ]
    )
    assert found is not None
    assert collapse.sentence(found) == (
        "Noise adds up over the layers: the first below 10 dB is 'b' (CONV; net.py:7), and most "
        "arises in 'head' (CONV; net.py:9): it takes an input at 13.0 dB and gives out 3.0 dB of "
        "signal to noise"
    )


def test_a_layer_of_no_known_module_is_placed_behind_one():
    found = collapse.judge(
        [layer("conv", math.inf, 38, module="stem", line="net.py:3"), layer("norm", 38, 1)]
    )
    assert found is not None
    assert "'norm' (CONV; behind module 'stem', net.py:3)" in collapse.sentence(found)


def test_layers_without_noise_tell_nothing():
    assert collapse.judge([layer("a", math.inf, math.inf)]) is None
    assert collapse.judge([]) is None


@given(
    st.lists(
        st.tuples(st.floats(-20, 60), st.floats(-20, 60)).map(lambda pair: (max(pair), min(pair))),
        max_size=40,
    )
)
def test_the_table_is_short_and_in_running_order_and_has_the_first_bad_one(pairs):
    layers = [layer(str(index), *pair) for index, pair in enumerate(pairs)]
    found = collapse.judge(layers)
    if found is None:
        return
    order = [int(each.name) for each in found.layers]
    assert order == sorted(order)
    assert len(order) <= collapse.SHOWN
    assert found.most in found.layers
    assert found.bad is None or found.bad in found.layers
    assert found.compared == len(layers)


def test_the_first_sample_and_its_worst_element():
    reference = {"scores": np.ones((4, 2, 3)), "boxes": np.ones((4, 2))}
    found = {name: array.copy() for name, array in reference.items()}
    found["scores"][2, 1, 0] = 3.0
    found["scores"][2, 0, 0] = 1.5
    found["scores"][3] = 9.0
    difference = first_difference(reference, found)
    assert difference is not None
    assert (difference.output, difference.sample, difference.index) == ("scores", 2, (1, 0))
    assert sentence(difference) == (
        "Output 'scores' first parts at sample 2, element [1, 0]: 3 for the source's 1 "
        "(2 of 6 elements differ, in 2 of 4 samples)"
    )


def test_rounding_is_no_difference_and_nan_is():
    reference = {"y": np.linspace(-1, 1, 10, dtype="float32").reshape(2, 5)}
    assert first_difference(reference, {"y": reference["y"] * (1 + 1e-6)}) is None
    broken = reference["y"].copy()
    broken[1, 4] = np.nan
    difference = first_difference(reference, {"y": broken})
    assert difference is not None
    assert (difference.sample, difference.index) == (1, (4,))
    assert "nan for the source's 1" in sentence(difference)


def trace(*values: tuple[str, np.ndarray]) -> list[Traced]:
    return [Traced(name=name, operator="op", values=array) for name, array in values]


@pytest.fixture
def chain() -> list[tuple[str, np.ndarray]]:
    return [(name, RANDOM.normal(size=(1, 3, 4, 5))) for name in ("a", "b", "c", "d")]


def test_values_part_behind_the_last_layer_that_is_found_in_any_layout(chain):
    ours = [("x", chain[0][1].transpose(0, 2, 3, 1)), ("y", chain[1][1]), ("z", chain[2][1] + 1)]
    between = part(trace(*chain), trace(*ours))
    assert between.last is not None
    assert between.first is not None
    assert (between.last.name, between.first.name) == ("b", "c")
    assert layers_sentence(between) == "Values agree up to 'b' (op), and part at 'c' (op)"


def test_a_layer_that_was_fused_away_is_no_parting(chain):
    between = part(trace(*chain), trace(chain[0], chain[3]))
    assert between.first is None
    assert "fused kernels" in layers_sentence(between)


def test_where_nothing_agrees_the_first_layer_is_named(chain):
    between = part(trace(*chain), trace(("x", RANDOM.normal(size=(1, 3, 4, 5)))))
    assert between.last is None
    assert "before 'a'" in layers_sentence(between)


def test_constants_and_single_numbers_tell_nothing(chain):
    ones = ("ones", np.ones((1, 60)))
    between = part(trace(chain[0], ones), trace(chain[0], ones))
    assert between.last is not None
    assert between.last.name == "a"
