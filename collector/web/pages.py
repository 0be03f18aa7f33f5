"""Adds the pages to the collector's FastAPI application. NiceGUI brings all its assets itself."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI
from nicegui import ui

from edgeml.collector.api.routes import Backend
from edgeml.collector.web.device import device_page
from edgeml.collector.web.fleet import fleet_page

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%23111827'/%3E"
    "%3Cpath d='M3 11l3-4 2 2 5-6' fill='none' stroke='%2360a5fa' stroke-width='2'/%3E%3C/svg%3E"
)


def add_pages(app: FastAPI, backend: Backend) -> None:
    """Add the fleet page at ``/`` and each device's at ``/device/SITE/NAME``."""

    @ui.page("/", title="edgeml fleet", favicon=ICON)
    async def fleet() -> None:
        await fleet_page(backend)

    @ui.page("/device/{site}/{device}", favicon=ICON)
    async def device(site: str, device: str) -> None:
        await device_page(backend, site, device)

    cast("Any", ui).run_with(app, title="edgeml fleet", dark=None, show_welcome_message=False)
