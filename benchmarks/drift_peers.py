"""Evidently's and alibi-detect's tests of the changes in ``drift_worlds.py``: from environments of
their own, on windows of their own, since they are slow."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from drift_equal import LEVEL
from drift_worlds import ROWS, STRENGTHS, WORLDS

SEED = 5
NULL = 4
"""Times as many windows where nothing changed."""
PEERS = {"alibi-detect": ("alibi-detect",), "evidently": ("evidently", "pandas<3")}
"""What is installed; Evidently 0.7 does not start with pandas 3."""

Case = tuple[str, float, int]
CASES: tuple[Case, ...] = (
    *(("mean", 0.0, rows) for rows in ROWS),
    *((world, strength, rows) for world in WORLDS for strength in STRENGTHS for rows in ROWS),
)
"""First those where nothing changed."""


class Peers(NamedTuple):
    """What they made of it."""

    power: dict[Case, dict[str, float]]
    """By test, with the 95 % point of its own score where nothing changed as threshold."""
    rates: dict[int, dict[str, float]]
    """How often their own defaults call drift where nothing changed, by rows."""
    absent: list[str]
    """What could not be measured, and why."""


def measure_peers(folder: Path, count: int) -> Peers:
    """Score ``count`` windows of each case.

    Args:
        folder: of the peers' environments, which are made where they are missing.
        count: 0 measures none.
    """
    found = Peers({case: {} for case in CASES}, {rows: {} for rows in ROWS}, [])
    for name in PEERS if count else ():
        try:
            scored = _scores(name, folder, count)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
            found.absent.append(f"{name}: {' '.join(reason)}")
            continue
        critical: dict[tuple[int, str], float] = {}
        for case, tests in zip(CASES, scored, strict=True):
            for test, (scores, rate) in tests.items():
                if not case[1]:
                    critical[case[2], test] = float(np.quantile(scores, 1 - LEVEL))
                    found.rates[case[2]][test] = rate
                beyond = np.array(scores) > critical[case[2], test]
                found.power[case][test] = float(beyond.mean())
    return found


def _scores(name: str, folder: Path, count: int) -> list[dict[str, Any]]:
    home = folder / name
    python = str(home / "bin" / "python")
    script = str(Path(__file__).parent / "peers" / "drift_tests.py")
    if not home.exists():
        venv.create(home, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", *PEERS[name]]
        subprocess.run(command, check=True, capture_output=True, text=True)
    cases = [[*case, count if case[1] else NULL * count] for case in CASES]
    done = subprocess.run(
        [python, script, name, str(SEED)],
        input=json.dumps(cases),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout[done.stdout.index("[") :])
