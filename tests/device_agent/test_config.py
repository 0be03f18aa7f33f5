"""The configuration file and the flags: every mistake is named, none is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.cli import main
from edgeml.device_agent.config import Config
from edgeml.device_agent.config_file import read_config
from edgeml.errors import UsageError

WHOLE = """
site = "plant-1"
device = "cam-7"
http = "127.0.0.1:0"
outbox_mb = 8

[broker]
host = "broker.local"
username = "cam-7"
password_file = "secret"

[[model]]
bundle = "digits-1.0.edgeml"
target = "tflite"
deadline_ms = 50
memory_mb = 120.5
window_s = 30

[[model.mqtt]]
topic = "cameras/7"
newest = false

[[model.folder]]
path = "in"
after = "delete"
"""


def read(folder: Path, text: str) -> Config:
    path = folder / "agent.toml"
    path.write_text(text)
    return read_config(path)


def test_a_whole_file_with_paths_beside_it(tmp_path: Path):
    config = read(tmp_path, WHOLE)
    (model,) = config.model
    assert (config.site, config.device, config.outbox_mb) == ("plant-1", "cam-7", 8)
    assert model.bundle == tmp_path / "digits-1.0.edgeml"
    assert (model.deadline_ms, model.memory_mb, model.queue) == (50, 120.5, 8)
    assert model.mqtt[0].newest is False
    assert model.folder[0].path == tmp_path / "in"
    assert config.broker is not None
    assert config.broker.password_file == tmp_path / "secret"


MISTAKES = {
    "a misspelt key": (
        '[[model]]\nbundle = "x"\nmemory = 100\n',
        r"unknown key 'model\[0\]\.memory'.*Did you mean memory_mb",
    ),
    "a key of nothing known": ("colour = 3\n", "unknown key 'colour'. Expected one of site"),
    "a wrong type": ('outbox_mb = "much"\n', "outbox_mb .* wrong value. Expected `float`"),
    "a value out of bounds": (
        '[[model]]\nbundle = "x"\ndeadline_ms = 0\n',
        r"model\[0\]\.deadline_ms .* wrong value. Expected `float` > 0",
    ),
    "no time at all for statistics": (
        '[[model]]\nbundle = "x"\nstatistics_share = 0\n',
        r"model\[0\]\.statistics_share .* wrong value. Expected `float` > 0",
    ),
    "more than one core for them": (
        '[[model]]\nbundle = "x"\nstatistics_share = 1.5\n',
        r"model\[0\]\.statistics_share .* wrong value. Expected `float` <= 1",
    ),
    "a missing bundle": ("[[model]]\n", "missing required field `bundle`"),
    "a name that is no topic": ('site = "a/b"\n', "site .* wrong value"),
    "no TOML": ("site = \n", "is no TOML"),
    "another choice": (
        '[[model]]\nbundle = "x"\n[[model.folder]]\npath = "in"\nafter = "burn"\n',
        "Invalid enum value 'burn'",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_in_the_file(tmp_path: Path, what: str):
    text, message = MISTAKES[what]
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


def test_no_file(tmp_path: Path):
    with pytest.raises(UsageError, match=r"agent\.toml cannot be read: No such file"):
        read_config(tmp_path / "agent.toml")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--broker", "host:port"], "The broker's address is 'host:port'. Expected HOST:PORT"),
        (["--site", "a b"], "site in the flags has a wrong value"),
        (["--window", "0"], "0.05"),
    ],
)
def test_mistakes_in_the_flags(flags, message, capsys: pytest.CaptureFixture[str]):
    assert main(["agent", "run", *flags]) == 2
    assert message in capsys.readouterr().err
