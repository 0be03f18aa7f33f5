"""What ``edgeml.export``, ``edgeml.exporting``, ``edgeml.Session`` and ``edgeml.drift`` are.

* :mod:`edgeml.api.hopping`: an export's events, from wherever its converters are. The command line
  goes the same way;
* :mod:`edgeml.api.result`: what an export came to;
* :mod:`edgeml.api.exporting`: the two functions;
* :mod:`edgeml.api.models`, :mod:`edgeml.api.arrays`: live models and samples, written to files;
* :mod:`edgeml.api.session`: running a bundle here;
* :mod:`edgeml.api.drifting`: ``edgeml.drift``.

Nothing here imports a framework, but for the one that a live model is made of.
"""
