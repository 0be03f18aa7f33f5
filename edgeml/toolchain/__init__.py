"""Toolchains: environments for converters, apart from the one that edgeml itself lives in.

* :mod:`edgeml.toolchain.spec`: which toolchains there are, as data;
* :mod:`edgeml.toolchain.store`: where they lie, what state each is in, and who may touch it;
* :mod:`edgeml.toolchain.install`: making and removing them, with pip and nothing else;
* :mod:`edgeml.toolchain.hop`: running a part of edgeml inside one and reading its events.
"""
