"""Tables on a terminal that is too narrow for them."""

from __future__ import annotations

import pytest

from edgeml.cli import main, shared
from edgeml.cli.shared import write_table
from edgeml.targets.devices import names
from edgeml.targets.registry import TARGETS

HEADS = ("artifact", "size", "max abs", "why")
ROW = ("openvino-int8-weights", "97.2 kB", "0.293", "failed its check on the golden vectors")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]


def table(capsys: pytest.CaptureFixture[str], width: int, spare: tuple[str, ...] = ()) -> list[str]:
    write_table(HEADS, [ROW], right=("size", "max abs"), spare=spare)
    shown = lines(capsys)
    assert max(map(len, shown)) <= width
    return shown


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch):
    return lambda count: monkeypatch.setattr(shared, "PIPE_COLUMNS", count)


def test_cells_are_folded_between_words_and_numbers_not_at_all(columns, capsys):
    columns(60)
    shown = table(capsys, 60)
    assert any("openvino-int8-weights   97.2 kB     0.293" in line for line in shown)
    assert [line.split()[-1] for line in shown[3:]] == ["the", "vectors"]


def test_spare_columns_are_left_out_before_a_number_breaks(columns, capsys):
    columns(44)
    shown = table(capsys, 60, spare=("max abs",))
    assert any("openvino-int8-weights  97.2 kB" in line for line in shown)
    assert shown[-1] == "Left out, since the terminal is narrow: max abs"


def test_a_table_that_has_the_room_is_whole(columns, capsys):
    columns(160)
    shown = table(capsys, 160, spare=("max abs",))
    assert shown[-1].endswith(ROW[-1])


def test_a_title_may_be_wider_than_its_table(columns, capsys):
    columns(80)
    write_table(("layer", "SNR"), [("stem", "3.0")], title="the layers of 3 that add most noise")
    assert lines(capsys)[0] == "the layers of 3 that add most noise"


@pytest.mark.parametrize("line", ["targets", "devices"])
def test_names_that_people_type_stay_whole_at_80_columns(line: str, columns, capsys):
    columns(80)
    assert main([line]) == 0
    shown = lines(capsys)
    words = {word for each in shown for word in each.split()}
    assert set(TARGETS if line == "targets" else names()) <= words
