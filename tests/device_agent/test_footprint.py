"""An agent with no model is small and imports no framework."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.agents import Collector, StartAgent

LIMIT_MB = 50
FRAMEWORKS = ("torch", "tensorflow", "nncf", "onnx", "onnxruntime", "openvino", "ai_edge_litert")


def test_an_agent_without_a_model_speaks_mqtt_and_stays_under_50_mb(
    start_agent: StartAgent, collector: Collector, at_plant: list[str]
):
    # Where nobody has run one yet its modules are compiled first, and that takes memory of its own.
    assert start_agent(*at_plant).ready().terminate() == 0
    collector.wait_for(lambda c: c.statuses and not c.statuses[-1][0].online, "death")
    agent = start_agent(*at_plant).ready()
    collector.wait_for(lambda c: c.statuses and c.statuses[-1][0].online, "birth")
    status = Path(f"/proc/{agent.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match
    peak_mb = int(match[1]) * 1024 / 1e6
    assert peak_mb < LIMIT_MB
    mapped = Path(f"/proc/{agent.pid}/maps").read_text()
    assert not [name for name in FRAMEWORKS if f"site-packages/{name}/" in mapped]
    assert agent.terminate() == 0


def test_agent_and_worker_import_no_framework():
    """Every module of both but the runtime that a worker opens by name."""
    code = (
        "import sys, edgeml.device_agent.agent, edgeml.device_agent.worker.__main__;"
        f"print([name for name in {FRAMEWORKS} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"


def test_a_worker_imports_nothing_of_the_agent():
    code = (
        "import sys, edgeml.device_agent.worker.__main__;"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in"
        " {'paho', 'sqlite3', 'http', 'typer', 'rich'} or name == 'edgeml.device_agent.agent'))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
