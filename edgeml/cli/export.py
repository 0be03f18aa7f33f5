"""``edgeml export``: asks for an export, shows how it goes, and ends with one table.

The work is done by :mod:`edgeml.exporter` in a process of its own, in the toolchain ``export``
where this environment lacks the converters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

import typer

from edgeml.cli import export_options as options
from edgeml.cli.ending import unwinding
from edgeml.cli.export_view import Result, StageView
from edgeml.cli.shared import Json, verb_app, write_json
from edgeml.cli.toolchain import showing
from edgeml.errors import EdgemlError, UsageError

if TYPE_CHECKING:
    from edgeml.exporter.request import ExportRequest

app = verb_app()


@app.command(cls=options.ExportCommand)
def export(
    model: options.Model,
    *,
    target: options.Target,
    calibration: options.Calibration = None,
    evaluate: options.Evaluate = None,
    preprocess: options.Preprocess = "",
    seed: options.Seed = 0,
    precision: options.Precision = "auto",
    max_accuracy_drop: options.MaxAccuracyDrop = None,
    max_latency: options.MaxLatency = None,
    max_memory: options.MaxMemory = None,
    max_size: options.MaxSize = None,
    metric: options.Metric = "",
    confidence: options.Confidence = "0.95",
    tolerance: options.Tolerance = None,
    shape: options.Shape = None,
    statistics: options.Statistics = None,
    python: options.Python = "",
    trust: options.Trust = False,
    minimize: options.Minimize = "",
    name: options.Name = "",
    version: options.Version = "0.1.0",
    output: options.Output = ".",
    deadline_ms: options.DeadlineMs = None,
    memory_mb: options.MemoryMb = None,
    report: options.Report = "",
    as_json: Json = False,
    events: options.Events = False,
    no_cache: options.NoCache = False,
) -> None:
    """Make a bundle from a trained model.

    Every artifact is checked against the source model before it is packed; one that fails its
    check is an error. With a --max-… option, the precisions are searched for the fastest artifact
    within all limits. The exit status is 0 when every target was made, 1 when one was not.
    """
    from edgeml.exporter import units
    from edgeml.exporter.request import Choice, ExportRequest, Limits, parse_tolerance
    from edgeml.targets.devices import resolve

    meant = resolve(target)
    if precision not in get_args(Choice):
        raise UsageError(
            f"There is no precision {precision!r}", expected=f"one of {', '.join(get_args(Choice))}"
        )
    if events and as_json:
        raise UsageError("--events and --json exclude each other", expected="one of them")
    limits = Limits(
        accuracy_drop=None if max_accuracy_drop is None else units.parse_drop(max_accuracy_drop),
        latency_ms=None if max_latency is None else units.parse_latency(max_latency),
        memory_mb=None
        if max_memory is None
        else units.parse_bytes(max_memory, "an amount of memory") / 1e6,
        size_bytes=None if max_size is None else units.parse_bytes(max_size, "a size"),
    )
    request = ExportRequest(
        model=model,
        targets=meant.targets,
        devices=meant.devices,
        calibration=calibration,
        evaluation=evaluate,
        precision=cast("Choice", precision),
        name=name,
        version=version,
        output=output,
        tolerances=dict(parse_tolerance(text) for text in tolerance or ()),
        deadline_ms=meant.budgets.deadline_ms if deadline_ms is None else deadline_ms,
        memory_mb=meant.budgets.memory_mb if memory_mb is None else memory_mb,
        seed=seed,
        limits=limits,
        metric=metric,
        confidence=units.parse_confidence(confidence),
        preprocessing=preprocess,
        shapes=dict(units.parse_shape(text) for text in shape or ()),
        statistics=dict(units.parse_family(text) for text in statistics or ()),
        python=python,
        trust=trust,
        report=report,
        minimize=minimize,
        cache=not no_cache,
    )
    raise typer.Exit(run_export(request, as_json=as_json, events=events).status)


def run_export(request: ExportRequest, *, as_json: bool = False, events: bool = False) -> Result:
    """Run an export and show it: stages on standard error, the table on standard output.

    Args:
        request: what to export.
        as_json: print the document in place of the table, also where there is no bundle.
        events: print the events instead, as they come.

    Raises:
        EdgemlError: there is no bundle.
    """
    import sys

    from edgeml.api.hopping import stream_export
    from edgeml.exporter.events import encode_event

    result = Result()
    try:
        with unwinding(), showing() as (say, progress), StageView() as view:
            for event in stream_export(request, say=say, progress=progress):
                result.take(event)
                view.show(event)
                if events:
                    sys.stdout.buffer.write(encode_event(event))
                    sys.stdout.buffer.flush()
        if result.error is not None:
            raise result.error
    except EdgemlError as error:
        result.error = error
        raise
    finally:
        if as_json:
            write_json(result.document())
        elif not events:
            result.write_table()
    return result
