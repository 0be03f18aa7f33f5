"""How an export's events become stages, a table, a document and an exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from edgeml.bundle import Certificate
from edgeml.cli import main, shared
from edgeml.cli.export_options import spread_targets
from edgeml.cli.export_view import Result, StageView
from edgeml.errors import SourceError
from edgeml.exporter.events import (
    AnyEvent,
    Done,
    Failure,
    Note,
    Progress,
    Refusal,
    Row,
    Stage,
    Started,
    decode_event,
    encode_event,
)
from edgeml.exporter.request import ExportRequest, Limits, ToleranceOverride
from edgeml.targets import devices
from edgeml.targets.registry import TARGETS

ROWS = (
    Row(
        target="tflite",
        precision="fp32",
        bytes=65_800,
        passed=True,
        chosen=False,
        cosine=1.0,
        max_abs=6e-6,
        accuracy=0.992,
        p50_ms=0.023,
        p99_ms=0.077,
        peak_rss_mb=53,
    ),
    Row(
        target="tflite",
        precision="int8",
        bytes=23_000,
        passed=True,
        chosen=True,
        cosine=0.99995,
        max_abs=0.2,
        accuracy=0.994,
        p50_ms=0.018,
        p99_ms=0.044,
        peak_rss_mb=52,
    ),
    Row(
        target="tensorrt",
        precision="int8",
        bytes=34_000,
        passed=True,
        chosen=True,
        cosine=0.9999,
        max_abs=0.2,
        note="not measured: no such device here",
    ),
)
REFUSED = Refusal(target="openvino", reason="It has no operator Foo.", remedy="Use Bar.")
DONE = Done(bundle="/tmp/m.edgeml", name="m", version="1", bytes=99_000, source_accuracy=0.99)


def result(*events: AnyEvent) -> Result:
    """What some events came to, after the trip over the pipe."""
    gathered = Result()
    for event in events:
        gathered.take(decode_event(encode_event(event)))
    return gathered


def test_the_document_has_a_row_an_artifact_with_the_fields_promised() -> None:
    document = json.loads(json.dumps(result(Started(log="/log"), *ROWS, DONE).document()))
    assert document["bundle"] == "/tmp/m.edgeml"
    assert document["refused"] == []
    promised = "target precision bytes p50_ms p99_ms peak_rss_mb cosine max_abs accuracy chosen"
    for row in document["artifacts"]:
        assert set(promised.split()) <= set(row)
    assert [row["chosen"] for row in document["artifacts"]] == [False, True, True]
    assert document["artifacts"][2]["p50_ms"] is None


def test_all_made_is_status_0() -> None:
    assert result(*ROWS, DONE).status == 0


def test_one_refused_is_status_1_and_stands_in_both_forms(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = Done(bundle="/tmp/m.edgeml", name="m", version="1", bytes=1, status=1)
    gathered = result(*ROWS, REFUSED, done)
    assert gathered.status == 1
    (refused,) = gathered.document()["refused"]
    assert refused["target"] == "openvino"
    assert refused["reason"]
    assert refused["remedy"]
    gathered.write_table()
    assert "openvino was refused: It has no operator Foo. Use Bar." in capsys.readouterr().out


def test_the_table_shows_every_artifact_and_which_was_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result(*ROWS, DONE).write_table()
    lines = capsys.readouterr().out.splitlines()
    fp32 = next(line for line in lines if "tflite" in line and "fp32" in line)
    int8 = next(line for line in lines if "tflite" in line and "int8" in line)
    assert "✓" not in fp32
    assert "✓" in int8
    assert "23.0 kB" in int8
    assert "0.99995" in int8
    assert any("not measured" in line for line in lines)
    assert "/tmp/m.edgeml" in lines[-1]


def test_the_table_of_a_narrow_terminal_keeps_its_figures_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shared, "PIPE_COLUMNS", 80)
    result(*ROWS, DONE).write_table()
    printed = capsys.readouterr().out
    int8 = next(line for line in printed.splitlines() if "int8" in line)
    assert all(figure in int8 for figure in ("tflite", "23.0 kB", "0.99995", "0.018", "52", "✓"))
    assert "Left out, since the terminal is narrow: max abs, p99 ms" in printed


def test_an_artifact_that_failed_its_check_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row(
        target="onnx",
        precision="int8",
        bytes=1,
        passed=False,
        chosen=False,
        cosine=0.4,
        max_abs=9.0,
        note="cosine 0.4 is below 0.99",
    )
    failure = Failure(error="SourceError", found="onnx failed its check", log="/a/log")
    gathered = result(row, failure)
    gathered.write_table()
    assert "failed its check" in capsys.readouterr().out
    assert gathered.status == 1
    assert gathered.document()["bundle"] is None
    assert "onnx failed its check" in gathered.document()["error"]


def test_a_failure_becomes_the_error_that_it_was_with_the_log() -> None:
    failure = Failure(error="SourceError", found="It is cut off", log="/a/log", status=2)
    error = result(failure).error
    assert isinstance(error, SourceError)
    assert error.exit_code == 2
    assert str(error) == "It is cut off. The log is /a/log."


def test_a_fault_of_ours_is_an_error_too() -> None:
    error = result(Failure(error="Exception", found="a fault")).error
    assert error is not None
    assert error.exit_code == 1


def test_every_stage_shows_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with StageView() as view:
        view.show(Started(log="/log"))
        view.show(Stage(name="compile", title="Converting", steps=2))
        view.show(Progress(text="tflite int8", step=1))
        view.show(Note(text="slow here", target="onnx", precision="int8"))
        view.show(Stage(name="pack", title="Packing"))
        view.show(DONE)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "✓ Converting" in captured.err
    assert "note: onnx int8: slow here" in captured.err
    assert "✓ Packing" in captured.err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("m -t onnx", "m -t onnx"),
        ("m -t tflite openvino onnx", "m -t tflite -t openvino -t onnx"),
        ("m -t tflite,onnx", "m -t tflite -t onnx"),
        ("-t tflite openvino m.pt2 --json", "-t tflite -t openvino m.pt2 --json"),
        ("-t tflite m.pt2 onnx", "-t tflite m.pt2 onnx"),
        ("--target tflite -o out", "--target tflite -o out"),
    ],
)
def test_targets_may_follow_one_another(line: str, expected: str) -> None:
    assert spread_targets(line.split(), TARGETS) == expected.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("m.pt2 -t onnx --precision int4", ("int4", "auto, fp32, fp16, int8, int8-dynamic")),
        ("m.pt2 -t onnx --tolerance int8:cosine=7", ("tolerance", "cosine")),
        ("m.pt2 -t onnx --deadline-ms 0", ("--deadline-ms is 0", "more than nothing")),
        ("m.pt2 -t onnx --deadline-ms nan", ("--deadline-ms is nan",)),
        ("m.pt2 -t onnx --memory-mb -64", ("--memory-mb is -64",)),
        ("m.pt2 -t onnx --max-latency 0ms", ("--max-latency is 0",)),
        ("m.pt2 -t onnx --max-memory 0MB", ("--max-memory is 0",)),
        ("m.pt2 -t onnx --max-size 0kB", ("--max-size is 0",)),
    ],
)
def test_wrong_options_are_refused_before_anything_heavy(
    line: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *line.split()]) == 2
    err = capsys.readouterr().err
    assert all(word in err for word in words), err


def test_every_flag_fills_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ExportRequest] = []

    def record(request: ExportRequest, **_: object) -> Result:
        asked.append(request)
        return result(DONE)

    monkeypatch.setattr("edgeml.cli.export.run_export", record)
    line = (
        "m.pt2 -t tflite onnx --calibration c.npz --evaluate e.npz --preprocess p.toml --seed 3 "
        "--precision mixed --max-accuracy-drop 1% --max-latency 20ms --max-memory 64MB "
        "--max-size 2MB --metric auc --confidence .9 --tolerance int8:cosine=.5 "
        "--shape image=1,3,32,32 --shape x=1,4 --python /usr/bin/python3 --trust "
        "--minimize small.onnx --name n --version 2 -o out --deadline-ms 20 --memory-mb 100 "
        "--report r.html --no-cache"
    )
    assert main(["export", *line.split()]) == 0
    assert asked == [
        ExportRequest(
            model="m.pt2",
            targets=("tflite", "onnx"),
            calibration="c.npz",
            evaluation="e.npz",
            preprocessing="p.toml",
            seed=3,
            precision="mixed",
            limits=Limits(accuracy_drop=0.01, latency_ms=20, memory_mb=64, size_bytes=2_000_000),
            metric="auc",
            confidence=0.9,
            tolerances={"int8": ToleranceOverride(cosine=0.5)},
            shapes={"image": (1, 3, 32, 32), "x": (1, 4)},
            python="/usr/bin/python3",
            trust=True,
            minimize="small.onnx",
            name="n",
            version="2",
            output="out",
            deadline_ms=20,
            memory_mb=100,
            report="r.html",
            cache=False,
        )
    ]


def test_the_help_is_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert heads == [
        "Arguments:",
        "Options:",
        "Samples:",
        "What to choose:",
        "The model:",
        "The bundle:",
        "Output:",
    ]


def test_a_device_stands_for_its_targets_and_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ExportRequest] = []

    def record(request: ExportRequest, **_: object) -> Result:
        asked.append(request)
        return result(DONE)

    monkeypatch.setattr("edgeml.cli.export.run_export", record)
    assert main(["export", "m.pt2", "-t", "raspberry-pi-4", "onnx", "--deadline-ms", "7"]) == 0
    profile = devices.profile("raspberry-pi-4")
    assert asked[0].devices == ("raspberry-pi-4",)
    assert set(asked[0].targets) == {*profile.targets, "onnx"}
    assert asked[0].deadline_ms == 7
    assert asked[0].memory_mb == profile.budgets.memory_mb


def test_a_row_says_what_it_is_over_and_a_chosen_one_what_is_certain(
    capsys: pytest.CaptureFixture[str],
) -> None:
    certificate = Certificate(
        metric="top-1",
        drop=0.01,
        confidence=0.95,
        samples=1240,
        method="betting",
        population=5000,
        beyond=0.019,
    )
    rows = (
        msgspec.structs.replace(
            ROWS[0], chosen=False, missed=("latency 23.4 ms (at most 20 ms)",), front=True
        ),
        msgspec.structs.replace(
            ROWS[1],
            precision="mixed",
            float_layers=("conv_1", "conv_2"),
            certificate=certificate,
            metric="top-1",
        ),
    )
    gathered = result(*rows, DONE)
    gathered.write_table()
    out = capsys.readouterr().out
    assert "over: latency" in out
    assert "mixed (2 float)" in out
    assert "drop at most 1 point with 95 % confidence, 1,240 of 5,000 samples" in out
    (_, mixed) = json.loads(json.dumps(gathered.document()))["artifacts"]
    assert mixed["certificate"]["samples"] == 1240
    assert mixed["float_layers"] == ["conv_1", "conv_2"]


def test_events_are_documents_a_line_in_place_of_the_table(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def stream(request: object, **_: object) -> Iterator[AnyEvent]:
        yield from (Started(log="/log"), *ROWS, DONE)

    monkeypatch.setattr("edgeml.api.hopping.stream_export", stream)
    assert main(["export", "m.pt2", "-t", "tflite", "--events"]) == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert [decode_event(line) for line in lines] == [Started(log="/log"), *ROWS, DONE]
