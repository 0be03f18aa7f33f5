"""From the command line's process to the agent's own.

The command line's libraries take some fifteen megabytes that an agent would hold on to for months.
So ``edgeml agent run`` reads flags and file, and then becomes ``python -m edgeml.device_agent``:
the same process id, nothing of the rest.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import msgspec

from edgeml.decoding import from_json
from edgeml.device_agent.config import ENVIRONMENT, HEAP_ENVIRONMENT, Config
from edgeml.device_agent.config_file import parse_config


def become_agent(config: Config, *, log_json: bool) -> NoReturn:
    """Replace this process by the agent."""
    document = msgspec.json.encode({"config": config, "log_json": log_json}, enc_hook=str)
    arguments = [sys.executable, "-m", "edgeml.device_agent", document.decode()]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(  # noqa: S606
        sys.executable, arguments, {**os.environ, **ENVIRONMENT, **HEAP_ENVIRONMENT}
    )


def parse_arguments(argument: str) -> tuple[Config, bool]:
    """What :func:`become_agent` passed on: the configuration, and whether to log JSON."""
    document = from_json(argument)
    return parse_config(document["config"], "the command line"), bool(document["log_json"])
