"""The routes of ``/api/v1``. Reads from the database, hands bundles to the writer, and nothing
else.

FastAPI describes itself with pydantic models and our views are msgspec structs, so each route says
in its docstring which view it answers with.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Protocol

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError

from edgeml.collector.api import fleet as fleet_routes
from edgeml.collector.api.fleet import add_fleet_routes
from edgeml.collector.ingest.writer import AddedBundle
from edgeml.collector.store.queries import Reader
from edgeml.collector.views import KeptView
from edgeml.errors import EdgemlError


class Backend(fleet_routes.Backend, Protocol):
    """What the API needs of the running collector."""

    @property
    def reader(self) -> Reader: ...

    def health(self) -> dict[str, Any]:
        """See ``GET /api/v1/health``."""
        ...

    def counters(self) -> dict[str, Any]:
        """See ``GET /api/v1/counters``."""
        ...

    def kept(self) -> KeptView:
        """See ``GET /api/v1/keep``."""
        ...

    def add_bundle(self, path: Path) -> asyncio.Future[AddedBundle]:
        """Check and learn a bundle."""
        ...

    @property
    def max_bundle_bytes(self) -> int: ...


def _json(document: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


def add_routes(app: FastAPI, backend: Backend) -> None:
    """Add all routes, and the answer to an error of ours."""
    api = APIRouter(prefix="/api/v1", tags=["collector"])

    @app.exception_handler(EdgemlError)
    async def refused(request: Request, error: EdgemlError) -> JSONResponse:  # noqa: ARG001
        document = {"found": error.found, "expected": error.expected, "remedy": error.remedy}
        return JSONResponse({"error": document}, status_code=422)

    @app.exception_handler(DBAPIError)
    async def unread(request: Request, error: DBAPIError) -> JSONResponse:  # noqa: ARG001
        document = {
            "found": f"the database cannot be read: {error.orig or error}",
            "expected": "a database that answers",
            "remedy": "GET /api/v1/health says more.",
        }
        return JSONResponse({"error": document}, status_code=503)

    @api.get("/health")
    def health() -> Response:
        """Whether broker and database do their part; 503 while one does not.

        ``{ok, broker: {ok, trouble, protocol, address}, store: {ok, trouble}, budget}``
        """
        document = backend.health()
        return _json(document, 200 if document["ok"] else 503)

    @api.get("/counters")
    def counters() -> Response:
        """Messages since the start: ``accepted``, ``duplicates``, ``refused`` by reason,
        ``queued``."""
        return _json(backend.counters())

    @api.get("/fleet")
    def fleet() -> Response:
        """``{now_ms, devices: [DeviceView]}``: last contact, model, outcomes and state of each."""
        now_ms = backend.now_ms()
        return _json({"now_ms": now_ms, "devices": backend.reader.devices(now_ms=now_ms)})

    @api.get("/drift")
    def drift(site: str = "", device: str = "") -> Response:
        """``{streams: [StreamView]}``: effect sizes, χ² and evidence of each statistic."""
        return _json({"streams": backend.reader.streams(site=site, device=device)})

    @api.get("/drift/{stream_id}/history")
    def history(stream_id: int, limit: int = 500) -> Response:
        """``{points: [Point]}``: the last test windows of a statistic, oldest first."""
        return _json({"points": backend.reader.history(stream_id, limit=min(limit, 5000))})

    @api.get("/drift/{stream_id}/histogram")
    def histogram(stream_id: int) -> Response:
        """The last test window beside the training data, as shares; null before there is one."""
        return _json(backend.reader.histogram(stream_id))

    @api.get("/alarms")
    def alarms(*, open_only: bool = False, site: str = "", device: str = "") -> Response:
        """``{alarms: [AlarmView]}``, the first one first."""
        found = backend.reader.alarms(open_only=open_only, site=site, device=device)
        return _json({"alarms": found})

    @api.get("/events")
    def events(site: str = "", device: str = "", limit: int = 50) -> Response:
        """``{events: [EventView]}``, newest first."""
        found = backend.reader.events(site=site, device=device, limit=min(limit, 1000))
        return _json({"events": found})

    @api.get("/faults")
    def faults(site: str = "", device: str = "") -> Response:
        """``{faults: [FaultView]}``: windows that were refused or could not be judged, and why."""
        return _json({"faults": backend.reader.faults(site=site, device=device)})

    @api.get("/keep")
    def keep() -> Response:
        """``KeptView``: how long what is kept, and how much room it takes."""
        return _json(backend.kept())

    @api.get("/bundles")
    def bundles() -> Response:
        """``{bundles: [BundleView]}``: known ones, and those that windows wait for."""
        return _json({"bundles": backend.reader.bundles()})

    @api.post("/bundles", status_code=201)
    async def add_bundle(request: Request) -> Response:
        """Learn a bundle's baseline; the body is the file itself. 200 where it was known
        already."""
        with tempfile.TemporaryDirectory(prefix="edgeml-collector-") as folder:
            path = Path(folder) / "upload.edgeml"
            if not await _receive(request, path, backend.max_bundle_bytes):
                return _json(
                    {
                        "error": {
                            "found": "the bundle is too large",
                            "expected": f"at most {backend.max_bundle_bytes:,} bytes",
                            "remedy": "Raise http.max_bundle_mb.",
                        }
                    },
                    413,
                )
            added = await backend.add_bundle(path)
        return _json(added, 201 if added.new else 200)

    add_fleet_routes(api, backend)
    app.include_router(api)


async def _receive(request: Request, path: Path, limit: int) -> bool:
    """Write the body to ``path``; False as soon as it is longer than ``limit``."""
    size = 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                return False
            await asyncio.to_thread(file.write, chunk)
    return True
