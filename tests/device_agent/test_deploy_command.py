"""``edgeml agent deploy``, ``rollback`` and ``dismiss``, on a running agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.agents import AgentProcess, StartAgent
from support.bundles import tiny_bundle
from support.weights import images


def agent_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeml", "agent", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def agent(start_agent: StartAgent, tmp_path: Path) -> AgentProcess:
    return start_agent("--bundle", tiny_bundle(tmp_path)).ready()


def version(agent: AgentProcess) -> str:
    with agent.client() as client:
        client.infer({"image": images(1)})
        return client.metadata()["versions"][0]


def test_there_and_back(agent: AgentProcess, tmp_path: Path):
    two = tiny_bundle(tmp_path, version="2.0")
    done = agent_command("deploy", two, "--socket", agent.socket)
    assert done.stdout == "tiny 2.0 serves, with onnx-fp32.\n", done.stderr
    assert version(agent) == "2.0"
    done = agent_command("rollback", "tiny", "--socket", agent.socket, "--json")
    assert json.loads(done.stdout)["version"] == "1.0"
    assert version(agent) == "1.0"


@pytest.mark.parametrize(
    ("flags", "mode"),
    [(["--shadow"], "is a shadow of what serves"), (["--split", "0.25"], "serves its share")],
)
def test_beside_what_serves(agent: AgentProcess, tmp_path: Path, flags: list[str], mode: str):
    two = tiny_bundle(tmp_path, version="2.0")
    done = agent_command("deploy", two, "--socket", agent.socket, *flags)
    assert done.stdout == f"tiny 2.0 {mode}, with onnx-fp32.\n", done.stderr
    shown = agent_command("status", "--once", "--socket", agent.socket).stdout
    assert "beside it 2.0, onnx-fp32, " in shown
    assert version(agent) == "1.0"
    done = agent_command("dismiss", "tiny", "--socket", agent.socket)
    assert done.stdout == "Nothing is beside what serves tiny.\n", done.stderr
    shown = agent_command("status", "--once", "--socket", agent.socket).stdout
    assert "beside" not in shown
    done = agent_command("dismiss", "large", "--socket", agent.socket)
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no model 'large'. Expected one of: tiny." in done.stderr


def test_what_is_refused_leaves_what_serves(agent: AgentProcess, tmp_path: Path):
    wrong = tiny_bundle(tmp_path, version="3.0", wrong_golden=True)
    done = agent_command("deploy", wrong, "--socket", agent.socket)
    assert done.returncode == 1
    assert "does not reproduce the golden vectors" in done.stderr
    done = agent_command("deploy", wrong, "--socket", agent.socket, "--model", "huge")
    assert "There is no model 'huge'" in done.stderr
    both = agent_command("deploy", wrong, "--socket", agent.socket, "--shadow", "--split", "0.5")
    assert both.returncode == 2
    nothing = agent_command("rollback", "tiny", "--socket", agent.socket)
    assert nothing.returncode == 1
    over_http = agent_command("rollback", "tiny", "--url", agent.url)
    assert "over the agent's socket, or over HTTP with a token" in over_http.stderr
    assert version(agent) == "1.0"
