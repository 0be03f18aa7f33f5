"""The agent's log, as real agents write it: a line a happening, which a program can take apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.agents import StartAgent, frame
from support.bundles import sleeper_bundle
from support.sleeper.sleeper_runtime import CRASH, HANG

from edgeml.device_agent.local.client import CallError, Client

LEVELS = ("info", "warning", "error")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FIELD = r' (\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)'
TEXT = re.compile(rf"(\S+) (INFO|WARNING|ERROR) ([^=]+?)((?:{FIELD})*)")


def from_text(line: str) -> dict[str, Any]:
    """A line as ``--log-json`` would have it; numbers are text."""
    found = TEXT.fullmatch(line)
    assert found, line
    fields = {
        key: json.loads(value) if value[0] == '"' else value
        for key, value in re.findall(FIELD, found[4])
    }
    return {"time": found[1], "level": found[2].lower(), "message": found[3], **fields}


FORMS = {"text": ((), from_text), "json": (("--log-json",), json.loads)}


@pytest.mark.parametrize("form", FORMS)
def test_every_line_can_be_taken_apart_and_trouble_names_its_model(
    start_agent: StartAgent, tmp_path: Path, form: str
):
    """An artifact is passed over, a worker is late, another one dies once too often."""
    flags, parse = FORMS[form]
    sleeper_bundle(tmp_path, options={"load": "crash"}, cheaper={})
    config, socket = tmp_path / "agent.toml", tmp_path / "a socket"
    config.write_text(
        f'socket = "{socket}"\n[[model]]\nbundle = "sleeper-1.0.edgeml"\n'
        "deadline_ms = 200\ngrace_ms = 0\nrestarts = 1\n"
    )
    agent = start_agent("--config", config, *flags, sleeper=True)
    agent.wait_for(r"\bready\b")
    with Client(socket, "sleeper") as client:
        for command, outcome in ((HANG, "replaced"), (CRASH, "given-up")):
            with pytest.raises(CallError):
                client.infer({"image": frame(command)})
            agent.wait_for(rf"\b{outcome}\b")
    assert agent.terminate() == 0

    lines = [parse(line) for line in agent.lines]
    assert all(TIME.fullmatch(line["time"]) for line in lines)
    assert {line["level"] for line in lines} == set(LEVELS)
    (ready,) = [line for line in lines if line["message"] == "ready"]
    assert (ready["socket"], ready["model"]) == (str(socket), "sleeper")
    trouble = [line for line in lines if line["level"] != "info"]
    assert {line["model"] for line in trouble} == {"sleeper"}
    assert [(line["level"], line["message"]) for line in trouble] == [
        ("warning", "passed over"),
        ("warning", "deadline-missed"),
        ("warning", "worker-died"),
        ("error", "given-up"),
    ]
    assert "died with SIGSEGV" in trouble[0]["reason"]
    assert re.search(r"No answer within \d+ ms", trouble[1]["reason"])  # what its wait had left
    assert "2 workers of sleeper were lost" in trouble[3]["reason"]


def test_that_it_cannot_serve_is_a_line_of_json_as_well(start_agent: StartAgent, tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, options={"load": "crash"})
    agent = start_agent("--bundle", bundle, "--log-json", sleeper=True)
    assert agent.end() == 1
    lines = [json.loads(line) for line in agent.lines]
    assert [(line["message"], line.get("model")) for line in lines if line["level"] == "error"] == [
        ("refused", "sleeper"),
        ("gave up", None),
    ]
    assert "died with SIGSEGV" in lines[-1]["reason"]
