"""The routes of the fleet as a whole: incidents, groups, budget, retraction, re-baseline.

Whoever changes something says who they are in the header ``X-Edgeml-User`` (``http.user_header``):
a note for the next person, not a proof, unless a proxy with a login sets it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from edgeml.collector.store.change import Change
from edgeml.collector.store.feedback import Batch, add_feedback
from edgeml.collector.store.fleet_queries import FleetReader
from edgeml.collector.store.rebaseline import rebaseline
from edgeml.collector.store.retraction import retract, undo
from edgeml.collector.store.selection import Selection, StreamSelection
from edgeml.decoding import from_json
from edgeml.errors import CollectorError

T = TypeVar("T")


class Backend(Protocol):
    """What these routes need of the running collector."""

    @property
    def fleet(self) -> FleetReader: ...

    @property
    def user_header(self) -> str: ...

    def now_ms(self) -> int:
        """Unix time."""
        ...

    def change(self, work: Change[T]) -> asyncio.Future[T]:
        """Have the writer's thread change the store."""
        ...


class _Retract(Selection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    why: str = ""


def add_fleet_routes(api: APIRouter, backend: Backend) -> None:
    """Add them."""

    def user(request: Request) -> str:
        return request.headers.get(backend.user_header, "")[:100]

    @api.get("/incidents")
    def incidents(*, open_only: bool = False) -> Response:
        """``{now_ms, incidents: [Incident]}``: alarms that belong together, and who is to blame."""
        now_ms = backend.now_ms()
        found = backend.fleet.incidents(now_ms=now_ms, open_only=open_only)
        return _json({"now_ms": now_ms, "incidents": found})

    @api.get("/groups")
    def groups() -> Response:
        """``{groups: [GroupView]}``: what sites and versions have in common, and its evidence."""
        return _json({"groups": backend.fleet.groups()})

    @api.get("/budget")
    def budget() -> Response:
        """``BudgetView``: what of the budget of false alarms is spent."""
        return _json(backend.fleet.budget(now_ms=backend.now_ms()))

    @api.get("/drifting")
    def drifting() -> Response:
        """``{drifting: [DriftingView]}``: what drifts now, of which at most 5 % is wrong."""
        return _json({"drifting": backend.fleet.drifting(now_ms=backend.now_ms())})

    @api.get("/retractions")
    def retractions() -> Response:
        """``{retractions: [RetractionView]}``, the last one first."""
        return _json({"retractions": backend.fleet.retractions()})

    @api.post("/retractions", status_code=201)
    async def add_retraction(request: Request) -> Response:
        """Take windows back, exactly; the body is a ``Selection`` with ``why``."""
        wanted, by, now_ms = await _body(request, _Retract), user(request), backend.now_ms()
        view = await backend.change(
            lambda connection, evaluator: retract(
                connection, evaluator, wanted, by=by, why=wanted.why, now_ms=now_ms
            )
        )
        return _json(view, 201)

    @api.delete("/retractions/{number}")
    async def remove_retraction(number: int, request: Request) -> Response:
        """Put back what a retraction took out."""
        by, now_ms = user(request), backend.now_ms()
        view = await backend.change(
            lambda connection, evaluator: undo(connection, evaluator, number, by=by, now_ms=now_ms)
        )
        return _json(view)

    @api.post("/rebaseline", status_code=201)
    async def add_rebaseline(request: Request) -> Response:
        """Have streams start anew; the body is a ``StreamSelection``."""
        wanted, by, now_ms = await _body(request, StreamSelection), user(request), backend.now_ms()
        view = await backend.change(
            lambda connection, _: rebaseline(connection, wanted, by=by, now_ms=now_ms)
        )
        return _json(view, 201)

    @api.get("/accuracy")
    def accuracy(by: str = "model") -> Response:
        """``{accuracy: [AccuracyView], estimates: [EstimateView]}``: what labels say, by device,
        hour, day, group or model, and what confidences say of each device without them."""
        found = backend.fleet.accuracy(by=by)
        return _json({"accuracy": found, "estimates": backend.fleet.estimates()})

    @api.post("/feedback", status_code=201)
    async def feedback(request: Request) -> Response:
        """Count labels that came back, once; the body is a ``Batch``. 200 where it was known."""
        batch, now_ms = await _body(request, Batch), backend.now_ms()
        view = await backend.change(
            lambda connection, _: add_feedback(connection, batch, now_ms=now_ms)
        )
        return _json(view, 201 if view.new else 200)


def _json(document: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


async def _body(request: Request, kind: type[T]) -> T:
    try:
        return from_json(await request.body(), kind)
    except msgspec.DecodeError as error:
        fields: Any = getattr(kind, "__struct_fields__", ())
        raise CollectorError(
            f"the request is not understood: {error}",
            expected=f"a JSON object with some of {', '.join(fields)}",
        ) from error
