"""What the machine says of its own distress: memory pressure and temperature. No opinions."""

from __future__ import annotations

from pathlib import Path

PRESSURE = Path("/proc/pressure/memory")
ZONES = Path("/sys/class/thermal")


def memory_pressure(path: Path = PRESSURE) -> float | None:
    """Share of the last ten seconds, 0..1, in which something waited for memory.

    PSI's ``some avg10`` (kernel documentation, ``accounting/psi``). None where the kernel keeps
    none.

    Args:
        path: of the machine, or ``memory.pressure`` of a control group.
    """
    try:
        for line in path.read_text().splitlines():
            kind, *fields = line.split()
            if kind == "some":
                values = dict(field.split("=") for field in fields)
                return float(values["avg10"]) / 100
    except (OSError, ValueError, KeyError):
        return None
    return None


def temperature(zones: Path = ZONES) -> float | None:
    """The hottest thermal zone in °C; None where there is none.

    Zones without a reading, as a part that is switched off has, and impossible ones are left out.
    """
    readings = (_zone(path) for path in zones.glob("thermal_zone*/temp"))
    return max((celsius for celsius in readings if celsius is not None), default=None)


def _zone(path: Path) -> float | None:
    try:
        celsius = int(path.read_text()) / 1000
    except (OSError, ValueError):
        return None
    return celsius if -50 < celsius < 200 else None
