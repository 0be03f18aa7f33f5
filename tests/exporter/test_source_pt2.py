"""``.pt2`` files that are odd or wrong: what is in them is told, and no code in them runs."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.exports import Models
from support.opening import read

from edgeml.errors import SourceError
from edgeml.exporter.child import Child
from edgeml.exporter.sources.forms import ArrayShape


def rewritten(given: Path, path: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a ``.pt2`` with another content of the member whose name ends so."""
    with zipfile.ZipFile(given) as archive, zipfile.ZipFile(path, "w") as made:
        for name in archive.namelist():
            content = archive.read(name)
            made.writestr(name, change(content) if name.endswith(member) else content)
    return path


def test_a_pickle_among_the_sample_inputs_is_not_opened(
    torch_child: Child, models: Models, tmp_path: Path
):
    """torch unpickles them whatever they are, where they are no tensors."""
    mark = tmp_path / "it-ran"
    pickle = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    path = rewritten(
        models.torch / "net.pt2",
        tmp_path / "net.pt2",
        "sample_inputs/model.pt",
        lambda _: pickle,
    )
    with pytest.raises(SourceError, match=r"holds a pickle that asks for os\.system") as caught:
        read(torch_child, str(path), tmp_path)
    assert "runs any code" in caught.value.found
    assert "FILE.py:FUNCTION" in caught.value.remedy
    assert not mark.exists()


@pytest.mark.parametrize(
    ("old", "new", "found", "remedy"),
    [
        (b"aten.relu.default", b"acme.sharpen.default", "is acme::sharpen.default", "torch's own"),
        (b'"major": 8', b'"major": 99', "was written by torch 99.1.0", "--python"),
    ],
    ids=["operator", "version"],
)
def test_what_this_torch_does_not_read_is_told(
    torch_child: Child,
    models: Models,
    tmp_path: Path,
    old: bytes,
    new: bytes,
    found: str,
    remedy: str,
):
    def change(graph: bytes) -> bytes:
        assert old in graph
        graph = graph.replace(old, new)
        return graph.replace(b'"torch_version": "2', b'"torch_version": "99.1.0 after 2')

    path = rewritten(models.torch / "net.pt2", tmp_path / "net.pt2", "models/model.json", change)
    with pytest.raises(SourceError) as caught:
        read(torch_child, str(path), tmp_path)
    assert found in caught.value.found
    assert remedy in caught.value.remedy


def test_a_length_that_a_program_does_not_take_is_named(
    torch_child: Child, models: Models, tmp_path: Path
):
    short = ArrayShape("signal", (3, 2), "float32")
    with pytest.raises(SourceError, match=r"does not take signal \[1, 3, 2\]: ") as caught:
        read(torch_child, str(models.torch / "along.pt2"), tmp_path, short)
    assert "of lengths that it takes" in caught.value.remedy
