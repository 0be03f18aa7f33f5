"""Children that are copies of a process which has imported something already. Real processes."""

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

from edgeml.errors import ToolchainError
from edgeml.exporter.children import Children
from edgeml.exporter.origin import possible
from edgeml.exporter.repeat.dependencies import read_record

TESTS = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not possible(), reason="frameworks survive a fork on Linux alone")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of modules that can be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "slow_library.py").write_text("import os\nimported_by = os.getpid()\nstate = 0\n")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{folder}", prepend=os.pathsep)
    return folder


@pytest.fixture
def children(tmp_path: Path, folder: Path) -> Iterator[Children]:
    made = Children(tmp_path / "log.txt", record=tmp_path / "read.txt", idle_s=1)
    made.foresee("library", ["slow_library"])
    yield made
    made.close()


def look(child: object, text: str) -> int:
    return child.call("support.export_calls:look", Order(text), int, step="It")  # type: ignore[attr-defined]


def test_what_was_foreseen_is_imported_once_and_each_child_has_it_for_itself(children: Children):
    with children.child("library") as one, children.child("library") as other:
        imported = [look(each, "slow_library.imported_by") for each in (one, other)]
        assert imported[0] == imported[1] not in {one.pid, other.pid, os.getpid()}
        assert one.pid != other.pid
        assert look(one, "vars(slow_library).update(state=7) or slow_library.state") == 7
        assert look(other, "slow_library.state") == 0


def test_a_copy_leads_a_group_and_holds_nobodys_pipe_but_its_own(children: Children):
    with children.child("library") as one, children.child("library") as other:
        assert look(one, "os.getpgid(0)") == look(one, "os.getpid()") == one.pid
        pipes = "len([1 for n in os.listdir('/proc/self/fd') if n.isdigit() and int(n) > 2 and "
        pipes += "os.path.exists(f'/proc/self/fd/{n}') and "
        pipes += "os.readlink(f'/proc/self/fd/{n}').startswith('pipe:')])"
        assert look(one, pipes) == look(other, pipes) == 2


def test_who_did_not_ask_for_it_gets_a_process_that_has_imported_nothing(children: Children):
    with children.child() as plain, children.child("another") as another:
        for child in (plain, another):
            assert look(child, "'slow_library' in sys.modules") == 0


def test_what_a_copy_reads_is_noted_like_any_other_childs(children: Children, tmp_path: Path):
    (tmp_path / "weights.bin").write_text("1")
    with children.child("library") as child:
        look(child, f"len(open({str(tmp_path / 'weights.bin')!r}).read())")
    read = {Path(each).name for each in read_record(tmp_path / "read.txt")}
    assert {"weights.bin", "slow_library.py"} <= read


@pytest.mark.parametrize(
    ("function", "order", "told"),
    [
        ("crash", Order(), "The conversion crashed in native code (signal SIGSEGV)"),
        ("killed", Order(), "The conversion was killed, most likely because the machine ran out"),
        ("leave", Order(number=3), "The conversion ended its process with status 3"),
        ("fail", Order("no such layer"), "The conversion failed: ValueError: no such layer"),
        ("hang", Order(), "The conversion hangs: it has done nothing for 1 s, and was ended"),
    ],
)
def test_what_goes_wrong_in_a_copy_names_the_step_and_the_next_call_has_a_new_one(
    children: Children, function: str, order: Order, told: str
):
    with children.child("library") as child:
        with pytest.raises(ToolchainError) as caught:
            child.call(f"support.export_calls:{function}", order, int, step="The conversion")
        assert told in str(caught.value)
        assert look(child, "slow_library.state") == 0
        assert look(child, "slow_library.imported_by") != child.pid


def test_where_the_original_has_died_a_child_begins_with_nothing(children: Children):
    with children.child("library") as child:
        original = look(child, "slow_library.imported_by")
        os.kill(original, signal.SIGKILL)
        assert child.pid is not None
        wait_gone(child.pid)
        with pytest.raises(ToolchainError, match="was killed"):
            look(child, "0")
        assert look(child, "slow_library.imported_by") == child.pid


def test_closing_does_not_wait_for_an_import_nor_for_who_waits_for_it(tmp_path: Path, folder: Path):
    (folder / "endless.py").write_text("import signal\nsignal.pause()\n")
    children = Children(tmp_path / "log.txt")
    children.foresee("endless", ["endless"])
    failures: list[ToolchainError] = []

    def call() -> None:
        with children.child("endless") as child:
            begun.set()
            try:
                look(child, "1")
            except ToolchainError as error:
                failures.append(error)

    begun = threading.Event()
    waiting = threading.Thread(target=call)
    waiting.start()
    assert begun.wait(30)
    children.close()
    waiting.join(30)
    assert not waiting.is_alive()
    assert "interrupted" in str(failures[0])


def test_copies_and_what_they_started_end_when_all_is_closed(children: Children):
    with children.child("library") as child:
        original = look(child, "slow_library.imported_by")
        other = child.call("support.export_calls:start_another", Order(), int, step="It")
        copy = child.pid
        children.close()
    assert copy is not None
    for pid in (copy, other, original):
        wait_gone(pid)


@pytest.mark.usefixtures("folder")
def test_copies_die_with_a_parent_that_is_killed(tmp_path: Path):
    script = (
        "import sys; from pathlib import Path\n"
        "from edgeml.exporter.children import Children\n"
        "from support.export_calls import Order\n"
        f"children = Children(Path({str(tmp_path / 'log')!r}))\n"
        "children.foresee('library', ['slow_library'])\n"
        "with children.child('library') as child:\n"
        "    print(child.call('support.export_calls:pid', Order(), int, step=''), flush=True)\n"
        "    child.call('support.export_calls:hang', Order(), int, step='')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    wait_gone(child)
