"""Power of one window's test on counts beside exact tests on its rows, at equal false-alarm rate.

``python benchmarks/drift_power.py [--write] [--count N] [--settle N] [--peers FOLDER]
[--peer-count N]``. In a repetition one baseline and one undisturbed window serve all tests and all
changes; errors are in ``drift_equal.py``. A line that ``--count`` windows leave open is measured
again, alone, on ``--settle`` windows that nobody has seen: their number is fixed beforehand and
they are looked at once, so that its errors are those of any other line. Scores of Evidently and
alibi-detect come from environments of their own, made in FOLDER, and are of fewer windows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from drift_equal import LEGEND, LEVEL, Against, against, powers, summary
from drift_peers import Peers, measure_peers
from drift_worlds import BASELINE_ROWS, ROWS, STRENGTHS, WORLDS, Floats
from exact_tests import check, exact_tests
from page import setting, table, write_section

from edgeml.collector.drift.combined import combined_test
from edgeml.statistics import Counts, Grid, fit_grid, pack

SEED = 5
SETTLE_SEED = 8
"""Of the windows that settle what is open."""
TESTS = ("edgeml", "χ² alone", "KS", "CvM", "t")
"""KS, Cramér-von Mises and Welch's t take the rows."""
OURS, ALONE, KS, CVM = range(4)
NULL = 4
"""Times as many windows where nothing changed, since all thresholds rest on them."""
CHANGES = tuple((world, strength) for world in WORLDS for strength in STRENGTHS)
RAW = {"float32": 4, "float64": 8}
"""Bytes of a row."""


class Measured(NamedTuple):
    """Of all repetitions, with windows of one number of rows."""

    changed: Floats
    """Scores [repetitions, changes, tests], larger for more change."""
    null: Floats
    """Where nothing changed [repetitions, NULL, tests]."""
    p: Floats
    """p-values there, by the own reckoning of the tests that have one: all but Cramér-von Mises."""
    sizes: Floats
    """Bytes of a window's counts [repetitions, changes]."""


class Seen(NamedTuple):
    """One window."""

    scores: list[float]
    p: list[float]
    size: int


class Line(NamedTuple):
    """One change, at one number of rows."""

    world: str
    strength: float
    rows: int
    power: Floats
    """[tests]."""
    ks: Against
    cvm: Against
    size: float
    settled: bool = False
    """Whether it is of windows of its own."""

    @property
    def open(self) -> bool:
        """Whether it is undecided beside either test."""
        return "open" in (self.ks.verdict, self.cvm.verdict)


def measure(
    repetitions: Iterable[int],
    *,
    changes: Sequence[tuple[str, float]] = CHANGES,
    sizes: Sequence[int] = ROWS,
    seed: int = SEED,
) -> dict[int, Measured]:
    """Score changes in each of the repetitions, by the rows of a window."""
    found: dict[int, list[tuple[list[Seen], list[Seen]]]] = {rows: [] for rows in sizes}
    for repetition in repetitions:
        random = np.random.default_rng([seed, repetition])
        baseline = np.sort(random.standard_normal(BASELINE_ROWS))
        grid = fit_grid(baseline)
        theirs = Counts.of(grid, baseline)
        for rows, into in found.items():
            calm, *others = random.standard_normal((1 + NULL, rows))
            changed = (WORLDS[world](calm, strength, random) for world, strength in changes)
            into.append(
                (
                    [_seen(grid, theirs, window, baseline) for window in changed],
                    [_seen(grid, theirs, window, baseline) for window in others],
                )
            )
    return {
        rows: Measured(
            np.array([[seen.scores for seen in changed] for changed, _ in each]),
            np.array([[seen.scores for seen in null] for _, null in each]),
            np.array([[seen.p for seen in null] for _, null in each]),
            np.array([[seen.size for seen in changed] for changed, _ in each], dtype=np.float64),
        )
        for rows, each in found.items()
    }


def _seen(grid: Grid, theirs: Counts, window: Floats, baseline: Floats) -> Seen:
    ours = Counts.of(grid, window)
    test = combined_test(grid, ours.cells, theirs.cells)
    exact = exact_tests(window, baseline)
    p = [test.p, test.parts["shape"]]
    # Their logarithm, lest small ones tie at zero.
    scores = [-float(np.log(max(each, 1e-320))) for each in p]
    return Seen([*scores, *exact[:3]], [*p, *exact[3:]], len(pack(ours)))


