"""Models that are odd or wrong: each works, or is refused with what was found and what to do."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.exports import Export
from support.opening import read

from edgeml.errors import SourceError
from edgeml.exporter.children import Children
from edgeml.exporter.events import Started
from edgeml.exporter.repeat.cache import Cache
from edgeml.exporter.repeat.keys import site_packages
from edgeml.exporter.sources import onnx_source
from edgeml.exporter.sources.forms import ArrayShape, Opened, OpenJob, ReferenceJob

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node


def value(name: str, *shape: int | str, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: tuple[onnx.TensorProto, ...] = (),
    domain: str = "",
) -> Path:
    graph = helper.make_graph(nodes, "net", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


def opened(path: Path, *shapes: ArrayShape, **asked: tuple[int, ...]) -> Opened:
    (path.parent / "work").mkdir(exist_ok=True)
    job = OpenJob(
        form="onnx",
        path=path,
        attribute="",
        workdir=path.parent / "work",
        shapes=shapes,
        asked=asked,
    )
    return onnx_source.open_source(job)


def linear(*, file: Path, width: int | str = 4) -> Path:
    weights = (weight("w", np.ones((4, 2), np.float32)),)
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    return save(file, nodes, [value("x", "batch", width)], [value("y", "batch", 2)], weights)


def test_an_operator_of_somebodys_own_is_named_with_its_domain(tmp_path: Path):
    nodes = [node("Sharpen", ["x"], ["y"], domain="com.acme", name="front/sharpen")]
    path = save(tmp_path / "a.onnx", nodes, [value("x", 1, 4)], [value("y", 1, 4)], (), "com.acme")
    with pytest.raises(SourceError, match=r"Node 'front/sharpen' .* is com\.acme::Sharpen") as e:
        opened(path)
    assert "standard" in e.value.remedy


def test_an_operator_that_onnx_itself_does_not_have_is_named(tmp_path: Path):
    nodes = [node("Sharpen", ["x"], ["y"])]
    path = save(tmp_path / "a.onnx", nodes, [value("x", 1, 4)], [value("y", 1, 4)])
    with pytest.raises(SourceError, match="operator Sharpen, which ONNX does not have in opset 18"):
        opened(path)


def test_weights_in_a_file_beside_the_model(tmp_path: Path):
    model = onnx.load(linear(file=tmp_path / "one.onnx"))
    path = tmp_path / "net.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    # What an export hangs on holds them, too: ONNX reads them unseen by Python.
    children = Children(tmp_path / "log.txt", record=tmp_path / "read.txt")
    with children.child() as child:
        assert read(child, str(path), tmp_path).inputs[0].shape == (1, 4)
    assert str(tmp_path / "w.bin") in children.dependencies()
    (tmp_path / "w.bin").unlink()
    with pytest.raises(SourceError, match="beside it") as caught:
        opened(path)
    assert "Copy it there" in caught.value.remedy
    (tmp_path / "w.bin").mkdir()
    with pytest.raises(SourceError, match="beside it"):
        opened(path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = onnx.load(str(path), load_external_data=False)
    moved.graph.initializer[0].external_data[0].value = "../one.onnx"
    onnx.save(moved, str(elsewhere / "net.onnx"))
    with pytest.raises(SourceError, match="in a file beside it cannot be read"):
        opened(elsewhere / "net.onnx")


def test_more_weights_than_one_file_can_hold_are_refused_by_their_entries(tmp_path: Path):
    model = onnx.load(linear(file=tmp_path / "one.onnx"))
    path = tmp_path / "net.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    bare = onnx.load(str(path), load_external_data=False)
    for entry in bare.graph.initializer[0].external_data:
        if entry.key == "length":
            entry.value = str(3_000_000_000)
    onnx.save(bare, str(path))
    with pytest.raises(SourceError, match="3.00 GB of weights") as caught:
        opened(path)
    assert "half precision" in caught.value.remedy


def test_a_file_that_is_too_large_is_not_even_read(tmp_path: Path):
    path = tmp_path / "net.onnx"
    with path.open("wb") as stream:  # takes no room on the disk
        stream.truncate(2**31 + 1)
    with pytest.raises(SourceError, match=r"net\.onnx has 2\.15 GB") as caught:
        opened(path)
    assert "half precision" in caught.value.remedy


@pytest.mark.parametrize(
    ("change", "expected", "remedy"),
    [
        ({"opset": 27}, "opset 26 or older", "opset_version=…"),
        ({"ir": 14}, "IR version 13 or older", "model.ir_version = 13"),
    ],
)
def test_a_model_newer_than_the_runtime_says_what_is_not_too_new(
    change: dict[str, int], expected: str, remedy: str, tmp_path: Path
):
    model = onnx.load(linear(file=tmp_path / "net.onnx"))
    model.opset_import[0].version = change.get("opset", 18)
    model.ir_version = change.get("ir", 10)
    onnx.save(model, str(tmp_path / "net.onnx"))
    with pytest.raises(SourceError, match="newer than ONNX Runtime 1") as caught:
        opened(tmp_path / "net.onnx")
    assert caught.value.expected == expected
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("opset", [7, 26])
def test_the_oldest_and_the_newest_opset_are_read(opset: int, tmp_path: Path):
    model = onnx.load(linear(file=tmp_path / "net.onnx"))
    model.opset_import[0].version = opset
    onnx.save(model, str(tmp_path / "net.onnx"))
    assert opened(tmp_path / "net.onnx").title == f"ONNX opset {opset}"


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ([value("x", 1, 0)], "holds no values"),
        ([value("x", 1, 2**31)], "2,147,483,648 values in a sample"),
        ([value("x", 4, 2)], r"has the shape \[4, 2\]"),
        ([value("x")], "a scalar"),
        ([value("x", 1, 2, kind=TensorProto.DOUBLE)], "is float64"),
        ([value("x", 1, 2, kind=TensorProto.FLOAT16)], "is float16"),
        ([value("x", 1, 2, kind=TensorProto.BFLOAT16)], "is bfloat16"),
        ([value("x", 1, 2, kind=TensorProto.COMPLEX64)], "is complex64"),
        ([value("x", 1, 2, kind=TensorProto.STRING)], "is string"),
    ],
    ids=["empty", "boundless", "batch 4", "scalar", "double", "half", "brain", "complex", "text"],
)
def test_inputs_that_no_artifact_takes(
    tmp_path: Path, inputs: list[onnx.ValueInfoProto], found: str
):
    (given,) = inputs
    outputs = [onnx.ValueInfoProto.FromString(given.SerializeToString())]
    outputs[0].name = "y"
    path = save(tmp_path / "net.onnx", [node("Identity", ["x"], ["y"])], inputs, outputs)
    with pytest.raises(SourceError, match=found) as caught:
        opened(path)
    assert caught.value.expected
    assert caught.value.remedy


def test_an_output_without_a_batch_is_told(tmp_path: Path):
    nodes = [node("ReduceSum", ["x"], ["y"], keepdims=0)]
    path = save(tmp_path / "net.onnx", nodes, [value("x", 1, 4)], [value("y")])
    with pytest.raises(SourceError, match=r"output 'y' .* \[\] \(a scalar\)"):
        opened(path)


@pytest.mark.parametrize("again", ["x", "y"])
def test_an_output_that_is_an_input_or_comes_twice_is_told(tmp_path: Path, again: str):
    outputs = [value("y", 1, 4), value(again, 1, 4)]
    path = save(tmp_path / "net.onnx", [node("Relu", ["x"], ["y"])], [value("x", 1, 4)], outputs)
    with pytest.raises(SourceError, match=f"output '{again}' .* is an input, or another output"):
        opened(path)


def test_a_tensor_on_the_way_that_no_machine_holds_is_told(tmp_path: Path):
    weights = (weight("size", np.array([1, 2**46])), weight("axis", np.array([1])))
    nodes = [
        node("Expand", ["x", "size"], ["wide"], name="head/wide"),
        node("ReduceSum", ["wide", "axis"], ["y"], keepdims=1),
    ]
    path = save(tmp_path / "net.onnx", nodes, [value("x", 1, 1)], [value("y", 1, 1)], weights)
    found = opened(path)
    np.save(tmp_path / "x.npy", np.ones((2, 1), np.float32))
    job = ReferenceJob(source=found, inputs=(tmp_path / "x.npy",), outputs=(tmp_path / "y.npy",))
    with pytest.raises(
        SourceError, match=r"Expand \(node 'head/wide'\): .* tensor of 281,475\.0 GB"
    ):
        onnx_source.reference(job)


def test_an_output_that_is_no_tensor_is_told(tmp_path: Path):
    sequence = helper.make_tensor_sequence_value_info("y", FLOAT, None)
    nodes = [node("SequenceConstruct", ["x"], ["y"])]
    path = save(tmp_path / "net.onnx", nodes, [value("x", 1, 4)], [sequence])
    with pytest.raises(SourceError, match="no tensor") as caught:
        opened(path)
    assert "zipmap" in caught.value.remedy


def test_open_axes_are_asked_for_or_come_from_the_data(tmp_path: Path):
    nodes = [node("Relu", ["x"], ["y"])]
    path = save(tmp_path / "net.onnx", nodes, [value("x", "b", 3, "n")], [value("y", "b", 3, "n")])
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert "--shape x=1,3,N" in caught.value.remedy
    from_data = opened(path, ArrayShape("x", (3, 7), "float32"))
    assert from_data.inputs[0].shape == from_data.outputs[0].shape == (1, 3, 7)
    assert "--shape x=1,3,7" in from_data.notes[0]
    asked = opened(path, x=(1, 3, 9))
    assert (asked.inputs[0].shape, asked.notes) == ((1, 3, 9), ())
    kept = opened(path, x=(1, 3, -1))
    assert kept.inputs[0].shape == kept.outputs[0].shape == (1, 3, -1)


def test_an_open_axis_is_kept_where_the_target_can(export: Export, tmp_path: Path):
    nodes = [node("Relu", ["x"], ["y"])]
    path = save(tmp_path / "net.onnx", nodes, [value("x", "b", 3, "n")], [value("y", "b", 3, "n")])
    samples = np.random.default_rng(0).normal(0, 1, (20, 3, 7)).astype("float32")
    np.savez(tmp_path / "data.npz", x=samples)
    outcome = export(
        model=str(path),
        targets=["onnx", "openvino", "tflite"],
        precision="fp32",
        evaluation=str(tmp_path / "data.npz"),
        shapes={"x": [1, 3, -1]},
        output=str(tmp_path),
    )
    assert outcome.status == 1
    assert "--shape input=1,3,224,224" in outcome.refused["tflite"].remedy
    manifest = outcome.bundle().manifest
    assert {artifact.target for artifact in manifest.artifacts} == {"onnx", "openvino"}
    assert manifest.inputs[0].shape == manifest.outputs[0].shape == (1, 3, -1)


def test_slashes_colons_tokens_and_several_of_all_go_through_to_the_bundle(
    export: Export, onnx2tf: Path, tmp_path: Path
):
    """Token numbers through an embedding, beside an image of features, to two outputs."""
    random = np.random.default_rng(0)
    weights = (
        weight("table", random.normal(0, 1, (50, 8)).astype("float32")),
        weight("w", random.normal(0, 1, (8, 3)).astype("float32")),
        weight("axis", np.array([1])),
    )
    nodes = [
        node("Gather", ["table", "text/tokens:0"], ["e"]),
        node("ReduceMean", ["e", "axis"], ["m"], keepdims=0),
        node("Add", ["m", "side:features"], ["sum/of:both"]),
        node("MatMul", ["sum/of:both", "w"], ["head/scores"]),
    ]
    inputs = [value("text/tokens:0", "b", 6, kind=INT64), value("side:features", "b", 8)]
    outputs = [value("head/scores", "b", 3), value("sum/of:both", "b", 8)]
    path = save(tmp_path / "net.onnx", nodes, inputs, outputs, weights)
    feeds = {
        "text/tokens:0": random.integers(0, 50, (24, 6)),
        "side:features": random.normal(0, 1, (24, 8)).astype("float32"),
    }
    np.savez(tmp_path / "data.npz", **feeds)
    outcome = export(
        model=str(path),
        targets=["onnx", "openvino", "tflite"],
        precision="fp32",
        calibration=str(tmp_path / "data.npz"),
        output=str(tmp_path),
    )
    assert outcome.status == 0
    bundle = outcome.bundle()
    assert [each.name for each in bundle.manifest.inputs] == list(feeds)
    assert [each.name for each in bundle.manifest.outputs] == ["head/scores", "sum/of:both"]
    assert bundle.manifest.inputs[0].dtype == "int64"
    assert set(bundle.golden().inputs) == set(feeds)
    assert len(bundle.manifest.artifacts) == 3
    # The toolchain that ONNX goes through to LiteRT: in the lock, and among what the cache goes by.
    assert "onnx2tf" in json.loads(bundle.read("edgeml.lock"))["bridges"]["tflite"]
    cache = Path(outcome.of(Started)[0].log).parents[2].with_name("tmp-cache")
    (kept,) = (each for each in Cache(cache).entries() if each.record.kind == "export")
    assert {f"{folder}/" for folder in site_packages(onnx2tf)} <= set(kept.record.dependencies)


def test_control_flow_works_in_the_source(tmp_path: Path):
    then = helper.make_graph([node("Neg", ["x"], ["a"])], "then", [], [value("a", 1, 4)])
    other = helper.make_graph([node("Abs", ["x"], ["b"])], "else", [], [value("b", 1, 4)])
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]
    zero = (weight("zero", np.float32(0)),)
    path = save(tmp_path / "net.onnx", nodes, [value("x", 1, 4)], [value("y", 1, 4)], zero)
    assert opened(path).outputs[0].shape == (1, 4)


def test_an_output_whose_shape_no_inference_finds_gets_the_one_that_it_has(tmp_path: Path):
    """What a Loop carries may change its shape from turn to turn, for all that ONNX infers."""
    turn = helper.make_graph(
        [node("Identity", ["go"], ["goes"]), node("Add", ["sum", "x"], ["sums"])],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            value("sum", 1, 4),
        ],
        [helper.make_tensor_value_info("goes", TensorProto.BOOL, []), value("sums", 1, 4)],
    )
    weights = (weight("three", np.int64(3)), weight("always", np.bool_(True)))
    nodes = [node("Loop", ["three", "always", "x"], ["y"], body=turn)]
    path = save(tmp_path / "net.onnx", nodes, [value("x", 1, 4)], [value("y", 1, 4)], weights)
    found = opened(path)
    assert found.outputs[0].shape == (1, 4)
    onnx.checker.check_model(onnx.load(str(found.path)), full_check=True)


def test_a_model_without_inputs_is_refused(export: Export, tmp_path: Path):
    nodes = [node("Constant", [], ["y"], value=weight("c", np.ones((1, 2), np.float32)))]
    path = save(tmp_path / "net.onnx", nodes, [], [value("y", 1, 2)])
    np.savez(tmp_path / "data.npz", x=np.ones((2, 2), np.float32))
    outcome = export(model=str(path), targets=["onnx"], evaluation=str(tmp_path / "data.npz"))
    assert outcome.status == 1
    assert "has no inputs" in outcome.failure.found


def test_trees_that_were_converted_before_are_classical(tmp_path: Path):
    attributes = {"coefficients": [1.0, 2.0], "intercepts": [0.5]}
    nodes = [node("LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", **attributes)]
    inputs, outputs = [value("x", "b", 2)], [value("y", "b", 1)]
    path = save(tmp_path / "net.onnx", nodes, inputs, outputs, (), "ai.onnx.ml")
    found = opened(path)
    assert (found.kind, found.answers) == ("classical", onnx_source.__name__)
