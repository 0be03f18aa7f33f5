"""In which order a search goes, what it leaves out, and which limits are missed."""

import math
from pathlib import Path

import msgspec
import pytest

from edgeml.bundle.manifest import Measurement, Parity, Precision, Tolerance
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.judging.choose import choose
from edgeml.exporter.judging.figures import Figures, distance, missed, satisfies
from edgeml.exporter.judging.pareto import Merits, front
from edgeml.exporter.request import Limits
from edgeml.exporter.results import rows, unmet
from edgeml.exporter.searching import ladder
from edgeml.exporter.searching.sensitivity import noise, ranked
from edgeml.exporter.trial import Checked, Trial
from edgeml.targets.compiling import CompileResult
from edgeml.targets.layers import LayerSignal


def figures(
    precision: Precision,
    p50: float | None,
    size: int = 1000,
    *,
    verdict: str = "open",
    drop: float | None = None,
    memory: float | None = None,
    shortfall: str = "",
    floats: int = 0,
) -> Figures:
    return Figures(
        candidate=Candidate("onnx", precision, tuple(f"layer{i}" for i in range(floats))),
        bytes=size,
        p50_ms=p50,
        peak_rss_mb=memory,
        verdict=verdict,  # type: ignore[arg-type]
        drop=drop,
        shortfall=shortfall,
    )


NONE = Limits()


def test_float_comes_first_and_the_cheapest_next():
    assert ladder.ordered(("fp16", "int8-weights", "int8", "mixed", "fp32"))[:2] == ["fp32", "int8"]
    assert "mixed" not in ladder.ordered(("fp32", "int8", "mixed"))


def test_every_limit_that_is_missed_is_named_with_both_figures():
    limits = Limits(accuracy_drop=0.01, latency_ms=20, memory_mb=64, size_bytes=500)
    far = figures("int8", 23.4, 1000, verdict="beyond", drop=0.04, memory=70)
    assert [each.limit for each in missed(far, limits)] == ["accuracy", "latency", "memory", "size"]
    assert [each.text for each in missed(far, limits)[1:]] == [
        "latency 23.4 ms (at most 20 ms)",
        "memory 70 MB (at most 64 MB)",
        "size 1 kB (at most 0.5 kB)",
    ]
    assert missed(figures("int8", 20, 500, verdict="within"), limits) == ()


def test_a_failed_check_satisfies_nothing():
    assert not satisfies(figures("int8", 1, shortfall="cosine"), NONE)
    assert satisfies(figures("int8", 1), NONE)


def test_the_nearest_is_the_one_least_beyond():
    limits = Limits(latency_ms=10)
    near, far = figures("int8", 11), figures("fp32", 30)
    failed = figures("fp16", 9, shortfall="cosine")
    assert distance(near, limits) < distance(far, limits) < distance(failed, limits)


def test_what_could_not_be_small_enough_is_not_tried():
    float_ = figures("fp32", 10, 4_000_000)
    limits = Limits(size_bytes=800_000)
    assert "MB" in ladder.pointless("int8", [float_], limits)
    assert ladder.pointless("int4-weights", [float_], limits) == ""


def test_what_could_not_be_fast_enough_is_not_tried():
    float_ = figures("fp32", 10)
    limits = Limits(latency_ms=5)
    assert "ms" in ladder.pointless("int8-weights", [float_], limits)
    assert ladder.pointless("int8", [float_], limits) == ""


def test_the_search_ends_when_nothing_left_can_be_faster_or_smaller():
    limits = Limits(accuracy_drop=0.01)
    float_ = figures("fp32", 10, 4000, verdict="within")
    int8 = figures("int8", 4, 1000, verdict="within")
    for left in ("int8-weights", "int8-dynamic", "int16x8", "fp16"):
        assert "int8 satisfies everything" in ladder.pointless(left, [float_, int8], limits)


