"""The agent's log: one line a happening on standard error, ``key=value`` or JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections import deque

from edgeml.device_agent import config as bounds

LOG = logging.getLogger("edgeml.agent")

_PLAIN = re.compile(r'[^\s"]+')
"""A value that needs no quotes."""

_LINE = 2000
"""Characters of a line that are remembered."""


def say(level: int, what: str, **fields: object) -> None:
    """Log a happening with its fields."""
    LOG.log(level, what, extra={"fields": fields})


def info(what: str, **fields: object) -> None:
    """Log something ordinary."""
    say(logging.INFO, what, **fields)


def warn(what: str, **fields: object) -> None:
    """Log something that a person may want to look into."""
    say(logging.WARNING, what, **fields)


def error(what: str, **fields: object) -> None:
    """Log that a model, or the agent, does not serve any more."""
    say(logging.ERROR, what, **fields)


def fault(what: str, **fields: object) -> None:
    """Log an exception that is the agent's own fault, with its trace."""
    LOG.exception(what, extra={"fields": fields})


def start_logging(*, as_json: bool) -> None:
    """Send the agent's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text())
    recent = _Recent(handler.formatter)
    LOG.handlers[:] = [handler, recent]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def recent_lines(count: int) -> list[str]:
    """The latest lines, as they were logged, oldest first."""
    lines = [line for each in LOG.handlers if isinstance(each, _Recent) for line in each.lines]
    return lines[-count:]


class _Recent(logging.Handler):
    """Remembers the latest lines."""

    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: deque[str] = deque(maxlen=bounds.LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record)[:_LINE])


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        parts = [_time(record), record.levelname, record.getMessage()]
        for key, value in _fields(record).items():
            text = str(value)
            parts.append(f"{key}={text if _PLAIN.fullmatch(text) else json.dumps(text)}")
        line = " ".join(parts).replace("\n", " ")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["trace"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)
