"""The frame: verbs load late, errors are one paragraph, and the exit status tells how it went."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from edgeml.cli import main
from edgeml.cli.verbs import VERBS, Verb
from edgeml.errors import EdgemlError, UsageError

HEAVY = (
    "numpy",
    "torch",
    "tensorflow",
    "onnxruntime",
    "openvino",
    "sqlalchemy",
    "nicegui",
    "paho",
    "rich.table",
    "edgeml.targets",
    "edgeml.exporter",
)


def test_help_loads_no_verb_and_nothing_heavy() -> None:
    code = (
        "import sys; from edgeml.cli import main; status = main(['--help']); "
        "print('LOADED', *sorted(sys.modules)); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.partition("LOADED")[2].split())
    assert "edgeml.cli.frame" in loaded
    assert not loaded & {*HEAVY, *(verb.module for verb in VERBS.values())}


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in VERBS.values():
        assert f"  {verb.name} " in out
        assert verb.summary in out


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: edgeml {name}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edgeml ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--bogus", ("No such option", "edgeml --help")),
        ("exprt", ("No such command 'exprt'", "'export'")),
        ("fleet staus", ("Did you mean 'status'? See `edgeml fleet --help`",)),
        ("export model.pt2", ("Missing option '-t'", "edgeml export --help")),
        ("run", ("Missing argument", "edgeml run --help")),
        ("bench x.edgeml --threads none", ("--threads", "edgeml bench --help")),
        ("toolchain install exprt", ("no toolchain 'exprt'", "Did you mean export")),
        ("export m.onnx -t tflit", ("no target or device 'tflit'", "Did you mean tflite")),
    ],
)
def test_wrong_usage_is_one_paragraph_and_status_2(
    line: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("edgeml: ")
    assert captured.err.count("\n") == 1
    assert all(word in captured.err for word in words), captured.err


def test_no_arguments_at_all_show_the_help_with_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Makes a function the verb ``try``."""

    def install(function: Callable[[], None]) -> None:
        app = typer.Typer()
        app.command()(function)
        monkeypatch.setitem(sys.modules, "verb_for_test", SimpleNamespace(app=app))
        monkeypatch.setitem(VERBS, "try", Verb("try", "verb_for_test", "A test's."))

    return install


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def test_an_error_says_what_was_found_expected_and_what_to_do(
    verb: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(EdgemlError("the bowl is empty", expected="porridge", remedy="Cook some")))
    assert main(["try"]) == 1
    assert capsys.readouterr().err == "edgeml: the bowl is empty. Expected porridge. Cook some.\n"


@pytest.mark.parametrize("line", ["--debug try", "try --debug"])
def test_debug_shows_the_trace_wherever_it_stands(
    line: str, verb: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(UsageError("the spoon is too large")))
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("edgeml: the spoon is too large.\n")


def test_a_fault_of_ours_is_called_so(
    verb: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(ZeroDivisionError("division by zero")))
    assert main(["try"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert "--debug" in err
    assert "Traceback" not in err
    with pytest.raises(ZeroDivisionError):
        main(["try", "--debug"])


def test_ctrl_c_is_status_130_and_says_nothing(
    verb: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(KeyboardInterrupt()))
    assert main(["try"]) == 130
    assert capsys.readouterr().err == ""


def test_a_verb_chooses_its_status(verb: Callable[[Callable[[], None]], None]) -> None:
    verb(raising(typer.Exit(1)))
    assert main(["try"]) == 1


@pytest.mark.parametrize("line", [("--help",), ("targets", "--json"), ("toolchain", "list")])
def test_a_reader_that_leaves_early_is_no_error(line: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeml", *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() in (0, 1)


def _commands(app: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each with the words that call it."""
    yield words, app
    for name, command in getattr(app, "commands", {}).items():
        yield from _commands(command, *words, name)


@pytest.mark.parametrize("name", VERBS)
def test_help_says_what_an_option_takes_and_not_its_type(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = typer.main.get_command(import_module(VERBS[name].module).app)
    for words, _ in _commands(verb, name):
        assert main([*words, "--help"]) == 0
        shown = capsys.readouterr().out
        assert not re.findall(r"--\S+ <.*>|^  [a-z_]+ <.*>", shown, re.MULTILINE), shown
