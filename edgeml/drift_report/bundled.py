"""The baseline from a bundle: the statistics that the exporter fitted, with a table or samples."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeml.bundle import Bundle
from edgeml.columns import blocks
from edgeml.data import parse_source, read_samples
from edgeml.drift_report.counting import Clock, Tally, count
from edgeml.drift_report.judging import Pair
from edgeml.drift_report.result import Finding
from edgeml.drift_report.schema import missing_columns
from edgeml.drift_report.statistic import Statistic, labels
from edgeml.drift_report.tables import Table
from edgeml.errors import SourceError
from edgeml.statistics import Baseline, Stream, TensorStatistics


def baseline_of(bundle: Bundle) -> Baseline:
    """The bundle's.

    Raises:
        SourceError: it has none.
    """
    baseline = bundle.baseline()
    if baseline is None:
        raise SourceError(
            f"{bundle.path} holds no statistics baseline",
            expected="a bundle that was exported with calibration data",
            remedy="Export it again with --calibration, or give the data itself as BASELINE.",
        )
    return baseline


def pairs_with_table(
    baseline: Baseline, table: Table, *, clock: Clock | None
) -> tuple[int, list[Pair], list[Finding]]:
    """Count a table on the grids of the features that are called as its columns.

    Raises:
        SourceError: no input has named features.
    """
    streams = {
        column: stream
        for tensor in baseline.tensors
        if tensor.side == "input" and tensor.family == "features"
        for column, stream in zip(tensor.context.columns, tensor.streams, strict=True)
    }
    if not streams:
        raise SourceError(
            "the bundle has no input of features",
            expected="for other inputs: an .npz, an .npy, or a folder of images or recordings",
        )
    findings = missing_columns(list(streams), table, ignored=[clock.column] if clock else [])
    statistics = [
        Statistic(name=column, column=column, kind="numeric", grid=stream.grid)
        for column, stream in streams.items()
        if column in table.columns
    ]
    wanted = [statistic.column for statistic in statistics]
    batches = table.batches([*wanted, *([clock.column] if clock else [])])
    counted = count(batches, statistics, clock=clock)
    pairs = [
        _pair(one.column, one.column, streams[one.column], tally)
        for one, tally in zip(statistics, counted.tallies, strict=True)
    ]
    return counted.rows, pairs, findings


def pairs_with_samples(bundle: Bundle, baseline: Baseline, path: Path) -> tuple[int, list[Pair]]:
    """Count samples of the model's inputs as the agent would.

    Raises:
        SourceError: they do not fit the inputs.
    """
    manifest = bundle.manifest
    with tempfile.TemporaryDirectory(prefix="edgeml-drift-") as folder:
        source = parse_source(str(path))
        samples = read_samples(source, manifest.inputs, Path(folder), inside=manifest.inside)
        pairs: list[Pair] = []
        for tensor in baseline.tensors:
            if tensor.side == "input":
                tallies = _tallies(tensor, samples.inputs[tensor.tensor])
                pairs += [
                    _pair(stream.name.removeprefix("input."), tensor.tensor, stream, tally)
                    for stream, tally in zip(tensor.streams, tallies, strict=False)
                    if not stream.temporal  # calibration samples have no order to compare with
                ]
        return len(samples), pairs


def _tallies(tensor: TensorStatistics, array: object) -> list[Tally]:
    """Of the tensor's numbers; its vectors, whose counts tell nothing but how many there were, come
    behind them in the streams and are left out."""
    streams = [stream for stream in tensor.streams if stream.grid.kind != "vector"]
    tallies = [Tally(stream.grid.cells) for stream in streams]
    state = tensor.state()
    for _, block in blocks(array):  # type: ignore[arg-type]
        matrix = tensor.compute(block, state)
        for stream, tally, column in zip(streams, tallies, matrix.T, strict=True):
            tally.add(stream.grid.locate(column))
    return tallies


def _pair(name: str, column: str, stream: Stream, tally: Tally) -> Pair:
    counts = stream.baseline()
    knows_all = stream.grid.kind == "categorical" and not counts.cells[stream.grid.other]
    return Pair(
        name=name,
        column=column,
        kind="categorical" if stream.grid.kind == "categorical" else "numeric",
        grid=stream.grid,
        labels=labels(stream.grid),
        baseline=counts.cells,
        baseline_stretches=None,
        data=tally,
        new=tally.new.most() if knows_all else {},
    )
