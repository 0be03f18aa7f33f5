"""Scores of other projects' drift tests, larger for more drift; runs in an environment of its own.

``drift_tests.py PEER SEED COUNT < JSON``: a list of [world, strength, rows]; prints JSON: for each, a
mapping of a test's name to [scores, share that the test's own default calls drift].
"""

import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.filterwarnings("ignore")

from drift_worlds import generator, pair  # noqa: E402


def alibi():
    """alibi-detect's univariate tests, which take rows."""
    from alibi_detect.cd import CVMDrift, KSDrift

    def score(baseline, window):
        found = {}
        for name, make in (("alibi-detect KS", KSDrift), ("alibi-detect CvM", CVMDrift)):
            detector = make(baseline[:, None], p_val=0.05)
            data = detector.predict(window[:, None])["data"]
            found[name] = float(data["distance"][0]), bool(data["is_drift"])
        return found

    return score


def evidently():
    """What Evidently takes for a column of numbers by itself, with its own threshold."""
    import pandas as pd
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    kind = ColumnType.Numerical

    def score(baseline, window):
        was, now = pd.Series(baseline), pd.Series(window)
        test = get_stattest(was, now, kind, None)
        result = test(was, now, kind, None)
        # p-values are small for drift, distances large.
        value = -result.drift_score if "p_value" in test.display_name else result.drift_score
        return {f"Evidently ({test.name})": (float(value), bool(result.drifted))}

    return score


PEERS = {"alibi-detect": alibi, "evidently": evidently}


def main(peer, seed, count):
    score = PEERS[peer]()
    found = []
    for world, strength, rows in json.load(sys.stdin):
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
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
