"""Accuracy without labels: what the confidences that devices counted stand for, by the evaluation
set of their bundle (:func:`edgeml.statistics.accuracy.estimated_accuracy`)."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from edgeml.collector.store.selection import StreamSelection
from edgeml.collector.store.tables import bundles, count_rollups, devices, streams
from edgeml.collector.views import EstimateView
from edgeml.statistics import Baseline, Grid, unpack
from edgeml.statistics.accuracy import Calibration, confidence_bins, estimated_accuracy

HOURS_MS = 24 * 3_600_000
"""How far back is looked from the last hour of a device."""


EVERYWHERE = StreamSelection(all=True)


def estimates(connection: Connection, chosen: StreamSelection = EVERYWHERE) -> list[EstimateView]:
    """Of each device's model versions whose bundle was exported with labels, over the last day.

    Args:
        connection: to the database.
        chosen: of these devices.
    """
    found: list[EstimateView] = []
    for model, version, name, grid, calibration in _calibrated(connection, chosen):
        for site, device, bins in _confidences(connection, model, version, name, grid, chosen):
            estimate = estimated_accuracy(bins, calibration)
            if estimate.n:
                found.append(
                    EstimateView(
                        model=model,
                        version=version,
                        site=site,
                        device=device,
                        n=estimate.n,
                        accuracy=estimate.value,
                        low=estimate.low,
                        high=estimate.high,
                    )
                )
    return found


def _calibrated(
    connection: Connection, chosen: StreamSelection
) -> list[tuple[str, str, str, Grid, Calibration]]:
    """Model, version, stream of confidences, its grid, and what the evaluation set said of it."""
    query = (
        sa.select(streams.c.model, streams.c.version, streams.c.stream, bundles.c.baseline)
        .join(bundles, bundles.c.sha256 == streams.c.bundle)
        .join(devices, devices.c.id == streams.c.device_id)
        .where(streams.c.stream.endswith(".confidence"), bundles.c.baseline.is_not(None))
        .where(chosen.of_devices())
        .distinct()
    )
    found: list[tuple[str, str, str, Grid, Calibration]] = []
    for row in connection.execute(query):
        for tensor in Baseline.decode(row.baseline).tensors:
            grids = {stream.name: stream.grid for stream in tensor.streams}
            if tensor.calibration is not None and row.stream in grids:
                grid = grids[row.stream]
                found.append((row.model, row.version, row.stream, grid, tensor.calibration))
    return found


def _confidences(
    connection: Connection,
    model: str,
    version: str,
    stream: str,
    grid: Grid,
    chosen: StreamSelection,
) -> list[tuple[str, str, NDArray[np.int64]]]:
    """Counts of confidences by device, over its last day."""
    table = count_rollups
    query = (
        sa.select(devices.c.site, devices.c.device, table.c.hour_ms, table.c.packed)
        .join(devices, devices.c.id == table.c.device_id)
        .where(table.c.model == model, table.c.version == version)
        .where(table.c.stream == stream, table.c.grid == grid.hash)
        .where(chosen.of_devices())
        .order_by(devices.c.site, devices.c.device, table.c.hour_ms)
    )
    by_device: dict[tuple[str, str], list[tuple[int, NDArray[np.int64]]]] = {}
    for row in connection.execute(query):
        cells = unpack(row.packed, grid).cells
        by_device.setdefault((row.site, row.device), []).append((row.hour_ms, cells))
    return [
        (
            site,
            device,
            confidence_bins(
                grid,
                sum((c for at, c in hours if at > hours[-1][0] - HOURS_MS), start=0 * hours[0][1]),
            ),
        )
        for (site, device), hours in by_device.items()
    ]
