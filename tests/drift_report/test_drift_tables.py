"""``edgeml drift`` as its users meet it: files of every form, whole and damaged, to a verdict."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

import edgeml
from edgeml.cli import main
from edgeml.drift_report.result import ColumnDrift, DriftResult
from edgeml.errors import EdgemlError, SourceError, UsageError


def shop(rows: int, seed: int, *, moved: bool = False) -> pa.Table:
    """A table of numbers, categories, text, flags and missing values."""
    random = np.random.default_rng(seed)
    words = ["late", "fine", "order 77", "thanks", "broken!", "ok"]
    count = random.integers(1, 12 if moved else 6, rows)
    return pa.table(
        {
            "price": random.lognormal(3, 0.5, rows) * (1.6 if moved else 1),
            "age": random.normal(40, 10, rows),
            "temperature": pa.array(
                random.normal(20, 3, rows), mask=random.random(rows) < (0.2 if moved else 0.02)
            ),
            "shop": random.choice(["north", "south", "web"], rows, p=[0.5, 0.3, 0.2]),
            "comment": [" ".join(random.choice(words, n)) + f" {random.random()}" for n in count],
            "paid": random.random(rows) < 0.5,
        }
    )


def column(result: DriftResult, name: str) -> ColumnDrift:
    return next(one for one in result.columns if one.name == name)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for name, seed, moved in (("before", 1, False), ("same", 2, False), ("moved", 3, True)):
        table = shop(3000, seed, moved=moved)
        pa.parquet.write_table(table, folder / f"{name}.parquet")
        pa.csv.write_csv(table, folder / f"{name}.csv")
    return folder


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_what_moved_is_found_and_what_did_not_is_not(tables: Path, form: str) -> None:
    result = edgeml.drift(tables / f"before.{form}", tables / f"moved.{form}")
    drifting = {one.name for one in result.columns if one.verdict == "drift"}
    assert {"price", "temperature", "comment · length"} <= drifting
    assert not {"age", "shop", "paid"} & drifting
    assert "missing 2" in column(result, "temperature").sentence
    assert result.drift
    effects = [one.comparison.effect for one in result.columns if one.verdict == "drift"]
    assert effects == sorted(effects, reverse=True)

    again = edgeml.drift(tables / f"before.{form}", tables / f"same.{form}")
    assert not again.drift, again.summary
    assert all(one.verdict == "none" for one in again.columns)


def test_the_command_says_by_its_exit_status_whether_there_is_drift(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, page = str(tables / "before.csv"), tmp_path / "report.html"
    assert main(["drift", before, str(tables / "same.csv")]) == 0
    capsys.readouterr()
    assert main(["drift", before, str(tables / "moved.csv"), "--json", "--html", str(page)]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["drift"] is True
    assert document["columns"][0]["comparison"]["measures"]["js"]["effect"] > 0.02
    html = page.read_text()
    assert document["columns"][0]["name"] in html
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert main(["drift", before, str(tables / "no.csv")]) == 1
    assert "There is no file" in capsys.readouterr().err
    assert main(["drift", before, before, "--columns", "prize"]) == 2


def test_the_reports_of_markup_in_data_show_it_as_text(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    named = {"<script>alert(1)</script>": ["<b>", "&"] * 50}
    edgeml.drift(named, named, html=page)
    assert "<script>" not in page.read_text()


def test_every_result_says_what_it_rests_on(tables: Path) -> None:
    result = edgeml.drift(tables / "before.parquet", tables / "moved.parquet")
    for one in result.columns:
        comparison = one.comparison
        assert (comparison.n, comparison.m) == (3000, 3000)
        assert 0 <= comparison.p <= one.adjusted_p <= 1
        wanted = {"js", "psi", "chi2"} | ({"w1", "ks"} if one.kind != "categorical" else set())
        assert set(comparison.measures) == wanted
        for measured in comparison.measures.values():
            assert measured.detectable > 0
            assert 0 <= measured.p <= 1


def test_new_missing_values_of_a_slow_series_are_drift() -> None:
    """Its values are worth few rows; whether they are there is another thing."""
    random = np.random.default_rng(8)
    steps = random.normal(size=2500)
    for row in range(1, len(steps)):
        steps[row] = 0.9 * steps[row - 1] + steps[row] * np.sqrt(1 - 0.9**2)
    before = pa.table({"level": steps[:2000]})
    gone = random.random(500) < 0.14
    now = edgeml.drift(before, pa.table({"level": pa.array(steps[2000:], mask=gone)}))
    assert column(now, "level").verdict == "drift"
    assert "missing 0 % → 13 %" in column(now, "level").sentence


def test_columns_that_are_gone_new_or_of_another_type_are_findings() -> None:
    random = np.random.default_rng(1)
    before = {"a": random.normal(size=500), "b": random.normal(size=500), "c": ["x", "y"] * 250}
    after = {"a": before["a"], "c": random.normal(size=500), "d": before["b"]}
    result = edgeml.drift(before, after)
    kinds = {(finding.column, finding.kind) for finding in result.findings}
    assert kinds == {("b", "missing column"), ("c", "type"), ("d", "extra column")}
    assert result.drift
    assert [one.name for one in result.columns] == ["a"]


def test_a_number_among_words_and_a_word_among_numbers(tmp_path: Path) -> None:
    before, mixed, words = (tmp_path / f"{name}.csv" for name in ("before", "mixed", "words"))
    numbers = [f"{value:.3f}" for value in np.random.default_rng(1).normal(size=1000)]
    before.write_text("v\n" + "\n".join(numbers))
    mixed.write_text("v\n" + "\n".join(["  error ", "+1.5", *numbers[2:]]))
    words.write_text("v\n" + "\n".join(["error", "warning"] * 500))
    result = edgeml.drift(before, mixed)
    assert [(finding.kind, finding.column) for finding in result.findings] == [("mixed", "v")]
    assert not result.drift
    result = edgeml.drift(before, words)
    assert [(finding.kind, finding.breaks) for finding in result.findings] == [("type", True)]


@pytest.mark.parametrize(
    "values",
    [
        np.full(300, 5.0),
        np.full(300, np.nan),
        np.full(300, np.inf),
        np.array([1e300, -1e300] * 150),
        np.array([5e-324] * 300),
        np.array([1.0]),
        np.array([1, 2, 3], dtype=np.int8),
        np.random.default_rng(2).uniform(5, 6, 300).astype(">f4"),
    ],
    ids=["constant", "NaN", "infinite", "huge", "denormal", "one row", "tiny", "big-endian"],
)
def test_odd_columns_are_alike_to_themselves(values: np.ndarray, tmp_path: Path) -> None:
    result = edgeml.drift({"v": values}, {"v": values}, html=tmp_path / "page.html")
    assert result.columns[0].comparison.effect == 0
    assert result.columns[0].verdict in ("none", "unclear")
    usual = np.random.default_rng(1).normal(size=1000)
    there = edgeml.drift({"v": usual}, {"v": values})
    back = edgeml.drift({"v": values}, {"v": usual})
    if values.size == 300:
        assert there.drift
        assert back.drift


def test_a_constant_that_moves_is_found() -> None:
    assert edgeml.drift({"v": np.full(500, 5.0)}, {"v": np.full(500, 5.0001)}).drift


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ([100.0], r"mean 49.71 → above 10\d\.\d \(above \+1.8\d sd\), .*, above 10\d"),
        ([-100.0], r"mean 49.71 → below -.* \(below -1.7\d sd\), .*, below -"),
        ([-100.0, 200.0], r"mean 49.71 → about .*, above 10\d"),
        ([20.0], r"mean 49.71 → above .*, above 100.9 0 % → 19 %"),
        ([0.0, 1.0], r"mean 49.71 → 50.23 \(\+0.02 sd\)"),
    ],
)
def test_of_what_lies_beyond_the_grid_no_place_is_made_up(added: list[float], said: str) -> None:
    """Counts tell that it is there, and not how far out."""
    random = np.random.default_rng(1)
    usual = random.uniform(0, 100, 4000)
    (found,) = edgeml.drift({"v": usual}, {"v": usual + random.choice(added, 4000)}).columns
    assert re.match(said, found.sentence), found.sentence


def test_one_row_is_too_few_to_tell(tmp_path: Path) -> None:
    usual = np.random.default_rng(1).normal(size=1000)
    page = tmp_path / "page.html"
    result = edgeml.drift({"v": usual}, {"v": np.array([0.1])}, html=page)
    assert result.columns[0].verdict == "unclear"
    assert "The only statistic has too few" in result.summary
    assert "no drift" not in result.summary.lower()
    assert "<h1>Too few rows</h1>" in page.read_text()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"a,b\n", "no rows"),
        ("ragged.csv", b"a,b\n1,2\n3\n", "line 3, has 1 value"),
        ("twice.csv", b"a,a\n1,2\n", "columns of one name"),
        ("latin.csv", b"a\n\xff\xfe\n", "no UTF-8"),
        ("broken.parquet", b"PAR1 and no more", "cannot be read"),
        ("broken.npz", b"PK no zip", "cannot be read"),
        ("broken.npy", b"\x93NUMPY", "cannot be read"),
        ("table.xlsx", b"PK", "suffix '.xlsx'"),
    ],
)
def test_what_cannot_be_used_is_named(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    good = {"a": np.arange(50.0), "b": np.arange(50.0)}
    for sides in ((file, good), (good, file)):
        with pytest.raises(SourceError, match=words) as caught:
            edgeml.drift(*sides)
        assert name in str(caught.value)


def test_arrays_frames_and_compressed_csv_are_tables_too(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    before, after = random.normal(size=(800, 3)), random.normal([0, 0, 1], 1, (800, 3))
    np.save(tmp_path / "before.npy", before)
    np.savez(tmp_path / "after.npz", x=after)
    result = edgeml.drift(tmp_path / "before.npy", after)
    assert [one.name for one in result.columns if one.verdict == "drift"] == ["[2]"]
    assert edgeml.drift({"x": before}, tmp_path / "after.npz").columns[0].name == "x[2]"
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(b"a;b\n" + b"1;x\n2;y\n" * 100))
    assert len(edgeml.drift(packed, pa.table({"a": [1, 2] * 9, "b": ["x"] * 18})).columns) == 2
    with pytest.raises(SourceError, match="unlike numbers of rows"):
        edgeml.drift({"a": np.zeros(3), "b": np.zeros(4)}, before)
    with pytest.raises(SourceError, match="is a int"):
        edgeml.drift(3, before)


def test_categories_by_number_and_new_ones() -> None:
    random = np.random.default_rng(1)
    before, after = random.choice(5, 2000), random.choice(6, 2000)
    result = edgeml.drift({"code": before}, {"code": after}, categorical=["code"])
    assert result.columns[0].kind == "categorical"
    assert "‘" in result.columns[0].sentence  # a code is told from a share
    assert result.columns[0].verdict == "drift"
    assert "(other) 0 % → 1" in result.columns[0].sentence


def test_new_categories_are_named_and_those_that_are_rare_on_both_sides_are_not() -> None:
    """With more values than there are cells, so that *other* is nothing new."""
    random = np.random.default_rng(1)
    usual = [*["web"] * 2000, *[f"shop {n}" for n in range(150)] * 5]
    after = [*usual, *["kiosk"] * 300, *["phone"] * 90, *[f"customer {n}" for n in range(900)]]
    sides = {"shop": random.permutation(usual)}, {"shop": random.permutation(after)}
    found = column(edgeml.drift(*sides), "shop")
    assert found.verdict == "drift"
    kiosk, phone = found.sentence.split(", new ")[1].split(" and ")
    assert kiosk.startswith("kiosk 7")  # of 4,040 rows
    assert phone.startswith("phone 2")
    assert "new" not in column(edgeml.drift(sides[0], sides[0]), "shop").sentence


def test_windows_of_time_show_when_it_began(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    seconds = np.arange(4800) * 60
    values = random.normal(size=4800) + (np.arange(4800) >= 2400)
    page = tmp_path / "page.html"
    data = {"when": seconds, "v": values}
    result = edgeml.drift(
        {"v": random.normal(size=2000)}, data, time="when", window="4h", html=page
    )
    moments = result.columns[0].over_time
    assert [moment.n for moment in moments] == [240] * 20
    assert max(moment.effect for moment in moments[:10]) < 0.05
    assert min(moment.effect for moment in moments[10:]) > 0.05
    assert "windows of 4 h" in page.read_text()
    assert [one.name for one in result.columns] == ["v"]
    many = {"when": np.arange(6000) * 60, "v": np.zeros(6000)}
    with pytest.raises(UsageError, match="more than 5,000 windows"):
        edgeml.drift({"v": values}, many, time="when", window="30s")
    with pytest.raises(UsageError, match="no length"):
        edgeml.drift({"v": values}, data, time="when", window="soon")


def test_rows_that_follow_each_other_are_not_taken_for_independent() -> None:
    random = np.random.default_rng(4)
    wander = np.zeros(40_000)
    for row in range(1, wander.size):
        wander[row] = 0.98 * wander[row - 1] + random.normal()
    before, after = {"v": wander[:20_000]}, {"v": wander[20_000:]}
    honest = edgeml.drift(before, after, min_effect=0)
    assert not honest.drift
    assert honest.columns[0].comparison.effective_n < 600
    assert any(finding.kind == "order" for finding in honest.findings)
    naive = edgeml.drift(before, after, min_effect=0, independent=True)
    assert naive.columns[0].comparison.p < 1e-6


def test_a_large_file_needs_little_memory(tmp_path: Path) -> None:
    """200 MB of CSV in a process that may grow by less than that."""
    file = tmp_path / "large.csv"
    random = np.random.default_rng(1)
    block = "\n".join(
        ",".join(f"{v:.12f}" for v in row) for row in random.normal(size=(20_000, 10))
    )
    with file.open("w") as stream:
        stream.write(",".join(f"c{i}" for i in range(10)) + "\n")
        for _ in range(66):
            stream.write(block + "\n")
    program = (
        "import resource, sys, edgeml\n"
        "import edgeml.drift_report.comparing, pyarrow.csv, scipy.special\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"result = edgeml.drift({str(file)!r}, {str(file)!r})\n"
        "print(result.data_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    rows, grown = map(int, done.stdout.split())
    assert rows == 66 * 20_000
    assert file.stat().st_size > 180e6
    assert grown * 1024 < 0.8 * file.stat().st_size


def test_wrong_options_are_refused() -> None:
    table = {"v": np.arange(100.0)}
    for options in ({"alpha": 0.0}, {"min_effect": 2.0}, {"time": "when"}, {"columns": ["w"]}):
        with pytest.raises(EdgemlError):
            edgeml.drift(table, table, **options)
