"""Child processes: what they answer, and how they end. Real processes, no framework."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.export_calls import Order
from support.gone import wait_gone

from edgeml.errors import RefusedError, ToolchainError
from edgeml.exporter.children import Children

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
    children = Children(tmp_path / "log.txt", idle_s=1)
    yield children
    children.close()


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    """Children that may hang."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
    children = Children(tmp_path / "log.txt")
    yield children
    children.close()


def test_a_child_answers_and_its_chatter_goes_to_the_log(
    children: Children, capfd: pytest.CaptureFixture[str]
):
    with children.child() as child:
        order = Order("hello", 3)
        assert child.call("support.export_calls:echo", order, Order, step="It") == order
        first = child.pid
        assert child.call("support.export_calls:pid", order, int, step="It") == first
    assert capfd.readouterr() == ("", "")
    assert "chatter of a framework" in children.log.read_text()
    assert "on both streams" in children.log.read_text()
    assert first is not None
    wait_gone(first)


@pytest.mark.parametrize(
    ("function", "order", "told"),
    [
        ("crash", Order(), "The conversion crashed in native code (signal SIGSEGV)"),
        ("killed", Order(), "The conversion was killed, most likely because the machine ran out"),
        ("leave", Order(number=3), "The conversion ended its process with status 3"),
        ("fail", Order("no such layer"), "The conversion failed: ValueError: no such layer"),
        ("exhaust", Order(), "The conversion ran out of memory"),
        ("hang", Order(), "The conversion hangs: it has done nothing for 1 s, and was ended"),
        ("ask", Order(), "The conversion failed: EOFError"),
    ],
)
def test_what_goes_wrong_in_a_child_names_the_step_and_the_next_call_has_a_new_one(
    children: Children, function: str, order: Order, told: str
):
    with children.child() as child:
        with pytest.raises(ToolchainError) as caught:
            child.call(f"support.export_calls:{function}", order, int, step="The conversion")
        assert told in str(caught.value)
        assert child.call("support.export_calls:echo", order, Order, step="It") == order


def test_a_process_that_was_started_ahead_is_the_next_childs(children: Children):
    children.ahead(2)
    with children.child() as child, children.child() as other, children.child() as third:
        assert None not in {child.pid, other.pid}
        assert third.pid is None  # it is started by its first call
        order = Order("hello", 3)
        assert child.call("support.export_calls:pid", order, int, step="It") == child.pid


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Popen cannot ask for a group alone")
def test_a_child_leads_a_group_and_shares_the_session_in_which_it_gives_way(children: Children):
    """Among sessions Linux divides a core evenly, however nice one of them is (autogroup)."""
    with children.child() as child:
        pid = child.call("support.export_calls:pid", Order(), int, step="It")
        assert (os.getpgid(pid), os.getsid(pid)) == (pid, os.getsid(0))
        before = os.getpriority(os.PRIO_PROCESS, pid)
        child.call("edgeml.exporter.child:give_way", None, int, step="It")
        assert os.getpriority(os.PRIO_PROCESS, pid) > before


def test_closing_ends_what_was_started_ahead_and_not_needed(children: Children):
    children.ahead(1)
    (waiting,) = children.waiting
    children.close()
    wait_gone(waiting)


def test_an_error_on_purpose_comes_back_as_itself(children: Children):
    with children.child() as child, pytest.raises(RefusedError) as caught:
        child.call("support.export_calls:refuse", Order("No LSTM."), int, step="It")
    assert str(caught.value) == "No LSTM. Expected something else. Do that."


def test_a_child_that_works_for_long_does_not_hang(children: Children):
    with children.child() as child:
        order = Order(number=7)
        assert child.call("support.export_calls:work", order, int, step="It") == 7


def test_what_a_child_started_ends_with_it(children: Children):
    with children.child() as child:
        other = child.call("support.export_calls:start_another", Order(), int, step="It")
    wait_gone(other)


def test_closing_ends_a_call_under_way_and_no_other_begins(patient: Children):
    children = patient
    failures: list[ToolchainError] = []
    begun = threading.Event()

    def call() -> None:
        with children.child() as child:
            child.call("support.export_calls:pid", Order(), int, step="It")
            begun.set()
            for _ in range(2):
                with pytest.raises(ToolchainError) as caught:
                    child.call("support.export_calls:hang", Order(), int, step="It")
                failures.append(caught.value)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(30)
    children.close()
    thread.join(30)
    assert not thread.is_alive()
    assert "was interrupted" in str(failures[-1])
    with pytest.raises(ToolchainError, match="interrupted"), children.child():
        pass


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path):
    script = (
        "import sys; from pathlib import Path\n"
        "from edgeml.exporter.children import Children\n"
        "from support.export_calls import Order\n"
        f"with Children(Path({str(tmp_path / 'log')!r})).child() as child:\n"
        "    print(child.call('support.export_calls:pid', Order(), int, step=''), flush=True)\n"
        "    child.call('support.export_calls:hang', Order(), int, step='')\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
    )
    assert parent.stdout is not None
    with contextlib.closing(parent.stdout):
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_gone(child)
