"""What devices tell, kept once."""

from __future__ import annotations

import hashlib

import msgspec
from sqlalchemy.engine import Connection

from edgeml.collector.store.database import insert
from edgeml.collector.store.tables import events
from edgeml.telemetry import Event


def store_event(connection: Connection, device_id: int, event: Event, *, received_ms: int) -> None:
    """Keep an event that is not there yet."""
    details = msgspec.json.encode(event.details, order="sorted").decode()
    content = f"{event.model}\n{event.message}\n{details}"
    statement = insert(connection, events).values(
        device_id=device_id,
        boot=event.boot,
        kind=event.kind,
        time_ms=event.time_ms,
        digest=hashlib.sha256(content.encode()).hexdigest()[:16],
        model=event.model,
        message=event.message,
        details=details,
        received_ms=received_ms,
    )
    connection.execute(statement.on_conflict_do_nothing())
