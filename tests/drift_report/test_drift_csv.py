"""CSV files as people have them: other separators, decimal commas, other encodings, cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeml
from edgeml.cli import main
from edgeml.errors import SourceError

ROWS = [f"{value:.4f}" for value in np.random.default_rng(1).normal(size=500)]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.csv"
    path.write_text("".join(f"{n},{value}\n" for n, value in enumerate(["value", *ROWS])))
    return path


def as_sheet(path: Path) -> Path:
    """As a spreadsheet of most of Europe writes it."""
    text = path.read_text().replace(",", ";").replace(".", ",")
    path.with_name("sheet.csv").write_text(text)
    return path.with_name("sheet.csv")


def test_a_sheet_with_semicolons_and_decimal_commas_holds_the_same_numbers(plain: Path) -> None:
    result = edgeml.drift(plain, as_sheet(plain), columns=["value"], independent=True)
    (column,) = result.columns
    assert (column.kind, column.sentence) == ("numeric", "the same")
    assert result.findings == [] or all(f.kind != "type" for f in result.findings)


def test_a_bar_is_a_separator_too(plain: Path) -> None:
    bars = plain.with_name("bars.csv")
    bars.write_text(plain.read_text().replace(",", "|"))
    assert len(edgeml.drift(plain, bars).columns) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n3,4\n5", "bad.csv, line 4, has 1 value: '5'. Expected 2, one for each name"),
        (b"a,b\n1,2\n3,4,5\n", "line 3, has 3 values: '3,4,5'"),
        ("a,b\n1,2\n".encode("utf-16"), "is in UTF-16. Expected CSV in UTF-8. `iconv -f UTF-16"),
        ("a,b\n1,Köln\n".encode("latin-1"), "no UTF-8.*iconv -f WINDOWS-1252"),
        (b"\x01\x00\x02\n", "no text: it has NUL bytes"),
        (b"20.5,3\n21.5,4\n", "begins with numbers: 20.5, 3. Expected column names"),
        (b"0,0\n1,2\n", "begins with numbers: 0, 0"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        edgeml.drift(path, path)


def test_names_that_are_numbers_of_columns_are_names(tmp_path: Path) -> None:
    path = tmp_path / "frame.csv"
    path.write_text("0,1\n" + "".join(f"{value},a\n" for value in ROWS))
    assert [column.name for column in edgeml.drift(path, path).columns] == ["0", "1"]


def test_a_number_that_no_table_has_is_no_fault_of_ours(tmp_path: Path) -> None:
    np.save(tmp_path / "complex.npy", np.ones(9) * 1j)
    with pytest.raises(SourceError, match="complex.npy cannot be read"):
        edgeml.drift(tmp_path / "complex.npy", tmp_path / "complex.npy")


def test_where_nothing_can_be_compared_a_pipeline_does_not_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "times.csv"
    path.write_text("when\n2026-05-01\n2026-05-02\n")
    assert main(["drift", str(path), str(path)]) == 1
    assert "There was nothing to compare." in capsys.readouterr().out


def test_a_summary_writes_a_columns_name_as_it_is(plain: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("Value\n1\n")
    assert edgeml.drift(plain, other, columns=["value"]).summary.startswith("value is missing")