def test_the_search_goes_on_while_something_left_may_win():
    limits = Limits(accuracy_drop=0.01)
    float_ = figures("fp32", 4, 4000, verdict="within")
    int8 = figures("int8", 9, 1000, verdict="within")
    assert ladder.pointless("int8-weights", [float_, int8], limits) == ""  # as fast as float?
    assert ladder.pointless("int8-dynamic", [float_, int8], limits)  # no faster than int8


def test_latency_decides_between_all_that_are_within_the_limits_or_only_just_too_slow():
    limits = Limits(latency_ms=20)
    slow, over = figures("fp32", 26), figures("int16x8", 24)
    near, fast = figures("fp16", 19), figures("int8", 10)
    failed = figures("int8-weights", 5, shortfall="cosine")
    assert ladder.contenders([slow, over, near, fast, failed], limits) == [over, near, fast]
    assert ladder.contenders([slow, over], limits) == [over]
    assert ladder.contenders([slow, near, figures("int4-weights", None)], limits) == []
    assert ladder.contenders([slow, fast], NONE) == [slow, fast]


def test_layers_stay_float_where_only_accuracy_is_lacking():
    limits = Limits(accuracy_drop=0.01, size_bytes=2000)
    assert ladder.mixable(figures("int8", 1, verdict="beyond", drop=0.05), limits)
    assert ladder.mixable(figures("int8", 1, shortfall="cosine"), limits)
    assert not ladder.mixable(figures("int8", 1, verdict="within"), limits)
    assert not ladder.mixable(figures("int8", 1, 3000, verdict="beyond", drop=0.05), limits)


@pytest.mark.parametrize("needed", [1, 3, 6, 20, 40])
def test_float_layers_are_doubled_until_enough_and_then_narrowed_down(needed: int):
    results: dict[int, bool] = {}
    while (count := ladder.next_floats(results, 40)) is not None:
        assert count not in results
        results[count] = count >= needed
    least = min(count for count, enough in results.items() if enough)
    assert needed <= least <= max(needed, math.ceil(needed * 1.25) + 1)
    assert len(results) <= 10


def test_float_layers_end_where_there_are_no_more():
    results: dict[int, bool] = {}
    while (count := ladder.next_floats(results, 5)) is not None:
        results[count] = False
    assert list(results) == [1, 2, 4, 5]
    assert ladder.next_floats({}, 0) is None


def layer(name: str, before: float, after: float) -> LayerSignal:
    return LayerSignal(name=name, operator="Conv", snr_db=after, input_snr_db=before)


def test_the_layer_that_adds_most_noise_stays_float_first():
    layers = [
        layer("stem", math.inf, 45),  # a large fall, and harmless
        layer("bad", 40, 10),
        layer("behind", 10, 9.5),
        layer("clean", 9.5, 9.5),
        layer("mean", 9.5, 25),  # what it rounds away may not show
        layer("float already", math.inf, math.inf),
    ]
    assert [each.name for each in ranked(layers)] == ["bad", "behind", "stem", "clean", "mean"]
    assert noise(layers[1]) == pytest.approx(0.1, rel=1e-2)


def test_within_limits_the_fastest_is_chosen():
    limits = Limits(accuracy_drop=0.01, size_bytes=3000)
    tried = [
        figures("fp32", 1, 4000, verdict="within"),
        figures("int8", 2, 1000, verdict="beyond", drop=0.03),
        figures("mixed", 3, 1100, verdict="within", floats=1),
        figures("int8-weights", 4, 1000, verdict="within"),
    ]
    chosen = choose(tried, auto=True, limits=limits)
    assert [c.precision for c, choice in chosen.items() if choice.chosen] == ["mixed"]
    assert "accuracy drop 3 points" in chosen[tried[1].candidate].note


def test_of_mixed_ones_only_they_themselves_are_chosen():
    tried = [figures("fp32", 1), figures("int8", 1), figures("mixed", 3, floats=2)]
    chosen = choose(tried, auto=False, only="mixed")
    assert [c.precision for c, choice in chosen.items() if choice.chosen] == ["mixed"]


