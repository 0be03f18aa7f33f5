"""Users' files: how they are loaded, blamed and iterated over. No framework."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml.bundle.manifest import Tensor
from edgeml.errors import SourceError
from edgeml.exporter.samples.iterables import IterableJob, first_shapes, read
from edgeml.exporter.user_code import load_attribute

X = Tensor(name="x", shape=(1, 2), dtype="float32")

FILE = """
import numpy as np

RAN = __name__ == "__main__"

def build():
    return 1

def broken():
    helper()

def helper():
    raise KeyError("weights")

PAIRS = [(np.ones(2, "float32"), 3), (np.zeros(2, "float32"), 4)]

def batches():
    yield {"x": np.ones((4, 2)), "labels": np.arange(4)}
    yield {"x": np.ones((2, 2)), "labels": np.arange(2)}

def stops():
    yield np.ones(2, "float32")
    raise RuntimeError("disk is gone")

def endless():
    while True:
        yield np.ones((1000, 2), "float32")

def leaves():
    raise SystemExit(3)

once = iter([(np.ones(2, "float32"), 0), (np.zeros(2, "float32"), 1)])
bare = [np.ones((2, 2))]
NUMBER = 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    path = tmp_path / "users_net.py"
    path.write_text(FILE)
    yield path
    sys.modules.pop("users_net", None)


def job(path: Path, attribute: str) -> IterableJob:
    return IterableJob(path=path, attribute=attribute, inputs=(X,), folder=path.parent)


def line_of(text: str) -> int:
    return FILE.splitlines().index(text) + 1


def test_a_file_is_imported_and_not_run(code: Path):
    assert load_attribute(code, "build", "a function")() == 1
    assert load_attribute(code, "RAN", "a flag") is False


def test_a_name_that_is_not_there_says_which_are(code: Path):
    with pytest.raises(SourceError, match="has no 'biuld'") as caught:
        load_attribute(code, "biuld", "a function")
    assert "build, broken, helper" in caught.value.expected
    assert "users_net.py:build" in caught.value.remedy


def test_a_file_that_does_not_compile_is_blamed_at_its_line(tmp_path: Path):
    path = tmp_path / "users_typo.py"
    path.write_text("x = 1\ndef (:\n")
    with pytest.raises(SourceError, match="users_typo.py:2: SyntaxError"):
        load_attribute(path, "build", "a function")


def test_a_missing_import_is_blamed_at_its_line(tmp_path: Path):
    path = tmp_path / "users_import.py"
    path.write_text("\nimport no_such_library\n")
    with pytest.raises(SourceError, match=r"users_import.py:2: ModuleNotFoundError") as caught:
        load_attribute(path, "build", "a function")
    assert "--python PATH" in caught.value.remedy


def test_samples_with_labels_are_read(code: Path):
    assert read(job(code, "PAIRS")).count == 2
    assert np.load(code.parent / "0.npy").tolist() == [[1, 1], [0, 0]]
    assert np.load(code.parent / "labels.npy").tolist() == [3, 4]


def test_batches_of_a_function_are_read(code: Path):
    assert read(job(code, "batches")).count == 6
    assert np.load(code.parent / "0.npy").dtype == np.float32


def test_an_iterable_that_never_ends_is_read_so_far(code: Path):
    assert read(job(code, "endless")).count == 20_000


def test_an_error_while_iterating_is_blamed_at_its_line(code: Path):
    line = line_of('    raise RuntimeError("disk is gone")')
    with pytest.raises(SourceError, match=f"users_net.py:{line}: RuntimeError: disk is gone"):
        read(job(code, "stops"))


def test_an_error_of_a_function_is_blamed_at_its_last_line_in_the_file(code: Path):
    line = line_of('    raise KeyError("weights")')
    with pytest.raises(SourceError, match=f"users_net.py:{line}: KeyError: 'weights'"):
        read(job(code, "broken"))


def test_code_that_exits_is_told(code: Path):
    with pytest.raises(SourceError, match=r"it called exit\(3\)"):
        read(job(code, "leaves"))


def test_what_cannot_be_iterated_over_is_told(code: Path):
    with pytest.raises(SourceError, match="is of type int"):
        read(job(code, "NUMBER"))


def test_a_label_tells_samples_from_batches(code: Path):
    assert first_shapes(code, "PAIRS", ("x",))[0].shape == (2,)
    assert first_shapes(code, "batches", ("x",))[0].shape == (2,)


def test_a_generator_that_was_looked_at_loses_nothing(code: Path):
    assert first_shapes(code, "once", ("x",))[0].shape == (2,)
    assert read(job(code, "once")).count == 2


def test_what_may_be_samples_or_batches_is_not_guessed(code: Path):
    with pytest.raises(SourceError, match="may be samples or batches") as caught:
        first_shapes(code, "bare", ("x",))
    assert "example inputs" in caught.value.expected
