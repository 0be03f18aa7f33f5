"""MODEL: its forms, and what is refused at the first look."""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml.errors import SourceError, UsageError
from edgeml.exporter.sources.forms import parse_model


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")


@pytest.mark.parametrize(
    ("name", "write", "form", "kind"),
    [
        ("net.pt2", archive, "pt2", "torch"),
        ("net.keras", archive, "keras", "savedmodel"),
        ("net.h5", lambda path: path.write_bytes(b"\x89HDF\r\n"), "h5", "savedmodel"),
        ("net.onnx", lambda path: path.write_bytes(b"\x08\x0a"), "onnx", "onnx"),
        ("net.tflite", lambda path: path.write_bytes(b"\x1c\0\0\0TFL3"), "tflite", "tflite"),
        ("trees.json", lambda path: path.write_bytes(b'{"learner":'), "xgboost", "classical"),
        ("trees.ubj", lambda path: path.write_bytes(b"{L\0\0"), "xgboost", "classical"),
        ("trees.txt", lambda path: path.write_bytes(b"tree\nversion"), "lightgbm", "classical"),
    ],
)
def test_a_file_is_told_by_its_suffix(
    tmp_path: Path, name: str, write: Callable[[Path], object], form: str, kind: str
):
    write(tmp_path / name)
    source = parse_model(str(tmp_path / name))
    assert (source.form, source.kind) == (form, kind)


@pytest.mark.parametrize(
    ("name", "form", "around"),
    [
        ("model.joblib", "pickle", "save_model('….json')"),
        ("model.pkl", "pickle", "save_model('….json')"),
        ("model.pickle", "pickle", "save_model('….json')"),
        ("model.pt", "torch-pickle", "FILE.py:FUNCTION"),
        ("model.pth", "torch-pickle", "FILE.py:FUNCTION"),
    ],
)
def test_a_pickle_is_opened_only_on_the_users_word(
    tmp_path: Path, name: str, form: str, around: str
):
    path = tmp_path / name
    path.write_bytes(b"\x80\x04")
    with pytest.raises(UsageError, match="is a pickle, and a pickle runs any code") as caught:
        parse_model(str(path))
    assert "--trust" in caught.value.remedy
    assert around in caught.value.remedy
    assert parse_model(str(path), trust=True).form == form


def test_torchscript_is_refused_with_what_to_give_instead(tmp_path: Path):
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/code/__torch__.py", "")
    with pytest.raises(UsageError, match="is TorchScript") as caught:
        parse_model(str(path), trust=True)
    assert ".pt2" in caught.value.remedy


def test_a_factory_is_a_file_and_a_name(tmp_path: Path):
    path = tmp_path / "net.py"
    path.touch()
    source = parse_model(f"{path}:build")
    assert (source.form, source.path, source.attribute) == ("factory", path, "build")


def test_an_interpreter_is_for_a_factory_and_exists(tmp_path: Path):
    path = tmp_path / "net.py"
    path.touch()
    source = parse_model(f"{path}:build", python=sys.executable)
    assert source.opener.endswith("foreign")
    with pytest.raises(SourceError, match="There is no gone/python"):
        parse_model(f"{path}:build", python="gone/python")
    with pytest.raises(UsageError, match="--python was given, and net.onnx is no code"):
        parse_model("net.onnx", python=sys.executable)
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a")
    beside = parse_model(str(tmp_path / "net.onnx"), python=sys.executable, of_samples=True)
    assert (beside.form, beside.python) == ("onnx", "")


def test_a_saved_model_is_a_folder(tmp_path: Path):
    (tmp_path / "saved_model.pb").touch()
    assert parse_model(str(tmp_path)).form == "savedmodel"


def test_a_folder_that_is_no_saved_model_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match=r"holds no saved_model\.pb"):
        parse_model(str(tmp_path))


@pytest.mark.parametrize(
    "text", ["net.pt2", "net.onnx", "net.keras", "net.h5", "net.py:build", "net"]
)
def test_a_model_that_is_not_there(text: str):
    with pytest.raises(SourceError, match="There is no") as caught:
        parse_model(text)
    assert "Check the path" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["net.pt2", "net.onnx", "net.keras", "net.h5", "net.tflite", "trees.json", "trees.txt"]
)
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"], ids=["empty", "a web page"])
def test_a_file_that_is_something_else(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="cut short, damaged") as caught:
        parse_model(str(tmp_path / name))
    assert f"{len(content):,} bytes" in caught.value.found
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["net.pt2", "net.keras"])
def test_an_archive_that_was_cut_short(tmp_path: Path, name: str):
    path = tmp_path / name
    archive(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceError, match="cut short, damaged"):
        parse_model(str(path))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("net.py", "model.py:build"),
        ("net.ckpt", "FILE.py:FUNCTION"),
        ("net.safetensors", "FILE.py:FUNCTION"),
    ],
)
def test_a_suffix_that_is_none_says_what_to_do(text: str, hint: str):
    with pytest.raises(UsageError, match="is no form of model") as caught:
        parse_model(text)
    assert hint in caught.value.remedy
