"""What each target can do, how to compile for it, and how to run it.

A target is a row of :mod:`edgeml.targets.registry` and a folder beside it: ``compile.py`` is heavy
and belongs to the workstation's toolchain, ``runtime.py`` is light and belongs to the device. The
registry, :mod:`edgeml.targets.runtime` and :mod:`edgeml.targets.compiling` import no framework.
"""
