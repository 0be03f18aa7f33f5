"""A file of samples that the agent's end left half way: how far it came, and its answers so far.

Its samples were counted as they were served, so the next run goes on behind them.
"""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import msgspec
import numpy as np

from edgeml.device_agent.inputs.whole import write_whole
from edgeml.device_agent.worker.layout import Array
from edgeml.npz import encode_npz

_ABOUT = "about"
_ANSWER = "answer-"


class Begun(msgspec.Struct):
    """A file at work.

    Attributes:
        mark: tells it from others.
        taken: samples that were served, or failed.
        problem: of the latest that failed; empty where none did.
        answers: [1, …] by name, of those that were served; none where nobody wants them.
    """

    mark: str
    taken: int = 0
    problem: str = ""
    answers: list[dict[str, Array]] = []

    def write(self, path: Path) -> None:
        """Remember it."""
        arrays = joined(self.answers) if self.answers else {}
        named = {f"{_ANSWER}{name}": array for name, array in arrays.items()}
        about = np.array([self.mark, str(self.taken), self.problem])
        write_whole(path, encode_npz({_ABOUT: about, **named}))


def read_begun(path: Path) -> Begun | None:
    """What an earlier run left; None where it left nothing, or nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
        with np.load(path, allow_pickle=False) as found:
            mark, taken, problem = (str(field) for field in found[_ABOUT])
            answers = {
                name.removeprefix(_ANSWER): found[name]
                for name in found.files
                if name.startswith(_ANSWER)
            }
        return Begun(mark, int(taken), problem, [answers] if answers else [])
    return None


def joined(answers: list[dict[str, Array]]) -> dict[str, Array]:
    """[n, …] by name."""
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
