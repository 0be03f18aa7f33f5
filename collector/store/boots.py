"""Which version of the agent ran in which boot of a device: its windows name the boot only."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from edgeml.collector.store.database import insert
from edgeml.collector.store.tables import boots
from edgeml.telemetry import Status


def note_boot(connection: Connection, device_id: int, status: Status) -> None:
    """Note it from a birth; a last will names no agent."""
    if not status.agent:
        return
    statement = insert(connection, boots).values(
        device_id=device_id, boot=status.boot, through=0, agent=status.agent
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["device_id", "boot"], set_={"agent": status.agent}
        )
    )
