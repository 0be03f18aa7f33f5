"""What retention goes by: the rule, and whether the clock is to be believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.devices import START_MS

from edgeml.collector.config import load_config
from edgeml.collector.drift.policy import Policy
from edgeml.collector.keep.keeper import needed
from edgeml.collector.keep.rule import DAY_MS, HELD_S, Watch
from edgeml.errors import UsageError


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**6))
def test_the_clock_is_believed_while_it_goes_with_the_other_one(jump_s: int, wait_s: int) -> None:
    def wall(seconds: float) -> int:
        return START_MS + 1000 * (jump_s + round(seconds))

    watch = Watch(seen_ms=START_MS, seen_s=0.0)
    believed = watch.believes(wall(wait_s), wait_s)
    assert believed == (1000 * abs(jump_s) <= DAY_MS)
    if not believed:
        later = wait_s + HELD_S
        assert not watch.believes(wall(later - 60), later - 60)
        assert watch.believes(wall(later), later)
        assert watch.believes(wall(later + 60), later + 60)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[keep]\nwindows_days = 30\nhours_days = 10", "have to grow"),
        ("[keep]\ndays_days = -1", "days_days"),
    ],
)
def test_a_rule_that_is_none_is_refused(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "collector.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=found):
        load_config(path)


def test_what_is_kept_for_ever_is_no_stage(tmp_path: Path) -> None:
    path = tmp_path / "collector.toml"
    path.write_text("[keep]\nwindows_days = 0\nhours_days = 0\ndays_days = 0")
    assert load_config(path).keep.rule.stages == ()
    path.write_text("[keep]\nwindows_days = 0\nhours_days = 90")
    assert [stage.span_ms for stage in load_config(path).keep.rule.stages] == [DAY_MS, 0]
    assert needed(Policy()) > Policy().longest_reference
