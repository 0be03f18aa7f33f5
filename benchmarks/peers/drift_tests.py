"""Scores of other projects' drift tests, larger for more drift; runs in an environment of its own.

``drift_tests.py PEER SEED < JSON``: a list of [world, strength, rows, count]; prints JSON: for
each a mapping of a test's name to [scores, share that the test's own default calls drift].
"""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.filterwarnings("ignore")

from drift_worlds import generator, pair  # noqa: E402

Found = dict[str, tuple[float, bool]]
Score = Callable[[Any, Any], Found]


def alibi() -> Score:
    """alibi-detect's univariate tests, which take rows."""
    from alibi_detect.cd import CVMDrift, KSDrift

    def score(baseline: Any, window: Any) -> Found:
        found = {}
        for name, make in (("alibi-detect KS", KSDrift), ("alibi-detect CvM", CVMDrift)):
            detector = make(baseline[:, None], p_val=0.05)
            data = detector.predict(window[:, None])["data"]
            found[name] = float(data["distance"][0]), bool(data["is_drift"])
        return found

    return score


def evidently() -> Score:
    """What Evidently takes for a column of numbers by itself, with its own threshold."""
    import pandas as pd
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    kind = ColumnType.Numerical

    def score(baseline: Any, window: Any) -> Found:
        was, now = pd.Series(baseline), pd.Series(window)
        test = get_stattest(was, now, kind, None)
        result = test(was, now, kind, None)
        # p-values are small for drift, distances large.
        value = -result.drift_score if "p_value" in test.display_name else result.drift_score
        return {f"Evidently ({test.name})": (float(value), bool(result.drifted))}

    return score


PEERS = {"alibi-detect": alibi, "evidently": evidently}


def main(peer: str, seed: int) -> None:
    score = PEERS[peer]()
    found = []
    for world, strength, rows, count in json.load(sys.stdin):
        random = generator(seed, world, strength, rows)
        results = [score(*pair(random, world, strength, rows)) for _ in range(count)]
        found.append(
            {
                name: [
                    [result[name][0] for result in results],
                    sum(result[name][1] for result in results) / count,
                ]
                for name in results[0]
            }
        )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
