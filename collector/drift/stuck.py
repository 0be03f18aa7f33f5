"""A device that says the same for ever is *stuck*: a state of its own, not drift.

Pure. A frozen camera, or a sensor that holds its last value, can lie right in the middle of the
training data, where no distance from it shows anything. Two signs, each a reason in a sentence:

* **The same window again.** Counts that are identical to those of the windows before. That alone
  means little: rows of a statistic that is nearly always 0, or of a model that now says one class
  for everything, repeat by themselves. How probable a repetition is, follows from the window's own
  counts (:func:`repeat_probability`), and it takes less than :data:`IMPROBABLE` to be called stuck.
* **One value fills the window.** The longest run of one value is as long as the window, and the
  value lies in a cell where the reference had some, and not much, of its own: where it had none the
  value is drift, and a distance shows it; where it had much (a share of clipped pixels that is 0)
  values rest there by themselves.

A stream is free again with the first window that differs.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]

IMPROBABLE = 1e-12
"""Probability, by chance, of the repetitions that are called stuck: for 20,000 streams of windows
of a minute that is one mistake in a hundred years."""

LEAST_REPEATS = 2
"""Repetitions at least, however improbable a single one is: a window sent twice under two numbers
is a fault, but of another kind."""

BODY = (0.005, 0.25)
"""Share of the reference in the cell of a run, at least and at most: the body of it."""


class Repeats(msgspec.Struct, kw_only=True):
    """What is remembered of a stream between windows."""

    digest: str = ""
    """Of the last window's counts."""
    times: int = 0
    """How often it has come again."""
    since_ms: int = 0
    """Start of the first of them."""
    why: str = ""
    """The reason, in a sentence, while the stream is stuck."""


def repeat_probability(cells: Cells) -> float:
    """The probability that as many independent rows, spread as those of ``cells`` are, repeat the
    counts of the rows before.

    Two multinomial vectors over shares p of k cells are equal with probability about
    ((4πn)^(k−1) · Πp)^(−1/2) (the collision of two normal approximations); at most 1. Rows that
    depend on each other repeat more easily, which is why :data:`IMPROBABLE` is as small as it is.
    """
    used = cells[cells > 0]
    if used.size < 2:
        return 1.0
    rows = int(used.sum())
    log = (used.size - 1) * np.log(4 * np.pi * rows) + np.log(used / rows).sum()
    return float(min(np.exp(-log / 2), 1.0))


def watch(
    before: Repeats,
    cells: Cells,
    *,
    reference: Cells,
    start_ms: int,
    longest_run: int = 0,
    merged: int = 1,
) -> Repeats:
    """Take in a window of a stream.

    Args:
        before: what was remembered.
        cells: int64 [cells], the window's.
        reference: int64 [cells], of the stream's own reference, or the baseline before there is
            one.
        start_ms: when the window began.
        longest_run: rows of one value in a row, 0 where it is not counted.
        merged: windows that were added up to this one; a run lies within one of them.
    """
    rows = int(cells.sum())
    digest = hashlib.sha256(cells.tobytes()).hexdigest()[:16]
    if digest == before.digest and rows:
        found = Repeats(digest=digest, times=before.times + 1, since_ms=before.since_ms)
    else:
        found = Repeats(digest=digest, since_ms=start_ms)
    repeated = found.times >= LEAST_REPEATS
    if repeated and repeat_probability(cells) ** found.times < IMPROBABLE:
        found.why = f"the same counts of {rows:,} rows in {found.times + 1} windows in a row"
    elif rows >= 2 * merged and longest_run >= rows // merged:
        share = float(reference[int(cells.argmax())]) / max(int(reference.sum()), 1)
        if BODY[0] <= share <= BODY[1]:
            found.why = f"one value filled a window of {rows // merged:,} rows"
    return found
