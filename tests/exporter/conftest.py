"""Real exports in real processes. The models are made once a run, each framework in a process of
its own: the tests' process imports none of them."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.exports import SUPPORT, Export, Models, Outcome, finish, start

from edgeml.exporter.child import Child
from edgeml.exporter.children import Children


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Made by the first of all processes that run tests."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "models"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _make_models(folder.with_suffix(".begun"))
            folder.with_suffix(".begun").rename(folder)
    os.environ["EXPORT_TEST_FOLDER"] = str(folder / "torch")
    return Models(folder / "torch", folder / "keras")


def _make_models(folder: Path) -> None:
    makers = [
        subprocess.Popen(
            [sys.executable, str(SUPPORT / f"export_{name}.py"), str(folder / name)],
            stderr=subprocess.PIPE,
        )
        for name in ("torch", "keras")
    ]
    for maker in makers:
        _, chatter = maker.communicate()
        assert maker.returncode == 0, chatter.decode()[-3000:]


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Runs an export to its end: ``export(model=…, targets=[…], …)``. It leaves nothing behind."""

    def run(**request: object) -> Outcome:
        temporary = tmp_path_factory.mktemp("export") / "tmp"
        outcome = finish(start(temporary, **request))
        assert list(temporary.iterdir()) == []
        return outcome

    return run


@pytest.fixture(scope="session")
def torch_child(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A child that keeps torch, for the many things that a user's file can do wrong."""
    with Children(tmp_path_factory.mktemp("log") / "torch.txt").child() as child:
        yield child


@pytest.fixture(scope="session")
def tensorflow_child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """Likewise with TensorFlow."""
    with Children(tmp_path_factory.mktemp("log") / "tensorflow.txt").child() as child:
        yield child
