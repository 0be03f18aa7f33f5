"""Where the bundle goes and what it is called; which samples become golden."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from edgeml.bundle.parity import clarity
from edgeml.errors import EdgemlError, SourceError, UsageError
from edgeml.exporter.naming import apart, checked_name, destination, model_name
from edgeml.exporter.pack import golden_rows
from edgeml.exporter.plan import plan
from edgeml.exporter.repeat.dependencies import file_hash
from edgeml.exporter.reporting import report
from edgeml.exporter.reporting.drawing import percent
from edgeml.exporter.request import ExportRequest


def test_a_folder_gets_a_file_named_after_the_model(tmp_path: Path):
    assert destination(str(tmp_path), "net", "1.0") == tmp_path / "net-1.0.edgeml"


def test_a_folder_that_is_not_there_yet_is_not_made_before_there_is_a_bundle(tmp_path: Path):
    assert destination(str(tmp_path / "a/b"), "net", "1") == tmp_path / "a/b/net-1.edgeml"
    assert not (tmp_path / "a").exists()


def test_a_file_is_taken_as_it_is(tmp_path: Path):
    assert destination(str(tmp_path / "x.edgeml"), "net", "1") == tmp_path / "x.edgeml"


def test_a_file_of_another_kind_is_no_place_for_a_bundle(tmp_path: Path):
    (tmp_path / "x.txt").touch()
    with pytest.raises(UsageError, match=r"does not end in \.edgeml"):
        destination(str(tmp_path / "x.txt"), "net", "1")


def test_a_new_folder_is_not_called_like_a_file(tmp_path: Path):
    with pytest.raises(UsageError, match=r"ends in \.zip") as caught:
        destination(str(tmp_path / "out.zip"), "net", "1")
    assert caught.value.remedy.endswith(f"{tmp_path}/out.zip/.")
    assert destination(f"{tmp_path}/out.zip/", "net", "1") == tmp_path / "out.zip/net-1.edgeml"
    (tmp_path / "out.zip").mkdir()
    assert destination(str(tmp_path / "out.zip"), "net", "1").parent == tmp_path / "out.zip"
    for folder in ("net-1.2", "net-0.1.0rc1", ".bundles"):
        assert destination(str(tmp_path / folder), "net", "1").parent == tmp_path / folder


def test_a_place_that_cannot_be_written_is_told_before_the_work():
    with pytest.raises(SourceError, match="Nothing can be written to /proc") as caught:
        destination("/proc/out", "net", "1")
    assert "-o" in caught.value.remedy
    assert os.path.isdir("/proc")  # noqa: PTH112


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"report": "pareto.pdf"}, "--report cannot be written to 'pareto.pdf'", r"\.html"),
        ({"report": "gone/pareto.html"}, "no folder .*gone for --report", "exists"),
        ({"report": "/proc/pareto.html"}, "Nothing can be written to /proc", "has room"),
        ({"minimize": "small.txt"}, "--minimize cannot be written to 'small.txt'", r"\.onnx"),
        ({"minimize": "gone/small.onnx"}, "no folder .*gone for --minimize", "exists"),
    ],
)
def test_files_beside_the_bundle_have_a_place_before_the_work(
    change: dict[str, str],
    found: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(b"\x08\x0a")
    np.save("data.npy", np.zeros(2))
    asked = ExportRequest(model="net.onnx", targets=("onnx",), calibration="data.npy", **change)  # type: ignore[arg-type]
    with pytest.raises(EdgemlError, match=found) as caught:
        plan(asked)
    assert re.search(expected, caught.value.expected)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/My Net (final).onnx", "My-Net-final"),
        ("resnet8.h5", "resnet8"),
        ("folder/saved", "saved"),
        ("_.onnx", "model"),
    ],
)
def test_the_name_is_made_from_the_file(path: str, name: str):
    assert model_name("", Path(path)) == name


@pytest.mark.parametrize("text", ["", "a/b", "a b", "-a", "a" * 65, "+"])
def test_a_name_must_fit_a_file_and_a_topic(text: str):
    with pytest.raises(UsageError, match="MQTT topic"):
        checked_name(text, "name")


def test_golden_samples_are_spread_over_the_classes():
    classes = np.array([0] * 50 + [1] * 3 + [2])
    rows = golden_rows(len(classes), classes)
    assert len(rows) == len(set(rows)) == 8
    assert set(classes[rows]) == {0, 1, 2}


def test_golden_samples_are_no_near_ties():
    # Of each class: as good as tied, decided as most are, and decided beyond doubt.
    scores = np.array([[0.51, 0.49], [0.8, 0.2], [1, 0], [0.49, 0.51], [0, 1], [0.25, 0.75]])
    rows = golden_rows(len(scores), scores.argmax(axis=1), clarity(scores), least=2)
    assert rows == [1, 5]


def test_golden_samples_without_classes_are_spread_over_the_set():
    assert golden_rows(8, None) == list(range(8))
    assert golden_rows(3, None) == [0, 1, 2]
    assert golden_rows(100, None)[-1] == 99


def test_the_hash_of_a_folder_sees_names_and_content(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    first = file_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = file_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, file_hash(tmp_path)}) == 3


def test_what_is_written_stands_apart_from_what_is_read(tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    code = tmp_path / "page.html.py"
    code.write_text("def samples(): ...\n")
    (tmp_path / "link.html").symlink_to(code)
    read = {"MODEL": f"{code}:samples", "--calibration": str(photos), "--evaluate": ""}
    with pytest.raises(UsageError, match=f"--report would write into {photos}, which --cal"):
        apart("--report", photos / "cats" / "report.png", read)
    with pytest.raises(UsageError, match=f"--report would write over {code}, which MODEL names"):
        apart("--report", tmp_path / "link.html", read)
    apart("--report", tmp_path / "photos.png", read)


def test_the_ticks_of_a_report_s_picture_are_what_they_say():
    shares = (0.82, 0.8225, 0.825, 0.99995, 1.0, 1.05)
    assert [percent(share) for share in shares] == [
        "82 %",
        "82.25 %",
        "82.5 %",
        "99.995 %",
        "100 %",
        "",
    ]


def test_a_report_takes_its_place_with_the_bundle_and_not_before(tmp_path: Path):
    drawn, place = tmp_path / "drawn.html", tmp_path / "out" / "report.html"
    drawn.write_text("of this export")
    place.parent.mkdir()
    place.write_text("of the one before")
    with pytest.raises(KeyboardInterrupt), report.beside(drawn, place):
        raise KeyboardInterrupt
    assert place.read_text() == "of the one before"
    with report.beside(drawn, place):
        assert place.read_text() == "of the one before"
    assert place.read_text() == "of this export"
    assert list(place.parent.iterdir()) == [place]
    with report.beside(None, place):  # none was asked for
        pass
    place.parent.joinpath("blocked").write_text("a file, no folder")
    with pytest.raises(SourceError, match="could not be written"):
        report.put(drawn, place.parent / "blocked" / "report.html")
