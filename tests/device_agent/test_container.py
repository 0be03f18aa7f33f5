"""The container file, as far as it can be read without a container: what it names is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

CHECKOUT = Path(__file__).parents[2]
FILE = CHECKOUT / "device_agent" / "Containerfile"


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Keyword and argument of each, lines joined."""
    joined = re.sub(r"\\\n\s*", " ", FILE.read_text())
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_it_installs_extras_that_there_are_under_pins_that_there_are(
    instructions: list[tuple[str, str]],
):
    tomllib = pytest.importorskip("tomllib")  # not on 3.10
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    settings = dict(
        argument.split("=", 1) for keyword, argument in instructions if keyword == "ARG"
    )
    (installs,) = [argument for keyword, argument in instructions if keyword == "RUN"]
    asked = re.search(r"/src\[(.*)]", installs)
    pins = re.search(r"--constraint /src/(\S+)", installs)
    assert asked
    assert pins
    extras = asked[1].replace("${RUNTIMES}", settings["RUNTIMES"]).split(",")
    assert set(extras) <= project["optional-dependencies"].keys()
    assert (CHECKOUT / pins[1]).is_file()
    assert SpecifierSet(project["requires-python"]).contains(settings["PYTHON"])


def test_what_it_runs_is_a_command_with_these_flags(instructions: list[tuple[str, str]]):
    found = dict(instructions)
    run = json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])
    look = json.loads(found["HEALTHCHECK"].partition("CMD ")[2])
    for command in (run, look):
        assert command[0] == "edgeml"
        flags = [word for word in command if word.startswith("--")]
        words = command[1 : command.index(flags[0])]
        shown = subprocess.run(
            [sys.executable, "-m", "edgeml", *words, "--help"],
            check=True,
            capture_output=True,
            text=True,
            env={"COLUMNS": "200", "PATH": "", "PYTHONPATH": str(CHECKOUT)},
        )
        assert all(flag in shown.stdout for flag in flags)
    volumes = json.loads(found["VOLUME"])
    places = [command[command.index("--socket") + 1] for command in (run, look)]
    assert places[0] == places[1]
    assert str(Path(places[0]).parent) in volumes
    assert run[run.index("--state") + 1] in volumes


def test_it_does_not_run_as_root(instructions: list[tuple[str, str]]):
    users = [argument for keyword, argument in instructions if keyword == "USER"]
    assert users == ["edgeml"]
    assert f"useradd --system --home-dir /var/lib/edgeml {users[0]}" in dict(instructions)["RUN"]
