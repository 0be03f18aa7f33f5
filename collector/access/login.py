"""The page on which a person shows the token. It needs no script, and nothing from elsewhere."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qs

LOGIN, LOGOUT = "/login", "/logout"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>edgeml fleet</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font-family: system-ui, sans-serif; background: #f6f7f9; color: #1f2937; margin: 0;
       display: grid; place-items: center; min-height: 100vh; }}
form {{ background: #fff; border: 1px solid #e5e7eb; border-radius: 12px; padding: 24px;
       width: min(340px, calc(100vw - 80px)); }}
h1 {{ font-size: 18px; margin: 0 0 16px; }} h1 span {{ font-weight: 400; color: #6b7280; }}
label, p {{ font-size: 13px; color: #6b7280; }} p.wrong {{ color: #b91c1c; }}
code {{ white-space: nowrap; }}
input, button {{ font: inherit; box-sizing: border-box; width: 100%; padding: 9px 12px;
       margin-top: 6px; border-radius: 8px; border: 1px solid #d1d5db; }}
button {{ background: #1d4ed8; border-color: #1d4ed8; color: #fff; font-weight: 600;
       margin-top: 12px; cursor: pointer; }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #0b1120; color: #e5e7eb; }}
  form {{ background: #111827; border-color: #374151; }}
  label, p, h1 span {{ color: #9ca3af; }} p.wrong {{ color: #fca5a5; }} }}
</style></head><body>
<form method="post" action="{login}">
<h1>edgeml <span>fleet</span></h1>
<label for="token">Access token</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
<input name="next" type="hidden" value="{next}">
{note}<button>Log in</button>
<p>Whoever runs the collector has it: the file that <code>--token-file</code> names.</p>
</form></body></html>
"""

AGAIN = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={}">'
"""To who follows a link of another site: the browser shows its cookie to our own pages only, so the
address is asked for once more by a page of ours."""


def login_page(after: str, *, wrong: bool) -> str:
    """As HTML; ``after`` is where to go then."""
    note = '<p class="wrong">That is not the token.</p>' if wrong else ""
    return _PAGE.format(login=LOGIN, next=escape(own_path(after)), note=note)


def again_page(path: str) -> str:
    """As HTML."""
    return AGAIN.format(escape(own_path(path)))


def read_form(body: bytes) -> tuple[str, str]:
    """The token that was given, and where to go then."""
    form = parse_qs(body.decode("utf-8", "replace"))
    return form.get("token", [""])[0].strip(), own_path(form.get("next", ["/"])[0])


def own_path(path: str) -> str:
    """``path`` where it stays on this site, else ``/``. Browsers take ``//`` and ``/\\`` for
    another host, and skip control characters."""
    mine = path.startswith("/") and path[1:2] not in {"/", "\\"} and path.isprintable()
    return path if mine and path.partition("?")[0] not in {LOGIN, LOGOUT} else "/"
