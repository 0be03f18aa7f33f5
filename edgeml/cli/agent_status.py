"""``edgeml agent status``: what an agent's status says, for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeml.cli.shared import console, human_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgeml.device_agent.local.status import AgentStatus
    from edgeml.device_agent.serving.pairs import Disagreement
    from edgeml.device_agent.serving.snapshot import GuestSnapshot, ModelSnapshot
    from edgeml.telemetry import Building

_BAR = " ▁▂▃▄▅▆▇█"


def show(status: AgentStatus) -> None:
    """Print it once."""
    console().print(_view(status))


def show_live(fetch: Callable[[], AgentStatus], *, every_s: float) -> None:
    """Show it again and again, until Ctrl-C or until the agent is gone.

    Raises:
        CallError: the agent does not answer.
    """
    import time

    from rich.live import Live

    with Live(_view(fetch()), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            live.update(_view(fetch()), refresh=True)


def _view(status: AgentStatus) -> RenderableType:
    from rich.text import Text

    windows = status.windows
    models = (line for model in status.models for line in _model(model, windows.get(model.name, 0)))
    return Text("\n".join([_headline(status), _outbox(status), _disk(status), *models]))


def _headline(status: AgentStatus) -> str:
    parts = [
        f"{status.site}/{status.device}",
        f"edgeml {status.agent}",
        f"up {_duration(status.uptime_s)}",
        f"agent {status.resident_mb:.0f} MB",
    ]
    if status.temperature_c is not None:
        parts.append(f"{status.temperature_c:.0f} °C")
    if status.memory_pressure is not None:
        parts.append(f"memory pressure {status.memory_pressure:.0%}")
    if status.awake.problem:
        parts.append(f"cores may sleep ({status.awake.problem})")
    elif status.awake.keep_ms:
        parts.append("cores awake" if status.awake.held else "cores may sleep")
    broker = status.broker
    if broker is None:
        parts.append("no broker")
    else:
        parts.append(f"broker {broker.address} {'connected' if broker.connected else 'absent'}")
    return " · ".join(parts)


def _outbox(status: AgentStatus) -> str:
    box = status.outbox
    parts = [
        f"outbox {human_bytes(box.bytes)} of {human_bytes(box.limit_bytes)}",
        f"{box.waiting + box.numbered} windows and {box.events} events wait",
    ]
    if box.merged or box.dropped:
        parts.append(f"{box.merged} merged, {box.dropped} given up")
    return " · ".join(parts)


def _disk(status: AgentStatus) -> str:
    disk = status.disk
    used = [f"{kind} {human_bytes(count)}" for kind, count in disk.used_bytes.items() if count]
    return " · ".join([f"disk {human_bytes(disk.free_bytes)} free", *used])


def _model(model: ModelSnapshot, windows: int) -> list[str]:
    served, late, shed, failed = (
        model.outcomes.get(outcome, 0) for outcome in ("served", "late", "shed", "failed")
    )
    name = [f"{model.name} {model.version}", _artifact(model), model.phase]
    requests = [f"{served} served", f"{late} late", f"{shed} shed", f"{failed} failed"]
    requests.append(f"{model.waiting} waiting, {'one' if model.running else 'none'} running")
    if model.overruns:
        requests.append(f"{model.overruns} gaps in the sound")
    worker = [_memory(model), f"{model.restarts} restarts"]
    if model.last_start_ms is not None:
        worker.append(f"latest start {model.last_start_ms:.0f} ms")
    worker.append(f"{windows} windows")
    if model.looked_at < served:
        worker.append(f"{model.looked_at} looked at for statistics")
    lines = ["", " · ".join(name), f"  {' · '.join(requests)}", f"  {_latency(model)}"]
    lines.append(f"  {' · '.join(worker)}")
    if model.building is not None:
        lines.append(f"  {_building(model.building)}")
    if model.guest is not None:
        lines.append(f"  {_guest(model.guest)}")
    return lines


def _building(building: Building) -> str:
    what = f"{building.stage} {building.artifact} of {building.version}"
    expected_s = building.expected_s
    before = "" if expected_s is None else f", the last time it took {expected_s:.0f} s"
    return f"{what}: {building.elapsed_s:.0f} s{before}"


def _guest(guest: GuestSnapshot) -> str:
    role = f"for {guest.share:.0%} of the requests" if guest.share else "as a shadow"
    text = f"beside it {guest.version}, {guest.artifact}, {role}"
    if guest.disagreement is not None:
        text += f" · {_disagreement(guest.disagreement)}"
    return text


def _disagreement(found: Disagreement) -> str:
    share = f"{found.low:.1%} … {found.high:.1%}"
    return f"they disagree on {found.differing} of {found.pairs} inputs ({share})"


def _artifact(model: ModelSnapshot) -> str:
    name = model.artifact or "no artifact"
    if len(model.variants) > 1:
        name += f" (step {model.step + 1} of {len(model.variants)})"
    return name + (" + standby" if model.standby else "")


def _latency(model: ModelSnapshot) -> str:
    bounds, profile = model.latency.bounds_ms, model.profile
    text = f"≤ {bounds[0]:g} ms {_bars(model.latency.counts)} > {bounds[-1]:g} ms"
    if profile is not None:
        text += f" · inference p50 {profile.p50_ms:.3g} ms, p99 {profile.p99_ms:.3g} ms"
    return text


def _memory(model: ModelSnapshot) -> str:
    if model.resident_mb is None:
        return "no worker"
    allowed = f" of {model.limit_mb:.0f}" if model.limit_mb is not None else ""
    return f"{model.resident_mb:.0f}{allowed} MB, limit by {model.memory_limit}"


def _bars(counts: list[int]) -> str:
    most = max(counts, default=0)
    if not most:
        return _BAR[0] * len(counts)
    return "".join(_BAR[-(-count * (len(_BAR) - 1) // most)] for count in counts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
