"""The agent's process; ``edgeml agent run`` starts it (see :mod:`edgeml.device_agent.launch`)."""

from __future__ import annotations

import sys

from edgeml.device_agent import logs
from edgeml.device_agent.agent import run
from edgeml.device_agent.launch import become_agent, parse_arguments
from edgeml.errors import EdgemlError


def main() -> int:
    """Run; return the exit status."""
    log_json = False
    try:
        config, log_json = parse_arguments(sys.argv[1])
        logs.start_logging(as_json=log_json)
        restarts = run(config)
    except EdgemlError as error:
        if log_json:
            logs.error("gave up", reason=error)
        else:
            sys.stderr.write(f"edgeml: {error}\n")
        return error.exit_code
    if restarts:
        become_agent(config, log_json=log_json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
