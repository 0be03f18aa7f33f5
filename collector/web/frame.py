"""What all pages share: colours, the header, badges, and the empty state."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from nicegui import ui

from edgeml.collector.access.guard import SESSION
from edgeml.collector.access.login import LOGOUT

STYLE = """
:root { --ink: #1f2937; --muted: #6b7280; --line: #e5e7eb; --soft: #f1f2f4; --page: #f6f7f9;
        --card: #fff; --link: #1d4ed8; --alarm: #dc2626; --alarm-ink: #991b1b;
        --alarm-line: #fca5a5; --alarm-card: #fef2f2; --alarm-badge: #fee2e2;
        --good-ink: #14532d; --good-badge: #dcfce7;
        --stuck-ink: #9a3412; --stuck-badge: #ffedd5; --wait-ink: #78350f; --wait-badge: #fef3c7;
        --grey-ink: #374151; --grey-badge: #e5e7eb; --head: #111827; }
@media (prefers-color-scheme: dark) { :root {
        --ink: #e5e7eb; --muted: #9ca3af; --line: #2b3648; --soft: #222c3d; --page: #0b1120;
        --card: #151d2e; --link: #8ab4ff; --alarm: #f87171; --alarm-ink: #fecaca;
        --alarm-line: #7f1d1d; --alarm-card: #2a1519; --alarm-badge: #5b1a1f; --good-ink: #bbf7d0;
        --good-badge: #14432a; --stuck-ink: #fed7aa; --stuck-badge: #572a10; --wait-ink: #fde68a;
        --wait-badge: #4a3410; --grey-ink: #d1d5db; --grey-badge: #374151; --head: #060a14; } }
body, body.body--light, body.body--dark { background: var(--page); color: var(--ink);
       font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
.nicegui-content { padding: 0 !important; gap: 0; }
.head { width: 100%; background: var(--head); color: #f9fafb; display: flex;
        justify-content: center; }
.head > div { width: 100%; max-width: 1280px; padding: 12px 24px; gap: 4px 20px; }
.head a { color: #fff; text-decoration: none; font-weight: 700; font-size: 18px;
          letter-spacing: .2px; }
.head a span, .head button { font-weight: 400; color: #9ca3af; }
.head button { text-decoration: underline; cursor: pointer; }
.page { width: 100%;
        max-width: 1280px; margin: 0 auto; padding: 24px; gap: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
        padding: 18px 20px; width: 100%; box-shadow: 0 1px 2px rgba(16, 24, 40, .04); }
.card.alarm { border-color: var(--alarm-line); background: var(--alarm-card); }
.card.drifted { border-color: var(--alarm); box-shadow: inset 4px 0 0 var(--alarm); }
.over > .card { opacity: .6; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 16px;
           width: 100%; }
.muted { color: var(--muted); }
.small { font-size: 13px; }
.title { font-size: 17px; font-weight: 600; }
.sentence { font-size: 17px; font-weight: 550; margin-bottom: 12px; }
.error { color: var(--alarm-ink); }
.figure { font-size: 26px; font-weight: 650; line-height: 1.15;
          font-variant-numeric: tabular-nums; }
.figure.alarm { color: var(--alarm); }
.number { font-variant-numeric: tabular-nums; }
.badge { border-radius: 999px; padding: 2px 10px; font-size: 12px; font-weight: 600;
         white-space: nowrap; display: inline-block; }
.badge.alarm { background: var(--alarm-badge); color: var(--alarm-ink); }
.badge.armed { background: var(--good-badge); color: var(--good-ink); }
.badge.stuck { background: var(--stuck-badge); color: var(--stuck-ink); }
.badge.waiting { background: var(--wait-badge); color: var(--wait-ink); }
.badge.unknown { background: var(--grey-badge); color: var(--grey-ink); }
.dot { width: 9px; height: 9px; border-radius: 50%; display: inline-block; }
.dot.on { background: #22c55e; } .dot.off { background: #9ca3af; }
.chips { display: flex; gap: 8px; flex-wrap: wrap; }
.chip { background: var(--card); border: 1px solid var(--alarm-line); border-radius: 8px;
        padding: 6px 10px; font-size: 13px; }
table.fleet { width: 100%; border-collapse: collapse; font-size: 14px; }
table.fleet th { text-align: left; color: var(--muted); font-weight: 500; font-size: 12.5px;
                 padding: 6px 14px 8px 0; border-bottom: 1px solid var(--line); }
table.fleet td { padding: 11px 14px 11px 0; border-bottom: 1px solid var(--soft);
                 vertical-align: middle; }
table.fleet tr:last-child td { border-bottom: none; }
table.fleet a, a.plain { color: var(--link); text-decoration: none; font-weight: 600; }
a.plain:hover, table.fleet a:hover { text-decoration: underline; }
.bar { background: var(--line); border-radius: 999px; height: 6px; width: 120px; overflow: hidden; }
.bar > div { height: 100%; border-radius: 999px; background: #8b5cf6; }
.bar > div.alarm { background: var(--alarm); }
.bar.wide { width: 220px; height: 8px; }
code.line { background: #111827; color: #e5e7eb; border-radius: 8px; padding: 10px 14px;
            font-size: 13px; display: block; overflow-x: auto; white-space: pre; }
.statistics { display: grid; grid-template-columns: repeat(auto-fill, minmax(560px, 1fr));
              gap: 20px; width: 100%; }
.measures { display: flex; gap: 3px 18px; flex-wrap: wrap; font-size: 13px; margin: 8px 0 4px; }
.measures b { font-variant-numeric: tabular-nums; font-weight: 600; }
@media (max-width: 720px) {
  .head > div, .page { padding: 12px; } .page { gap: 12px; } .card { padding: 14px; }
  .statistics { grid-template-columns: minmax(0, 1fr); gap: 12px; }
  .figures { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; }
  .figure { font-size: 21px; } .title, .sentence { font-size: 16px; }
  .chips { display: grid; grid-template-columns: 1fr 1fr; }
  table.fleet thead { display: none; }
  table.fleet tr { display: flex; flex-wrap: wrap; gap: 3px 12px; padding: 12px 0;
                   border-bottom: 1px solid var(--line); }
  table.fleet tr:last-child { border-bottom: none; }
  table.fleet td { border: none; padding: 0; }
  table.fleet td.wide { width: 100%; }
}
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

_LOG_OUT = f'<form method="post" action="{LOGOUT}"><button>Log out</button></form>'


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
    with ui.element("div").classes("head"), ui.row().classes("items-center"):
        ui.html('<a href="/">edgeml <span>fleet</span></a>', sanitize=False)
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
