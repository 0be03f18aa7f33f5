"""The agent's state in the Prometheus text format. Pure.

Names and units are Prometheus': seconds, bytes, ``_total`` for what only grows. The library is
imported with the first scrape: it takes two megabytes, which an agent that nobody scrapes keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from edgeml.device_agent.local.status import AgentStatus
from edgeml.device_agent.serving.snapshot import ModelSnapshot

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[tuple[str, ...], float | None]
"""Values of the labels, and the value; a sample of None is left out."""


def render(status: AgentStatus) -> bytes:
    """All metrics of the agent and its models, as text."""
    from prometheus_client.exposition import generate_latest

    class Once:
        """What the library takes for a registry: it asks for no more than this."""

        def collect(self) -> Iterable[Metric]:
            return [
                *_of_agent(status),
                *_of_models(status.models),
                *_of_guests(status.models),
            ]

    return generate_latest(Once())  # type: ignore[arg-type]


def _of_agent(status: AgentStatus) -> Iterator[Metric]:
    about = (status.agent, status.site, status.device)
    outbox, broker = status.outbox, status.broker
    awake = float(status.awake.held) if status.awake.keep_ms else None
    connected = float(broker.connected) if broker is not None else None
    yield _gauge("agent_info", "Always 1", [(about, 1)], "version", "site", "device")
    for name, what, value in (
        ("start_time_seconds", "Unix time of the start", status.started_ms / 1e3),
        ("agent_resident_bytes", "Of the agent without its workers", status.resident_mb * 1e6),
        ("temperature_celsius", "Of the hottest thermal zone", status.temperature_c),
        ("memory_pressure_ratio", "Share of ten seconds spent waiting", status.memory_pressure),
        ("cores_awake", "1 while cores are kept from sleeping", awake),
        ("broker_connected", "1 while the connection stands", connected),
        ("outbox_bytes", "Payloads of the windows in the outbox", outbox.bytes),
        ("outbox_limit_bytes", "What they may have", outbox.limit_bytes),
        ("outbox_events", "Events that wait for the broker", outbox.events),
    ):
        yield _gauge(name, what, [((), value)])
    used: list[_Sample] = [((kind,), count) for kind, count in status.disk.used_bytes.items()]
    yield _gauge("disk_used_bytes", "Of a folder of the state folder", used, "folder")
    yield _gauge("disk_free_bytes", "Left for the state folder", [((), status.disk.free_bytes)])
    windows: list[_Sample] = [(("waiting",), outbox.waiting), (("numbered",), outbox.numbered)]
    yield _gauge("outbox_windows", "Windows that wait for the collector", windows, "state")
    yield _counter("outbox_merged", "Windows merged into others", [((), outbox.merged)])
    yield _counter("outbox_dropped", "Windows given up", [((), outbox.dropped)])
    closed: list[_Sample] = [((model,), count) for model, count in status.windows.items()]
    yield _counter("windows_closed", "Statistics windows closed", closed, "model")


def _of_models(models: tuple[ModelSnapshot, ...]) -> Iterator[Metric]:
    about: list[_Sample] = [
        ((m.name, m.version, m.artifact, m.phase, m.memory_limit), 1) for m in models
    ]
    yield _gauge(
        "model_info", "Always 1", about, "model", "version", "artifact", "phase", "memory_limit"
    )
    outcomes: list[_Sample] = [
        ((m.name, outcome), count) for m in models for outcome, count in m.outcomes.items()
    ]
    yield _counter("requests", "Requests by what became of them", outcomes, "model", "outcome")
    looked_at: list[_Sample] = [((m.name,), m.looked_at) for m in models]
    yield _counter("statistics_rows", "Served, and looked at for statistics", looked_at, "model")
    overruns: list[_Sample] = [((m.name,), m.overruns) for m in models]
    yield _counter("input_overruns", "Gaps in the sound, which nobody read", overruns, "model")
    yield _latency(models)
    for name, what, values in (
        ("queue_requests", "Requests that wait", [m.waiting for m in models]),
        ("running_requests", "1 while one is at work", [m.running for m in models]),
        (
            "worker_start_seconds",
            "The latest start of a worker, until it could serve",
            [_times(m.last_start_ms, 1e-3) for m in models],
        ),
        ("worker_resident_bytes", "Of the worker", [_times(m.resident_mb, 1e6) for m in models]),
        ("worker_limit_bytes", "What it may have", [_times(m.limit_mb, 1e6) for m in models]),
        ("ladder_step", "0 while the preferred artifact serves", [m.step for m in models]),
        ("standby_workers", "Warm workers that wait", [m.standby for m in models]),
    ):
        samples: list[_Sample] = [
            ((model.name,), value) for model, value in zip(models, values, strict=True)
        ]
        yield _gauge(name, what, samples, "model")
    restarts: list[_Sample] = [((m.name,), m.restarts) for m in models]
    yield _counter("worker_restarts", "Workers lost and replaced", restarts, "model")


def _of_guests(models: tuple[ModelSnapshot, ...]) -> Iterator[Metric]:
    guests = [(m.name, m.guest) for m in models if m.guest is not None]
    share: list[_Sample] = [((name, guest.version), guest.share) for name, guest in guests]
    yield _gauge("guest_share", "Requests for a version beside it", share, "model", "version")
    pairs: list[_Sample] = []
    differing: list[_Sample] = []
    for name, guest in guests:
        if guest.disagreement is not None:
            pairs.append(((name, guest.version), guest.disagreement.pairs))
            differing.append(((name, guest.version), guest.disagreement.differing))
    yield _counter("shadow_pairs", "Inputs that both answered", pairs, "model", "version")
    yield _counter("shadow_differing", "On which they disagree", differing, "model", "version")


def _latency(models: tuple[ModelSnapshot, ...]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(
        "edgeml_request_duration_seconds",
        "Of served requests, from arrival to answer",
        labels=["model"],
    )
    for model in models:
        latency = model.latency
        bounds = [f"{ms / 1e3:g}" for ms in latency.bounds_ms] + ["+Inf"]
        buckets = list(zip(bounds, accumulate(latency.counts), strict=True))
        family.add_metric([model.name], buckets, sum_value=latency.sum_ms / 1e3)
    return family


def _gauge(name: str, what: str, samples: Iterable[_Sample], *labels: str) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"edgeml_{name}", what, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def _counter(name: str, what: str, samples: Iterable[_Sample], *labels: str) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"edgeml_{name}", what, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value or 0))
    return family


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
