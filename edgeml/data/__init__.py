"""Reading the samples that a person gives: for calibration, evaluation, or a run.

DATA is one of

* ``FILE.npz``: an array an input, under the input's name, first axis samples; ``labels`` is
  reserved for the truth beside them;
* ``FILE.npy``: the samples of a model's single input;
* a folder of images or of WAV files, for a single input (:mod:`edgeml.data.folders`);
* ``FILE.py:ITERABLE``: somebody's code, a name in it that can be iterated over (or a function that
  returns such a thing), giving samples or batches. That code runs only in the exporter's child
  process; :func:`gather` makes arrays of what it gives.

Everything is checked here, once, against the model's inputs, so that nothing further on meets a
wrong name, shape or type, nothing at all, an infinity, or a NaN in an input that takes no missing
values. Samples stay on disk (:mod:`edgeml.columns`): as many as fit there may be given.
"""

from edgeml.data.checks import check_samples
from edgeml.data.files import read_samples
from edgeml.data.items import gather
from edgeml.data.samples import LABELS, Array, DataSource, Samples, parse_source

__all__ = [
    "LABELS",
    "Array",
    "DataSource",
    "Samples",
    "check_samples",
    "gather",
    "parse_source",
    "read_samples",
]
