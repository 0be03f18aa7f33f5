"""Real exports in real processes. The models are made once a run, each framework in a process of
its own: the tests' process imports none of them."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.exports import SUPPORT, Export, Models, Outcome, finish, start

from edgeml.exporter.child import Child, Children


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    found = Models(folder / "torch", folder / "keras")
    makers = [
        subprocess.Popen([sys.executable, str(SUPPORT / script), str(into)], stderr=subprocess.PIPE)
        for script, into in (("export_torch.py", found.torch), ("export_keras.py", found.keras))
    ]
    for maker in makers:
        _, chatter = maker.communicate()
        assert maker.returncode == 0, chatter.decode()[-3000:]
    os.environ["EXPORT_TEST_FOLDER"] = str(found.torch)
    return found


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
