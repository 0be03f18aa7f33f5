"""Power of one window's test on counts beside exact tests on its rows, at equal false-alarm rate.

``python benchmarks/drift_power.py [--write] [--count N] [--peers FOLDER]``: each test's threshold
is the 95 % point of its score over windows where nothing changed, so that all have the same level,
whatever their p-values claim. Scores of Evidently and alibi-detect come from environments of their
own, made in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from drift_worlds import ROWS, STRENGTHS, WORLDS, Floats, generator, pair
from page import setting, table, write_section

from edgeml.collector.drift.chi2 import chi_square
from edgeml.collector.drift.combined import combined_test
from edgeml.statistics import Counts, fit_grid, pack

SEED = 5
LEVEL = 0.05
RAW_BYTES = 4
"""A row's, as float32."""
PEERS = {"alibi-detect": ("alibi-detect",), "evidently": ("evidently", "pandas<3")}
"""What is installed; Evidently 0.7 does not start with pandas 3."""
OURS, EXACT = "edgeml", "KS"
NULL = 4
"""Times as many windows where nothing changed, since all thresholds rest on them."""

Case = tuple[str, float, int]
Scores = dict[str, Floats]


class Row(NamedTuple):
    """One change at one strength and number of rows."""

    case: Case
    power: dict[str, float]
    """Of each test at the same level."""
    bytes: float
    """A window's counts on the wire."""


class Level(NamedTuple):
    """What a test's own threshold does where nothing changed."""

    rows: int
    test: str
    rate: float


def cases() -> Iterator[Case]:
    """First those where nothing changed, then all changes."""
    yield from (("mean", 0.0, rows) for rows in ROWS)
    for world in WORLDS:
        for strength in STRENGTHS:
            yield from ((world, strength, rows) for rows in ROWS)


def measure(case: Case, count: int) -> tuple[Scores, dict[str, float], float]:
    """Scores of each test, the share that its own level of 5 % rejects, bytes a window."""
    stats: Any = import_module("scipy.stats")
    world, strength, rows = case
    random = generator(SEED, world, strength, rows)
    p_values: dict[str, list[float]] = {}
    sizes: list[int] = []
    for _ in range(repeats(case, count)):
        baseline, window = pair(random, world, strength, rows)
        grid = fit_grid(baseline)
        ours, theirs = Counts.of(grid, window), Counts.of(grid, baseline)
        sizes.append(len(pack(ours)))
        found = {
            OURS: combined_test(grid, ours.cells, theirs.cells).p,
            "χ² alone": chi_square(grid, ours.cells, theirs.cells).p,
            EXACT: stats.ks_2samp(window, baseline, method="asymp").pvalue,
            "t": stats.ttest_ind(window, baseline, equal_var=False).pvalue,
        }
        for name, p in found.items():
            p_values.setdefault(name, []).append(float(p))
    arrays = {name: np.array(values) for name, values in p_values.items()}
    rates = {name: float((p <= LEVEL).mean()) for name, p in arrays.items()}
    # Their logarithm, lest small ones tie at zero.
    scores = {name: -np.log(np.maximum(p, 1e-320)) for name, p in arrays.items()}
    return scores, rates, float(np.mean(sizes))


def repeats(case: Case, count: int) -> int:
    """Windows of a case."""
    return count if case[1] else NULL * count


def rows(count: int, *, peers: Path, peer_count: int) -> tuple[list[Row], list[Level], list[str]]:
    """Measure everything; the last list says which peer could not be measured, and why."""
    every = list(cases())
    ours = [measure(case, count) for case in every]
    scores = [dict(each[0]) for each in ours]
    rates = [dict(each[1]) for each in ours]
    absent: list[str] = []
    for name in PEERS:
        try:
            found = peer_scores(name, peers, every, peer_count)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
            absent.append(f"{name}: {' '.join(reason)}")
            continue
        for into, own, more in zip(scores, rates, found, strict=True):
            into.update({test: np.array(values) for test, (values, _) in more.items()})
            own.update({test: rate for test, (_, rate) in more.items()})
    null = {case[2]: one for case, one in zip(every, scores, strict=True) if not case[1]}
    critical = {
        n: {test: float(np.quantile(values, 1 - LEVEL)) for test, values in one.items()}
        for n, one in null.items()
    }
    powers = [
        Row(
            case,
            {
                test: float((values > critical[case[2]][test]).mean())
                for test, values in one.items()
            },
            each[2],
        )
        for case, one, each in zip(every, scores, ours, strict=True)
        if case[1]
    ]
    levels = [
        Level(case[2], test, rate)
        for case, own in zip(every, rates, strict=True)
        if not case[1]
        for test, rate in own.items()
    ]
    return powers, levels, absent


def peer_scores(name: str, folder: Path, every: Sequence[Case], count: int) -> list[dict[str, Any]]:
    """Another project's scores of the same samples, from an environment that is made if missing."""
    home = folder / name
    python = str(home / "bin" / "python")
    script = str(Path(__file__).parent / "peers" / "drift_tests.py")
    if not home.exists():
        venv.create(home, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", *PEERS[name]]
        subprocess.run(command, check=True, capture_output=True, text=True)
    done = subprocess.run(
        [python, script, name, str(SEED)],
        input=json.dumps([[*case, repeats(case, count)] for case in every]),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout[done.stdout.index("[") :])


def render(found: tuple[list[Row], list[Level], list[str]], count: int) -> str:
    """As Markdown: those changes that some test finds sometimes and not always."""
    powers, levels, absent = found
    tests = list(powers[0].power)
    shown = [row for row in powers if row.power[EXACT] >= 0.1 and min(row.power.values()) < 0.995]
    lines = [
        (
            *row.case[:2],
            f"{row.case[2]:,}",
            *(f"{row.power[test]:.2f}" for test in tests),
            f"{row.power[OURS] / row.power[EXACT]:.2f}",
            f"{row.bytes:.0f}",
            f"1/{row.case[2] * RAW_BYTES / row.bytes:.0f}",
        )
        for row in shown
    ]
    heads = ("change", "strength", "rows", *tests, f"{OURS} / {EXACT}", "bytes", "of the rows'")
    ratios = np.array([row.power[OURS] / row.power[EXACT] for row in shown])
    alone = np.array([row.power["χ² alone"] / row.power[EXACT] for row in shown])
    rates = {(level.test, level.rows): level.rate for level in levels}
    return "\n\n".join(
        [
            setting("numpy", "scipy"),
            f"{count:,} windows a line against {10_000:,} baseline rows. Power of {OURS} over that "
            f"of {EXACT} on the rows: at least .95 in {np.mean(ratios >= 0.95):.0%} of "
            f"{len(ratios)} lines, median {np.median(ratios):.2f}, least {ratios.min():.2f}; of χ² "
            f"alone at least .95 in {np.mean(alone >= 0.95):.0%}. Lines where {EXACT} finds less "
            "than 1 in 10, or every test everything, are left out.",
            table(heads, lines),
            "False-positive rate at the tests' own 5 % (Evidently: at its default threshold):",
            table(
                ("rows", *tests),
                [[f"{n:,}", *(f"{rates[test, n]:.3f}" for test in tests)] for n in ROWS],
            ),
            *(f"Not measured: {line}." for line in absent),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--peer-count", type=int, help="windows that peers are given")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as spare:
        found = rows(
            options.count,
            peers=options.peers or Path(spare),
            peer_count=options.peer_count or options.count,
        )
    text = render(found, options.count)
    print(text)
    if options.write:
        write_section("drift power", text)


if __name__ == "__main__":
    sys.exit(main())