def test_without_a_limit_on_accuracy_a_point_may_still_be_lost_at_most():
    limits = Limits(latency_ms=20)
    tried = [
        Figures(candidate=Candidate("onnx", "fp32"), bytes=4, p50_ms=9, accuracy=0.9, drop=0),
        Figures(candidate=Candidate("onnx", "int8"), bytes=1, p50_ms=2, accuracy=0.8, drop=0.1),
    ]
    chosen = choose(tried, auto=True, source_accuracy=0.9, limits=limits)
    assert [c.precision for c, choice in chosen.items() if choice.chosen] == ["fp32"]


def test_the_front_is_what_nothing_beats():
    fast = Merits(latency_ms=1, loss=0.05, bytes=100)
    exact = Merits(latency_ms=3, loss=0.0, bytes=400)
    small = Merits(latency_ms=4, loss=0.05, bytes=50)
    beaten = Merits(latency_ms=3, loss=0.01, bytes=400)
    assert front([fast, exact, small, beaten]) == [True, True, True, False]


def test_equals_are_on_the_front_together_and_the_unknown_beats_nobody():
    one = Merits(latency_ms=1, loss=0, bytes=1)
    unknown = Merits(latency_ms=None, loss=0, bytes=0)
    assert front([one, one, unknown]) == [True, True, True]


def trial(folder: Path, precision: Precision, size: int, p50: float) -> Trial:
    file = folder / f"{precision}.onnx"
    file.write_bytes(bytes(size))
    return Trial(
        candidate=Candidate("onnx", precision),
        made=CompileResult(files=(file,), inputs={}, outputs={}),
        measured=Measurement(
            machine="m",
            isa="avx2",
            threads=1,
            samples=100,
            load_ms=1,
            p50_ms=p50,
            p99_ms=p50,
            peak_rss_mb=50,
        ),
    )


def test_where_nothing_is_within_the_limits_the_nearest_is_told_and_what_to_do(tmp_path: Path):
    tried = [trial(tmp_path, "fp32", 900, 30), trial(tmp_path, "int8", 300, 12)]
    told = unmet(tried, Limits(latency_ms=10, size_bytes=500), only=None)
    assert told.reason == (
        "None of the 2 artifacts tried is within the limits. "
        "The nearest, int8: latency 12 ms (at most 10 ms)."
    )
    assert "--max-latency" in told.remedy
    assert "--max-size" not in told.remedy


def test_where_nothing_passes_and_there_are_no_limits_none_is_spoken_of(tmp_path: Path):
    broken = Parity(cosine=0.5, max_abs=1, samples=8, tolerance=Tolerance(cosine=0.98))
    tried = [trial(tmp_path, precision, 300, 12) for precision in ("int8", "mixed")]
    tried = [
        msgspec.structs.replace(each, checked=Checked(parity=broken, golden=broken))
        for each in tried
    ]
    told = unmet(tried, Limits(), only="mixed")
    assert told.reason == (
        "What was tried does not pass its check. "
        "The nearest, mixed: cosine 0.50000 (at least 0.98)."
    )
    assert "--tolerance mixed:" in told.remedy


def test_where_layers_could_not_be_kept_float_that_is_told(tmp_path: Path):
    told = unmet([trial(tmp_path, "fp32", 900, 30)], Limits(), only="mixed")
    assert told.reason == "There is no artifact with precision mixed."


def test_the_table_has_the_nearest_first_where_nothing_is_chosen(tmp_path: Path):
    limits = Limits(latency_ms=10)
    tried = [trial(tmp_path, "fp32", 900, 30), trial(tmp_path, "int8", 300, 12)]
    choices = choose([each.figures() for each in tried], auto=True, limits=limits)
    told = rows(tried, choices, limits)
    assert [row.precision for row in told] == ["int8", "fp32"]
    assert told[0].missed == ("latency 12 ms (at most 10 ms)",)
