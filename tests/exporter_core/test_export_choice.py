"""Which artifact goes into the bundle, and when there is none."""

from collections.abc import Sequence
from statistics import median

import pytest

from edgeml.bundle.manifest import Precision
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.judging.choose import Figures, choose, fatal

FLOAT = Candidate("onnx", "fp32")
INT8 = Candidate("onnx", "int8")


def figures(
    precision: Precision,
    *,
    p50: float | None,
    size: int | None = None,
    target: str = "onnx",
    turns: Sequence[float] = (),
    accuracy: float | None = None,
    drop: float | None = None,
    shortfall: str = "",
) -> Figures:
    return Figures(
        candidate=Candidate(target, precision),
        bytes=size or {"fp32": 400, "fp16": 200, "int8": 100}[precision],
        p50_ms=p50,
        turns_ms=tuple(turns),
        accuracy=accuracy,
        drop=drop,
        shortfall=shortfall,
        not_measured="" if p50 is not None else "there is no such device here",
    )


def test_the_faster_one_is_chosen():
    chosen = choose([figures("fp32", p50=2.0), figures("int8", p50=1.0)], auto=True)
    assert (chosen[FLOAT].chosen, chosen[INT8].chosen) == (False, True)


def test_int8_that_is_slower_is_not_chosen_and_the_note_says_so():
    chosen = choose([figures("fp32", p50=1.0), figures("int8", p50=1.5)], auto=True)
    assert (chosen[FLOAT].chosen, chosen[INT8].chosen) == (True, False)
    assert "slower than fp32 on this machine (1.5 against 1 ms)" in chosen[INT8].note


def test_of_equally_fast_ones_the_smaller_is_chosen():
    chosen = choose([figures("fp32", p50=1.0), figures("int8", p50=1.03)], auto=True)
    assert chosen[INT8].chosen
    assert chosen[INT8].note == "smaller than fp32 and no slower (1.03 of its time)"


SPELL = [1.0, 1.0, 1.9, 1.1, 1.0, 1.0, 1.6, 1.0, 1.0, 1.0] * 2
"""Turns of some milliseconds on a core that is sometimes half as fast."""


@pytest.mark.parametrize(
    ("fp32", "int8", "smaller"),
    [
        # The same, though nine turns of int8 fell into slow spells.
        ([1.0] * 20, [1.0] * 11 + [1.4] * 9, True),
        # Fast and slow spells, which both had: the medians of all turns are far apart.
        ([1.0] * 11 + [1.8] * 9, [1.0] * 9 + [1.8] * 11, True),
        # One spell over both, which says nothing.
        ([1.0] * 10 + [1.8] * 10, [0.98] * 10 + [1.78] * 10, True),
        # 4 % is nothing, however sure.
        ([1.0] * 20, [1.04] * 20, True),
        ([1.0] * 20, [1.06] * 20, False),
        # A tenth slower in most turns.
        ([1.0] * 20, [0.9] * 6 + [1.12] * 14, False),
        (SPELL, [1.2 * each for each in SPELL], False),
    ],
)
def test_the_smaller_one_is_passed_over_where_it_is_slower_turn_by_turn(
    fp32: list[float], int8: list[float], *, smaller: bool
):
    both = [
        figures("fp32", p50=median(fp32), turns=fp32),
        figures("int8", p50=median(int8), turns=int8),
    ]
    chosen = choose(both, auto=True)
    assert (chosen[FLOAT].chosen, chosen[INT8].chosen) == (not smaller, smaller)
    told = "smaller than fp32 and no slower" in chosen[INT8].note
    assert told == (smaller and median(int8) >= median(fp32))
    assert ("slower than fp32 on this machine" in chosen[INT8].note) == (not smaller)


def test_the_note_says_how_the_turns_went():
    both = [
        figures("fp32", p50=1.0, turns=[1.0] * 5),
        figures("int8", p50=1.05, turns=[1.0, 1.02, 1.03, 1.04, 1.08]),
    ]
    assert choose(both, auto=True)[INT8].note == (
        "smaller than fp32 and no slower (1.03 of its time in 5 turns, half of them 1.02 to 1.04)"
    )


def test_a_fast_artifact_that_lost_accuracy_is_not_chosen():
    chosen = choose(
        [figures("fp32", p50=2.0, accuracy=0.97), figures("int8", p50=1.0, accuracy=0.93)],
        auto=True,
        source_accuracy=0.97,
    )
    assert chosen[FLOAT].chosen
    assert "4.0 points less accurate" in chosen[INT8].note


def test_without_labels_a_fast_artifact_that_decides_otherwise_is_not_chosen():
    chosen = choose(
        [figures("fp32", p50=2.0, drop=0.0), figures("int8", p50=1.0, drop=0.08)], auto=True
    )
    assert chosen[FLOAT].chosen
    assert "decides otherwise than the source model on 8.0 % of the samples" in chosen[INT8].note


def test_a_point_of_accuracy_may_be_lost():
    chosen = choose(
        [figures("fp32", p50=2.0, accuracy=0.97), figures("int8", p50=1.0, accuracy=0.962)],
        auto=True,
        source_accuracy=0.97,
    )
    assert chosen[INT8].chosen


def test_where_nothing_can_be_measured_int8_is_chosen():
    chosen = choose([figures("fp32", p50=None), figures("int8", p50=None)], auto=True)
    assert chosen[INT8].chosen
    assert "not measured: there is no such device here" in chosen[INT8].note


def test_where_nothing_can_be_measured_an_int8_that_lost_accuracy_is_not_chosen():
    chosen = choose(
        [figures("fp32", p50=None, accuracy=0.9), figures("int8", p50=None, accuracy=0.5)],
        auto=True,
        source_accuracy=0.9,
    )
    assert chosen[FLOAT].chosen


def test_one_artifact_a_target():
    both = [
        figures(precision, p50=p50, target=target)
        for target in ("onnx", "tflite")
        for precision, p50 in (("fp32", 1.0), ("int8", 2.0))
    ]
    chosen = choose(both, auto=True)
    assert sorted(c.id for c, choice in chosen.items() if choice.chosen) == [
        "onnx-fp32",
        "tflite-fp32",
    ]


def test_a_named_precision_is_chosen_however_slow():
    chosen = choose([figures("int8", p50=9.0)], auto=False)
    assert chosen[INT8].chosen


def test_under_auto_an_int8_that_fails_its_check_is_shown_and_not_chosen():
    both = [figures("fp32", p50=2.0), figures("int8", p50=1.0, shortfall="cosine 0.5 (at least 1)")]
    chosen = choose(both, auto=True)
    assert (chosen[FLOAT].chosen, chosen[INT8].chosen) == (True, False)
    assert "failed its check: cosine 0.5" in chosen[INT8].note
    assert fatal(both, auto=True) == []


def test_a_float_artifact_that_fails_its_check_means_no_bundle():
    both = [figures("fp32", p50=2.0, shortfall="cosine"), figures("int8", p50=1.0)]
    assert [each.candidate for each in fatal(both, auto=True)] == [FLOAT]


def test_an_int8_that_fails_its_check_and_is_all_that_its_target_has_means_no_bundle():
    only = [figures("int8", p50=1.0, shortfall="cosine"), figures("fp32", p50=1, target="tflite")]
    assert [each.candidate for each in fatal(only, auto=True)] == [INT8]


def test_a_named_precision_that_fails_its_check_means_no_bundle():
    one = [figures("int8", p50=1.0, shortfall="cosine"), figures("int8", p50=1.0, target="tflite")]
    assert [each.candidate for each in fatal(one, auto=False)] == [INT8]
