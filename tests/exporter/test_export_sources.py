"""What can be wrong with a model, at the stage that reads it. The children keep their framework."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.exports import USERS_FILE, Models
from support.opening import read

from edgeml.errors import EdgemlError, SourceError, ToolchainError
from edgeml.exporter.child import Child
from edgeml.exporter.sources.forms import ArrayShape, OpenJob

IMAGE = ArrayShape("image", (1, 8, 8), "float32")


def line_of(text: str) -> int:
    return USERS_FILE.read_text().splitlines().index(text) + 1


@pytest.mark.parametrize(
    ("factory", "found", "expected"),
    [
        ("trainde", "has no 'trainde'", "an nn.Module"),
        ("number", "export_torch.py:number returns int", "an nn.Module, or a pair"),
        ("state", "returns OrderedDict", "an nn.Module, or a pair"),
        ("needs", "cannot be called without arguments", "a function that needs none"),
        ("CLASSES", "is of type int", "a function"),
    ],
)
def test_a_factory_that_is_none(
    torch_child: Child, models: Models, tmp_path: Path, factory: str, found: str, expected: str
):
    with pytest.raises(SourceError) as caught:
        read(torch_child, models.factory(factory), tmp_path, IMAGE)
    assert found in caught.value.found
    assert expected in caught.value.expected


@pytest.mark.parametrize(
    ("factory", "line", "text"),
    [
        ("raises", '    return {}["weights"]', "KeyError: 'weights'"),
        ("wrong", '        raise ValueError("the image must be square")', "must be square"),
        ("branching", "        if image.sum() > 0:", "torch.export cannot trace the module"),
    ],
)
def test_an_error_of_the_users_code_is_told_with_its_line(
    torch_child: Child, models: Models, tmp_path: Path, factory: str, line: str, text: str
):
    with pytest.raises(SourceError) as caught:
        read(torch_child, models.factory(factory), tmp_path, IMAGE)
    assert caught.value.found.startswith(f"{USERS_FILE}:{line_of(line)}: ")
    assert text in caught.value.found


def test_a_factory_whose_process_dies_is_told(torch_child: Child, models: Models, tmp_path: Path):
    with pytest.raises(ToolchainError, match="Reading export_torch.py was killed"):
        read(torch_child, models.factory("dies"), tmp_path, IMAGE)


def test_data_with_another_name_than_forwards_parameter(
    torch_child: Child, models: Models, tmp_path: Path
):
    with pytest.raises(SourceError, match="The data has the arrays 'picture'") as caught:
        read(torch_child, models.factory("trained"), tmp_path, ArrayShape("picture", (3,), "f4"))
    assert "'image'" in caught.value.expected


def test_data_of_another_shape_than_forward_takes(
    torch_child: Child, models: Models, tmp_path: Path
):
    shape = ArrayShape("image", (3, 8, 8), "float32")
    with pytest.raises(SourceError, match=r"the module fails on image \[1, 3, 8, 8\]"):
        read(torch_child, models.factory("trained"), tmp_path, shape)


def test_shapes_are_not_guessed(torch_child: Child, models: Models, tmp_path: Path):
    with pytest.raises(SourceError, match="The shapes of the inputs .* are not known"):
        read(torch_child, models.factory("trained"), tmp_path)


def test_example_inputs_give_shapes_and_their_batch_does_not_matter(
    torch_child: Child, models: Models, tmp_path: Path
):
    opened = read(torch_child, models.factory("with_examples"), tmp_path)
    assert opened.inputs[0].shape == (1, 1, 8, 8)


def test_inputs_are_named_after_forwards_parameters_and_outputs_by_number(
    torch_child: Child, models: Models, tmp_path: Path
):
    opened = read(torch_child, models.factory("two"), tmp_path)
    assert [tensor.name for tensor in opened.inputs] == ["left", "right"]
    assert [(tensor.name, tensor.shape) for tensor in opened.outputs] == [("output_0", (1, 2, 4))]


def test_shapes_from_code_that_gives_labels(torch_child: Child, models: Models, tmp_path: Path):
    opened = read(
        torch_child, models.factory("trained"), tmp_path, iterable=(USERS_FILE, "samples")
    )
    assert opened.inputs[0].shape == (1, 1, 8, 8)


def test_an_open_batch_axis_of_a_program_becomes_one(
    torch_child: Child, models: Models, tmp_path: Path
):
    opened = read(torch_child, str(models.torch / "net.pt2"), tmp_path)
    assert opened.inputs[0].shape == (1, 1, 8, 8)
    assert opened.outputs[0].name == "logits"


def test_the_same_weights_have_the_same_hash(torch_child: Child, models: Models, tmp_path: Path):
    (tmp_path / "again").mkdir()
    one = read(torch_child, models.factory("trained"), tmp_path, IMAGE)
    two = read(torch_child, models.factory("with_examples"), tmp_path / "again")
    assert one.sha256 == two.sha256 != ""


def zip_of_something_else(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


def test_an_archive_that_is_no_program(torch_child: Child, tmp_path: Path):
    zip_of_something_else(tmp_path / "net.pt2")
    with pytest.raises(SourceError, match="damaged, or something else") as caught:
        read(torch_child, str(tmp_path / "net.pt2"), tmp_path)
    assert "torch.export.save" in caught.value.expected


def cut(source: Path, path: Path) -> None:
    path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])


def without_variables(source: Path, path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").write_bytes((source / "saved_model.pb").read_bytes())


def other_pb(source: Path, path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"not a protocol buffer")


def empty_pb(_: Path, path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").touch()


def cut_variables(source: Path, path: Path) -> None:
    shutil.copytree(source, path)
    member = "variables/variables.data-00000-of-00001"
    cut(source / member, path / member)


def cut_pb(source: Path, path: Path) -> None:
    shutil.copytree(source, path)
    cut(source / "saved_model.pb", path / "saved_model.pb")


@pytest.mark.parametrize(
    ("name", "made_from", "spoil"),
    [
        ("net.h5", "old.h5", cut),
        ("net.keras", "net.keras", lambda _, path: zip_of_something_else(path)),
        ("saved", "saved", without_variables),
        ("saved", "saved", other_pb),
        ("saved", "saved", cut_pb),
        ("saved", "saved", empty_pb),
        ("saved", "saved", cut_variables),
    ],
    ids=[
        "h5 cut short",
        "keras of something else",
        "no variables",
        "no protocol buffer",
        "protocol buffer cut short",
        "empty protocol buffer",
        "variables cut short",
    ],
)
def test_a_damaged_keras_model(
    tensorflow_child: Child,
    models: Models,
    tmp_path: Path,
    name: str,
    made_from: str,
    spoil: Callable[[Path, Path], None],
):
    spoil(models.keras / made_from, tmp_path / name)
    with pytest.raises(SourceError, match="damaged, or something else") as caught:
        read(tensorflow_child, str(tmp_path / name), tmp_path)
    assert caught.value.remedy
    assert "served" not in caught.value.found  # no folder of ours


def test_an_onnx_model_that_is_not_valid(models: Models, tmp_path: Path):
    import onnx

    from edgeml.exporter.sources import onnx_source

    model = onnx.load(models.torch / "net.onnx")
    del model.graph.node[0]
    onnx.save(model, tmp_path / "net.onnx")
    job = OpenJob(form="onnx", path=tmp_path / "net.onnx", attribute="", workdir=tmp_path)
    with pytest.raises(EdgemlError, match="damaged, or something else") as caught:
        onnx_source.open_source(job)
    assert "a valid ONNX model" in caught.value.expected
