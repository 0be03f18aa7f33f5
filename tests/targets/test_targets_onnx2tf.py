"""ONNX on its way to LiteRT through onnx2tf: what fails there is told, and ends nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier

from edgeml.errors import RefusedError
from edgeml.exporter.sources import classical_graph
from edgeml.targets.compiling import CompileJob, compile_here
from edgeml.targets.runtime import NamedSession, open_session
from edgeml.targets.tflite import bridge
from edgeml.targets.tflite.beside import check_beside

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def save(path: Path, nodes: list, inputs: Mapping, outputs: Mapping) -> CompileJob:
    """A graph of these nodes on disk, and the job to convert it; types and shapes by names."""
    sides = [
        [helper.make_tensor_value_info(name, *each) for name, each in side.items()]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "graph", *sides)
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), str(path))
    return job(path, inputs, outputs)


def job(path: Path, inputs: Mapping, outputs: Mapping) -> CompileJob:
    return CompileJob(
        source_kind="onnx",
        source=path,
        precision="fp32",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        workdir=path.parent / "work",
    )


@pytest.fixture
def convert(onnx2tf: Path):
    """The ``.tflite`` of a job, with the source's names."""

    def converted(each: CompileJob) -> NamedSession:
        made = compile_here("tflite", msgspec.structs.replace(each, bridge=onnx2tf))
        session = open_session("tflite", made.files[0], options=made.options)
        return NamedSession(session, made.inputs, made.outputs)

    return converted


def test_trees_that_decide_between_two_classes(convert, tmp_path: Path):
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    trees = RandomForestClassifier(2, max_depth=2, random_state=0)
    trees.fit(rows, np.where(rows[:, 0] > rows[:, 1], 3, 7))
    made = classical_graph.convert(trees, width=3, names=(), call="the model").model
    onnx.save(made, str(tmp_path / "trees.onnx"))
    each = job(tmp_path / "trees.onnx", {"X": ...}, {"label": ..., "probabilities": ...})
    session = convert(msgspec.structs.replace(each, source_kind="classical"))
    found = [session.run({"X": rows[i : i + 1]}) for i in range(20)]
    assert [int(each["label"][0]) for each in found] == trees.predict(rows[:20]).tolist()
    scores = np.concatenate([each["probabilities"] for each in found])
    np.testing.assert_allclose(scores, trees.predict_proba(rows[:20]), atol=1e-6)


def test_what_tensorflow_s_converter_writes_for_nobody_is_refused_in_its_words(
    convert, tmp_path: Path
):
    """Its optimizer makes zeros of a boolean of this, an operator that LiteRT has not."""
    table = onnx.numpy_helper.from_array(np.array([3, 7]), "table")
    each = save(
        tmp_path / "table.onnx",
        [
            helper.make_node("Constant", [], ["half"], value_float=0.5),
            helper.make_node("Constant", [], ["table"], value=table),
            helper.make_node("Greater", ["x", "half"], ["above"]),
            helper.make_node("Cast", ["above"], ["number"], to=INT64),
            helper.make_node("Gather", ["table", "number"], ["label"]),
        ],
        {"x": (FLOAT, [1])},
        {"label": (INT64, [1])},
    )
    with pytest.raises(RefusedError) as refused:
        convert(each)
    assert "'tfl.zeros_like' op operand #0 must be tensor" in refused.value.found
    assert "Less" in refused.value.found


def test_where_onnx2tf_fails_the_node_is_named(convert, tmp_path: Path):
    """Of two nodes of a kind the one; what it makes is the model's own name."""
    cube = (FLOAT, [2, 3, 4])
    each = save(
        tmp_path / "last.onnx",
        [
            helper.make_node("ArgMax", ["x"], ["first/of"], name="good", axis=1),
            helper.make_node("ArgMax", ["x"], ["last:of"], name="bad", select_last_index=1),
        ],
        {"x": cube},
        {"first/of": (INT64, [2, 1, 4]), "last:of": (INT64, [1, 3, 4])},
    )
    with pytest.raises(RefusedError) as refused:
        convert(each)
    assert refused.value.found.startswith("onnx2tf cannot convert ArgMax: its own code fails (")
    assert "It is node 'bad' (float32[2, 3, 4] → int64[1, 3, 4])" in refused.value.found
    assert "Replace the operator by an equivalent" in refused.value.remedy


