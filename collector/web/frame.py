"""What all pages share: colours, the header, badges, and the empty state."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from nicegui import ui

from edgeml.collector.access.guard import SESSION
from edgeml.collector.access.login import LOGOUT

STYLE = """
:root { --ink: #1f2937; --muted: #6b7280; --line: #e5e7eb; --page: #f6f7f9; --alarm: #dc2626;
        }
body { background: var(--page); color: var(--ink);
       font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
.nicegui-content { padding: 0 !important; gap: 0; }
.page { width: 100%;
        max-width: 1280px; margin: 0 auto; padding: 24px; gap: 20px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px;
        width: 100%; box-shadow: 0 1px 2px rgba(16, 24, 40, .04); }
.card.alarm { border-color: #fca5a5; background: #fef2f2; }
.card.drifted { border-color: #f87171; box-shadow: inset 4px 0 0 #ef4444; }
.muted { color: var(--muted); }
.small { font-size: 13px; }
.title { font-size: 17px; font-weight: 600; }
.figure { font-size: 26px; font-weight: 650; line-height: 1.15;
          font-variant-numeric: tabular-nums; }
.figure.alarm { color: var(--alarm); }
.number { font-variant-numeric: tabular-nums; }
.badge { border-radius: 999px; padding: 2px 10px; font-size: 12px; font-weight: 600;
         white-space: nowrap; display: inline-block; }
.badge.alarm { background: #fee2e2; color: #991b1b; }
.badge.armed { background: #dcfce7; color: #14532d; }
.badge.stuck { background: #ffedd5; color: #9a3412; }
.badge.waiting { background: #fef3c7; color: #78350f; }
.badge.unknown { background: #e5e7eb; color: #374151; }
.dot { width: 9px; height: 9px; border-radius: 50%; display: inline-block; }
.dot.on { background: #22c55e; } .dot.off { background: #9ca3af; }
.chip { background: #fff; border: 1px solid #fecaca; border-radius: 8px; padding: 6px 10px;
        font-size: 13px; }
table.fleet { width: 100%; border-collapse: collapse; font-size: 14px; }
table.fleet th { text-align: left; color: var(--muted); font-weight: 500; font-size: 12.5px;
                 padding: 6px 14px 8px 0; border-bottom: 1px solid var(--line); }
table.fleet td { padding: 11px 14px 11px 0; border-bottom: 1px solid #f1f2f4;
                 vertical-align: middle; }
table.fleet tr:last-child td { border-bottom: none; }
table.fleet .right { text-align: right; }
table.fleet a, a.plain { color: #1d4ed8; text-decoration: none; font-weight: 600; }
a.plain:hover, table.fleet a:hover { text-decoration: underline; }
.bar { background: #eef0f3; border-radius: 999px; height: 6px; width: 120px; overflow: hidden; }
.bar > div { height: 100%; border-radius: 999px; background: #7c3aed; }
.bar > div.alarm { background: var(--alarm); }
.bar.wide { width: 220px; height: 8px; }
code.line { background: #111827; color: #e5e7eb; border-radius: 8px; padding: 10px 14px;
            font-size: 13px; display: block; overflow-x: auto; white-space: pre; }
.statistics { display: grid; grid-template-columns: repeat(auto-fill, minmax(560px, 1fr));
              gap: 20px; width: 100%; }
@media (max-width: 640px) { .statistics { grid-template-columns: 1fr; } .page { padding: 14px; } }
.measures { display: flex; gap: 3px 18px; flex-wrap: wrap; font-size: 13px; margin: 8px 0 4px; }
.measures b { font-variant-numeric: tabular-nums; font-weight: 600; }
"""

STATES = {
    "alarm": ("alarm", "alarm"),
    "refused": ("stuck", "windows refused"),
    "stuck": ("stuck", "stuck"),
    "armed": ("armed", "armed"),
    "not armed": ("waiting", "not armed yet"),
    "collecting": ("waiting", "not armed yet"),
    "unknown": ("unknown", "no statistics"),
}
"""State → style and words of its badge."""

_LOG_OUT = (
    f'<form method="post" action="{LOGOUT}" style="margin:0"><button style="color:#9ca3af;'
    'text-decoration:underline;cursor:pointer">Log out</button></form>'
)


def badge(state: str) -> str:
    """A state as HTML."""
    style, words = STATES.get(state, ("unknown", state))
    return f'<span class="badge {style}">{words}</span>'


@contextmanager
def page(title: str, health: dict[str, Any]) -> Generator[None]:
    """A page with its header; what is made inside goes below it."""
    ui.page_title(title)
    ui.add_css(STYLE)
    ui.colors(primary="#1d4ed8")
    with (
        ui.element("div").style(
            "width:100%;background:#111827;color:#f9fafb;display:flex;justify-content:center"
        ),
        ui.row().classes("items-center").style("width:100%;max-width:1280px;padding:12px 24px"),
    ):
        ui.html(
            '<a href="/" style="color:#fff;text-decoration:none;font-weight:700;'
            'font-size:18px;letter-spacing:.2px">edgeml <span style="font-weight:400;'
            'color:#9ca3af">fleet</span></a>',
            sanitize=False,
        )
        ui.space()
        state = ui.html("", sanitize=False).classes("small")
        show_health(state, health)
        if ui.context.client.request.scope.get(SESSION):
            ui.html(_LOG_OUT, sanitize=False).classes("small")
    with ui.column().classes("page"):
        yield


def show_health(element: ui.html, health: dict[str, Any]) -> None:
    """Broker and database in a line."""
    from html import escape

    parts = [("broker", health["broker"]), ("database", health["store"])]
    element.set_content(
        " &nbsp; ".join(
            f'<span class="dot {"on" if part["ok"] else "off"}"></span> '
            f"{name}{'' if part['ok'] else ': ' + escape(part['trouble'][:90])}"
            for name, part in parts
        )
    )
