"""Models that are objects: Keras models of a factory, and pickles of torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.exports import SUPPORT, Models
from support.opening import read

from edgeml.errors import SourceError
from edgeml.exporter.child import Child
from edgeml.exporter.sources.forms import ArrayShape

IMAGE = ArrayShape("image", (1, 8, 8), "float32")

PICKLES = """
import sys, torch
from pathlib import Path
import export_torch
folder = Path(sys.argv[1])
torch.save(export_torch.Net(), folder / "whole.pt")
torch.save(export_torch.Net().state_dict(), folder / "weights.pt")
"""


@pytest.fixture(scope="module")
def pickles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the file that has their class."""
    folder = tmp_path_factory.mktemp("pickles")
    (folder / "export_torch.py").write_text((SUPPORT / "export_torch.py").read_text())
    subprocess.run([sys.executable, "-c", PICKLES, str(folder)], check=True, cwd=folder)
    return folder


def test_a_factory_may_return_a_keras_model(
    tensorflow_child: Child, models: Models, tmp_path: Path
):
    opened = read(tensorflow_child, f"{SUPPORT / 'export_keras.py'}:keras_model", tmp_path)
    assert opened.kind == "savedmodel"
    assert opened.title.startswith("Keras 3")
    assert opened.outputs[0].name == "scores"
    assert len(opened.sha256) == 64


def test_a_whole_module_is_unpickled_where_it_is_trusted(
    torch_child: Child, pickles: Path, tmp_path: Path
):
    opened = read(torch_child, str(pickles / "whole.pt"), tmp_path, IMAGE, trust=True)
    assert opened.kind == "torch"
    assert opened.outputs[0].name == "logits"


def test_weights_without_a_module_are_no_model(torch_child: Child, pickles: Path, tmp_path: Path):
    with pytest.raises(SourceError, match=r"weights\.pt holds weights without a model") as caught:
        read(torch_child, str(pickles / "weights.pt"), tmp_path, IMAGE, trust=True)
    assert "FILE.py:FUNCTION" in caught.value.remedy


def test_a_pickle_whose_class_is_not_here(torch_child: Child, pickles: Path, tmp_path: Path):
    elsewhere = tmp_path / "whole.pt"
    content = (pickles / "whole.pt").read_bytes().replace(b"export_torch", b"gone_for_now")
    elsewhere.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(torch_child, str(elsewhere), tmp_path, IMAGE, trust=True)
    assert "FILE.py:FUNCTION" in caught.value.remedy or "damaged" in caught.value.found


def test_a_pickle_that_runs_code_does_not_run_it_unasked(tmp_path: Path):
    """The whole program, as the command line starts it."""
    from support.exports import finish, start

    mark = tmp_path / "it-ran"
    path = tmp_path / "model.joblib"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    outcome = finish(
        start(tmp_path / "tmp", model=str(path), targets=["onnx"], calibration="c.npz")
    )
    assert outcome.status == 2
    assert "a pickle runs any code" in outcome.failure.found
    assert not mark.exists()