def test_what_takes_onnx2tf_too_long_is_refused(
    convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It splits a tensor of more than six axes into slices, and GatherElements transposes one."""
    monkeypatch.setattr(bridge, "BASE_S", 10.0)
    monkeypatch.setattr(bridge, "NODE_S", 1.0)
    shape = [3, 5, 6, 6, 5, 3, 4]
    each = save(
        tmp_path / "gather.onnx",
        [
            helper.make_node("Abs", ["x"], ["positive"]),
            helper.make_node("GatherElements", ["positive", "index"], ["y"], axis=1),
        ],
        {"x": (FLOAT, shape), "index": (INT64, shape)},
        {"y": (FLOAT, shape)},
    )
    with pytest.raises(RefusedError) as refused:
        convert(each)
    assert refused.value.found == (
        "onnx2tf cannot convert GatherElements: it takes more than 12 s of processor time. It is "
        f"the node that makes 'y' (float32{shape}, int64{shape} → float32{shape})"
    )


def test_a_model_that_ends_its_process_is_refused(tmp_path: Path):
    """LiteRT takes uint8 for quantized, looks for a scale, and divides by none."""
    module = tf.Module()
    spec = tf.TensorSpec([2], tf.uint8, name="x")
    module.serve = tf.function(lambda x: {"y": tf.equal(x, tf.constant([1, 2], tf.uint8))})
    concrete = module.serve.get_concrete_function(spec)
    tf.saved_model.save(module, str(tmp_path / "equal"), {"serving_default": concrete})
    path = tmp_path / "equal.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "equal")).convert())
    draws = tmp_path / "draws.npz"
    np.savez(draws, **{"0/x": np.uint8([1, 3]), "0/y": np.array([True, False])})
    with pytest.raises(RefusedError, match=r"LiteRT ends its process \(signal SIG"):
        check_beside(path, draws)


class Tokens(torch.nn.Module):
    """Attention over ids, of which a mask says which count."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(50, 16)
        self.mix = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = torch.nn.Linear(16, 4)

    def forward(self, ids, mask):
        mixed = self.mix(self.embed(ids), src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).float()
        return self.head((mixed * weights).sum(1) / weights.sum(1).clamp(min=1))


def test_token_ids_and_a_mask_come_through(convert, tmp_path: Path):
    """Of the inputs that are drawn to check the conversion, most are no mask, and few are ids."""
    torch.manual_seed(0)
    model = Tokens().eval()
    ids = torch.randint(0, 50, (1, 12))
    mask = (torch.arange(12) < 7).long()[None]
    path = tmp_path / "tokens.onnx"
    names = {"input_names": ["input/ids:0", "mask"], "output_names": ["logits"]}
    torch.onnx.export(model, (ids, mask), dynamo=True, verbose=False, **names).save(str(path))
    with convert(job(path, dict.fromkeys(names["input_names"]), {"logits": None})) as named:
        found = named.run({"input/ids:0": ids.numpy(), "mask": mask.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found["logits"], model(ids, mask), rtol=1e-4, atol=1e-5)


def test_norms_and_shuffled_channels_come_through(convert, tmp_path: Path):
    """Of these layers onnx2tf keeps weights where its model does not know of them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 3, groups=2),
        torch.nn.PReLU(8),
        torch.nn.ChannelShuffle(2),
        torch.nn.GroupNorm(2, 8),
        torch.nn.InstanceNorm2d(8, affine=True),
        torch.nn.PixelShuffle(2),
    ).eval()
    example = torch.randn(1, 8, 12, 12)
    path = tmp_path / "norms.onnx"
    torch.onnx.export(
        model, (example,), dynamo=True, verbose=False, input_names=["x"], output_names=["y"]
    ).save(str(path))
    with convert(job(path, {"x": None}, {"y": None})) as named:
        found = named.run({"x": example.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found["y"], model(example), rtol=1e-4, atol=1e-5)


def test_a_constant_that_is_a_number_is_added(convert, tmp_path: Path):
    """onnx2tf takes neither such a constant nor a Sum of a matrix and a scalar."""
    each = save(
        tmp_path / "shifted.onnx",
        [
            helper.make_node("Constant", [], ["two"], value_float=2.0),
            helper.make_node("Sum", ["x", "two"], ["y"]),
        ],
        {"x": (FLOAT, [2, 3])},
        {"y": (FLOAT, [2, 3])},
    )
    x = np.arange(6, dtype="float32").reshape(2, 3)
    with convert(each) as named:
        np.testing.assert_array_equal(named.run({"x": x})["y"], x + 2)