def hundredth(raw: int, random: np.random.Generator) -> int:
    """Rows, in steps of 50, from which on none of 100 windows takes more than a hundredth of the
    bytes of its rows, ``raw`` each."""
    grid = fit_grid(random.standard_normal(BASELINE_ROWS))
    rows = 50
    while True:
        windows = random.standard_normal((100, rows))
        if max(len(pack(Counts.of(grid, window))) for window in windows) * 100 <= raw * rows:
            return rows
        rows += 50


def lines(
    measured: dict[int, Measured], changes: Sequence[tuple[str, float]] = CHANGES
) -> list[Line]:
    """Of changes at all numbers of rows."""
    found = {rows: powers(each.changed, each.null) for rows, each in measured.items()}
    return [
        Line(
            world,
            strength,
            rows,
            of.value[number],
            against(of, number, OURS, KS),
            against(of, number, OURS, CVM),
            float(measured[rows].sizes[:, number].mean()),
        )
        for number, (world, strength) in enumerate(changes)
        for rows, of in found.items()
    ]


def settled(line: Line, count: int) -> Line:
    """The same line, measured alone, on other windows."""
    changes = ((line.world, line.strength),)
    measured = measure(range(count), changes=changes, sizes=(line.rows,), seed=SETTLE_SEED)
    (found,) = lines(measured, changes)
    return found._replace(settled=True)


def render(measured: dict[int, Measured], peers: Peers, peer_count: int, settle: int) -> str:
    """As Markdown, without what no test on rows finds, and what all find always."""
    repetitions = len(next(iter(measured.values())).changed)
    shown = [
        settled(line, settle) if settle and line.open else line
        for line in lines(measured)
        if line.power[[KS, CVM]].max() >= 0.1 and line.power[[OURS, KS, CVM]].min() < 0.995
    ]
    names = list(dict.fromkeys(test for tests in peers.power.values() for test in tests))
    heads = ("change", "strength", "rows", *TESTS, *names, "edgeml / KS", "edgeml / CvM", "bytes")
    body = [
        (
            f"{line.world} †" if line.settled else line.world,
            line.strength,
            f"{line.rows:,}",
            *(f"{power:.3f}" for power in line.power),
            *(f"{peers.power[line.world, line.strength, line.rows][name]:.2f}" for name in names),
            line.ks.text,
            line.cvm.text,
            f"{line.size:.0f}, 1/{line.rows * RAW['float32'] / line.size:.0f}",
        )
        for line in shown
    ]
    random = np.random.default_rng(SEED)
    enough = ", ".join(f"{hundredth(raw, random):,} of {name}" for name, raw in RAW.items())
    rates = [
        (
            f"{rows:,}",
            *(f"{rate:.3f}" for rate in (each.p <= LEVEL).mean(axis=(0, 1))),
            *(f"{peers.rates[rows].get(name, np.nan):.3f}" for name in names),
        )
        for rows, each in measured.items()
    ]
    return "\n\n".join(
        [
            setting("numpy", "scipy"),
            f"{repetitions:,} windows a line against {BASELINE_ROWS:,} baseline rows, thresholds "
            f"from {NULL * repetitions:,} windows where nothing changed. Beside KS on the rows: "
            f"{summary([line.ks for line in shown])}. Beside Cramér-von Mises on the rows: "
            f"{summary([line.cvm for line in shown])}. Lines where neither finds 1 in 10, "
            "or all three find everything, are left out.",
            *(
                [
                    f"†: not decided so, and hence measured again on {settle:,} other windows, "
                    "which were looked at once."
                ]
                if any(line.settled for line in shown)
                else []
            ),
            f"{LEGEND} *bytes*: of the counts, and their share of the rows' as float32. They are "
            f"at most a hundredth of the rows' from {enough} on.",
            *([f"Peers: {peer_count:,} windows a line."] if names else []),
            table(heads, body),
            "False-positive rate at the tests' own 5 % (peers: at their defaults):",
            table(("rows", "edgeml", "χ² alone", "KS", "t", *names), rates),
            *(f"Not measured: {line}." for line in peers.absent),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument(
        "--settle", type=int, default=25_600, help="more windows for each line that is open"
    )
    parser.add_argument("--peer-count", type=int, default=100, help="windows that peers are given")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    check(np.random.default_rng(SEED))
    measured = measure(range(options.count))
    with tempfile.TemporaryDirectory() as spare:
        peers = measure_peers(options.peers or Path(spare), options.peer_count)
    text = render(measured, peers, options.peer_count, options.settle)
    print(text)
    if options.write:
        write_section("drift power", text)


if __name__ == "__main__":
    sys.exit(main())
