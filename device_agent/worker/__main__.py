"""A worker's first moment: wait until the agent has set its limits, and only then load anything.

Started as ``python -m edgeml.device_agent.worker SPEC``. Memory is charged to the control group
that a process is in when it takes it, so NumPy and the runtime are imported after GO.
"""

from __future__ import annotations

import json
import signal
import socket
import sys


def main() -> None:
    """Runs until the agent goes away."""
    # Ctrl-C reaches the whole foreground group; the agent alone decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=json.loads(sys.argv[1])["link"])
    if not link.recv(1):
        return  # the agent has changed its mind, or is gone
    from edgeml.device_agent.worker.child import serve

    serve(sys.argv[1], link)


if __name__ == "__main__":
    main()
