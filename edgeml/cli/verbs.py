"""The verbs of the command line, as data: where each lives, and its line in ``edgeml --help``."""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """One row of ``edgeml --help``."""

    name: str
    module: str
    """Dotted name of a module with ``app``, a :class:`typer.Typer`."""
    summary: str


VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("export", "edgeml.cli.export", "Make a bundle from a trained model."),
        Verb("inspect", "edgeml.cli.inspect", "Check a bundle's hashes and show what it holds."),
        Verb("run", "edgeml.cli.run", "Run a bundle on your data, here."),
        Verb("bench", "edgeml.cli.bench", "Measure a bundle's latency and memory, here."),
        Verb("reproduce", "edgeml.cli.reproduce", "Make a bundle again and compare every byte."),
        Verb("targets", "edgeml.cli.targets", "What can be made and run on this machine."),
        Verb("devices", "edgeml.cli.devices", "Device profiles, which may stand for targets."),
        Verb("cache", "edgeml.cli.cache", "Show and prune what exports left to be taken again."),
        Verb("toolchain", "edgeml.cli.toolchain", "List, install and remove converters."),
        Verb("agent", "edgeml.cli.agent", "Serve a bundle on this device and report on it."),
        Verb("collector", "edgeml.cli.collector", "Gather the fleet's windows and test for drift."),
        Verb(
            "drift", "edgeml.cli.drift", "Compare two tables, or a table with a bundle, off line."
        ),
        Verb("fleet", "edgeml.cli.fleet", "Ask a collector about its fleet."),
        Verb("demo", "edgeml.cli.demo", "From a trained model to a drift alarm, once through."),
    )
}
